// Stand-alone runner for the sanitizer builds, which must own their process.
// argv: a file in (request and buffers), a file out (result and buffers).
#include "run.h"
#include <cstdio>
#include <cstdlib>

extern "C" void msl_kernel(void**);
extern "C" int msl_run(void (*)(void**), const msl::Request*, msl::Result*);

static bool read(void* p, size_t n, FILE* f) { return n == 0 || fread(p, n, 1, f) == 1; }

int main(int argc, char** argv) {
  FILE* in = argc == 3 ? fopen(argv[1], "rb") : nullptr;
  msl::Request request = {};
  if (!in || !read(&request.buffer_count, 8, in) || !read(request.grid, 12, in) || !read(request.threadgroup, 12, in) ||
      !read(&request.order, 4, in) || !read(&request.seed, 4, in))
    return 9;
  void** buffers = request.buffers = (void**)calloc(request.buffer_count, sizeof(void*));
  uint64_t* sizes = (uint64_t*)calloc(request.buffer_count, 8);
  request.sizes = sizes;
  for (uint64_t i = 0; i < request.buffer_count; i++) {
    if (!read(&sizes[i], 8, in)) return 9;
    buffers[i] = malloc(sizes[i]); // exact, so that the sanitizer sees its end
    if (!read(buffers[i], sizes[i], in)) return 9;
  }
  fclose(in);
  static msl::Result result;
  int failed = msl_run(msl_kernel, &request, &result);
  FILE* out = fopen(argv[2], "wb");
  if (!out) return 9;
  fwrite(&result, sizeof result, 1, out);
  for (uint64_t i = 0; i < request.buffer_count; i++)
    if (sizes[i]) fwrite(buffers[i], sizes[i], 1, out);
  fclose(out);
  return failed ? 3 : 0;
}

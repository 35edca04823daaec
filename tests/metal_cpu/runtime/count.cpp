// Counts device traffic. The kernel is compiled with ThreadSanitizer's instrumentation, which calls a function
// at each load and store; here these functions do not look for races but note which bytes are touched.
#include "run.h"
#include <cstdlib>

namespace msl {
namespace {
struct Buffer {
  uintptr_t begin, end;
  uint32_t *reader, *writer; // per byte: the last threadgroup that touched it, 0 for none
  Traffic traffic;
};
constexpr int MAX_BUFFERS = 64;
Buffer buffers[MAX_BUFFERS];
uint64_t buffer_count;
uint32_t group; // 1 + ordinal of the running threadgroup
Buffer* last;

inline Buffer* find(uintptr_t p) {
  if (last && p >= last->begin && p < last->end) return last;
  for (uint64_t i = 0; i < buffer_count; i++)
    if (p >= buffers[i].begin && p < buffers[i].end) return last = &buffers[i];
  return nullptr; // the thread's stack, or threadgroup memory
}

inline void mark(uint32_t* stamps, size_t at, size_t n, uint64_t& by_group, uint64_t& once) {
  for (size_t i = at; i < at + n; i++) {
    by_group += stamps[i] != group;
    once += stamps[i] == 0;
    stamps[i] = group;
  }
}
} // namespace

void count_begin(const Request& request) {
  buffer_count = request.buffer_count < MAX_BUFFERS ? request.buffer_count : MAX_BUFFERS;
  last = nullptr;
  for (uint64_t i = 0; i < buffer_count; i++) {
    Buffer& b = buffers[i];
    free(b.reader);
    free(b.writer);
    uintptr_t begin = (uintptr_t)request.buffers[i];
    uint64_t size = request.sizes[i];
    b = {begin, begin + size, (uint32_t*)calloc(size + 64, 4), (uint32_t*)calloc(size + 64, 4), {}};
  }
}
void count_group(uint32_t ordinal) { group = ordinal + 1; }

static inline void count_read(void* address, size_t n) {
  if (Buffer* b = find((uintptr_t)address)) {
    b->traffic.read += n;
    mark(b->reader, (uintptr_t)address - b->begin, n, b->traffic.read_by_group, b->traffic.read_once);
  }
}
static inline void count_write(void* address, size_t n) {
  if (Buffer* b = find((uintptr_t)address)) {
    b->traffic.written += n;
    mark(b->writer, (uintptr_t)address - b->begin, n, b->traffic.written_by_group, b->traffic.written_once);
  }
}
} // namespace msl

#define MSL_EXPORT extern "C" __attribute__((visibility("default")))
MSL_EXPORT void msl_traffic(msl::Traffic* out) {
  for (uint64_t i = 0; i < msl::buffer_count; i++) out[i] = msl::buffers[i].traffic;
}

#define MSL_HOOKS(n)                                                               \
  extern "C" void __tsan_read##n(void* p) { msl::count_read(p, n); }               \
  extern "C" void __tsan_write##n(void* p) { msl::count_write(p, n); }             \
  extern "C" void __tsan_unaligned_read##n(void* p) { msl::count_read(p, n); }     \
  extern "C" void __tsan_unaligned_write##n(void* p) { msl::count_write(p, n); }   \
  extern "C" void __tsan_volatile_read##n(void* p) { msl::count_read(p, n); }      \
  extern "C" void __tsan_volatile_write##n(void* p) { msl::count_write(p, n); }
MSL_HOOKS(1) MSL_HOOKS(2) MSL_HOOKS(4) MSL_HOOKS(8) MSL_HOOKS(16)
extern "C" void __tsan_read_range(void* p, size_t n) { msl::count_read(p, n); }
extern "C" void __tsan_write_range(void* p, size_t n) { msl::count_write(p, n); }
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit(void*) {}
extern "C" void __tsan_init() {}
extern "C" void __tsan_vptr_update(void*, void*) {}

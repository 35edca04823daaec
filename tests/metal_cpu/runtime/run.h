// The call that Python makes (program.py mirrors these two structures) and the counting hooks.
#pragma once
#include <cstddef>
#include <cstdint>

namespace msl {
enum Order { FORWARD, REVERSE, SHUFFLED };

struct Request {
  void** buffers;
  const uint64_t* sizes; // in bytes
  uint64_t buffer_count;
  uint32_t grid[3], threadgroup[3];
  uint32_t order, seed;
};

struct Result {
  uint64_t threads, threadgroups, simd_ops, matrix_ops, simdgroup_barriers, threadgroup_barriers;
  uint64_t threadgroup_bytes; // allocated, the largest group
  uint64_t faults;
  char log[4096];
};

// Bytes of one buffer: asked for by all threads; once per threadgroup; once per dispatch.
struct Traffic {
  uint64_t read, read_by_group, read_once, written, written_by_group, written_once;
};

#ifdef MSL_COUNT
void count_begin(const Request& request);
void count_group(uint32_t ordinal);
#else
inline void count_begin(const Request&) {}
inline void count_group(uint32_t) {}
#endif
} // namespace msl

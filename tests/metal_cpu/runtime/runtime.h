// What a compiled kernel sees of the machine: one Lane per GPU thread, switched cooperatively.
// One kernel runs at a time in a process; run several processes to use more cores.
#pragma once
#include <cstddef>
#include <cstdint>

namespace msl {
constexpr int SIMD_WIDTH = 32;
constexpr int SLOT_BYTES = 64; // what a lane can offer to one simdgroup operation

enum Op {
  SUM = 1, PRODUCT, MIN, MAX, AND, OR, XOR, SHUFFLE, BALLOT, PREFIX, BROADCAST, MATRIX, SIMDGROUP_BARRIER
};
enum Scope { THREADGROUP, SIMDGROUP };

// Two sets of everything, used in turns: a fast lane may enter the next operation while a slow one still reads.
struct Simdgroup {
  alignas(64) unsigned char slot[2][SIMD_WIDTH][SLOT_BYTES];
  alignas(64) unsigned char result[2][SLOT_BYTES]; // of a reduction, computed once
  uint32_t have_result[2];
  uint32_t mask[2];  // lanes that take part
  uint32_t parity;   // of the operation being gathered
  int first, count;  // the threads of the group that belong to it
};

struct Lane {
  Simdgroup* simdgroup;
  uint32_t lane;   // index in the simdgroup
  uint32_t index;  // index in the threadgroup
  uint32_t parity; // of the operation this lane took part in last
  uint32_t in_grid[3], in_group[3], group[3];
  // the scheduler's part
  int state, line, op;
  void *stack_pointer, *stack, *tsan_fiber;
};

struct Launch {
  uint32_t grid[3], threadgroup[3], groups[3], group_size[3];
};
extern Lane* current;
extern Launch launch;

extern "C" {
void msl_simd_wait(int line, int op);
void msl_barrier(int line, int scope);
void* msl_threadgroup_memory(int site, size_t bytes, size_t align);
}
} // namespace msl

// The machine: runs a grid of threadgroups, one fiber per GPU thread, simdgroups of 32 in lockstep.
// This file is never compiled with a sanitizer's instrumentation: its accesses are not the kernel's.
#include "runtime.h"
#include "run.h"
#include "sanitizer.h"
#include "switch.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace msl {
Lane* current;
Launch launch;

namespace {
enum State { READY, AT_SIMD_OP, AT_BARRIER, RETURNED };
constexpr size_t STACK = 256 << 10, GUARD = 4096 * 4;
constexpr size_t THREADGROUP_LIMIT = 32768, ARENA = 1 << 20;
constexpr uint32_t THREAD_LIMIT = 1024;
constexpr uint64_t FAULTS_SHOWN = 8, FAULTS_ENOUGH = 64;
constexpr int MAX_SITES = 64;

struct Block { int site; void* memory; };

struct Machine {
  void (*kernel)(void**) = nullptr;
  void** buffers = nullptr;
  Result* result = nullptr;
  std::vector<Lane> lanes;
  std::vector<Simdgroup> simdgroups;
  std::vector<char> simd_fence;    // addresses that stand for barriers in ThreadSanitizer's eyes
  char group_fence[4], begin_fence, end_fence;
  std::vector<void*> stacks[2], tsan_fibers[2];
  Block blocks[MAX_SITES];
  int block_count = 0;
  size_t threadgroup_bytes = 0;
  char* arena = nullptr;
  int threads = 0, returned = 0, barrier_turn = 0;
  Order order = FORWARD;
  std::mt19937 random;
  std::string log;
  // the scheduler's own context
  void *stack_pointer = nullptr, *tsan_fiber = nullptr, *asan_fake = nullptr;
  const void* asan_stack = nullptr;
  size_t asan_stack_size = 0;
};
Machine* machine;

void fault(const std::string& what) {
  if (machine->result->faults++ < FAULTS_SHOWN) machine->log += what + '\n';
}
std::string where(const Lane& l) {
  char text[160];
  snprintf(text, sizeof text, "threadgroup (%u,%u,%u) thread (%u,%u,%u) simdgroup %u lane %u", l.group[0], l.group[1],
           l.group[2], l.in_group[0], l.in_group[1], l.in_group[2], l.index / SIMD_WIDTH, l.lane);
  return text;
}

// ---- switching between the scheduler and a thread --------------------------------------------------------
void run_lane(Lane& l) {
  current = &l;
  __tsan_switch_to_fiber(l.tsan_fiber, 1); // 1: switching is no synchronisation
  __sanitizer_start_switch_fiber(&machine->asan_fake, l.stack, STACK);
  msl_switch(&machine->stack_pointer, l.stack_pointer);
  __sanitizer_finish_switch_fiber(machine->asan_fake, nullptr, nullptr);
}
void yield(Lane& l, bool for_good) {
  __tsan_switch_to_fiber(machine->tsan_fiber, 1);
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, machine->asan_stack, machine->asan_stack_size);
  msl_switch(&l.stack_pointer, machine->stack_pointer);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
void thread_main() {
  __sanitizer_finish_switch_fiber(nullptr, &machine->asan_stack, &machine->asan_stack_size);
  __tsan_acquire(&machine->begin_fence);
  machine->kernel(machine->buffers);
  __tsan_release(&machine->end_fence);
  current->state = RETURNED;
  machine->returned++;
  yield(*current, true);
  __builtin_trap();
}
} // namespace

extern "C" {
void msl_simd_wait(int line, int op) {
  Lane& l = *current;
  l.state = AT_SIMD_OP;
  l.line = line;
  l.op = op;
  yield(l, false);
}

void msl_barrier(int line, int scope) {
  Lane& l = *current;
  size_t turn = l.index / SIMD_WIDTH * 2 + (l.simdgroup->parity & 1);
  char* fence = scope == SIMDGROUP ? &machine->simd_fence[turn] : &machine->group_fence[machine->barrier_turn];
  __tsan_release(fence);
  if (scope == SIMDGROUP) {
    l.parity = l.simdgroup->parity; // a barrier offers nothing
    msl_simd_wait(line, SIMDGROUP_BARRIER);
  } else {
    l.state = AT_BARRIER;
    l.line = line;
    yield(l, false);
  }
  __tsan_acquire(fence);
}

void* msl_threadgroup_memory(int site, size_t bytes, size_t align) {
  Machine& m = *machine;
  for (int i = 0; i < m.block_count; i++)
    if (m.blocks[i].site == site) return m.blocks[i].memory;
  size_t rounded = (bytes + 15) / 16 * 16;
  if (m.block_count == MAX_SITES || m.threadgroup_bytes + rounded > ARENA) {
    fprintf(stderr, "threadgroup memory: more than %d arrays or %zu bytes\n", MAX_SITES, ARENA);
    abort();
  }
  void* memory;
  if (TSAN) memory = m.arena + m.threadgroup_bytes; // poisoned when it was mapped
  else {
    // under AddressSanitizer the exact size, so that the red zone begins right behind it
    memory = ASAN ? malloc(bytes) : aligned_alloc(std::max<size_t>(align, 16), rounded);
    memset(memory, 0xff, bytes); // NaN in every float type: what is read before it is written shows
  }
  m.blocks[m.block_count++] = {site, memory};
  m.threadgroup_bytes += rounded;
  m.result->threadgroup_bytes = std::max<uint64_t>(m.result->threadgroup_bytes, m.threadgroup_bytes);
  return memory;
}
}

namespace {
// ---- the scheduler -----------------------------------------------------------------------------------------
// Lets the lanes of a simdgroup that wait in one operation go on; says so if they are not all there.
bool release_simdgroup(Simdgroup& group) {
  Lane* lanes = &machine->lanes[group.first];
  Lane* lead = nullptr;
  int elsewhere = 0, returned = 0, at_barrier = 0;
  for (int i = 0; i < group.count; i++) {
    if (lanes[i].state == RETURNED) returned++;
    else if (lanes[i].state == AT_BARRIER) at_barrier++;
    else if (!lead) lead = &lanes[i];
    else if (lanes[i].line != lead->line || lanes[i].op != lead->op) elsewhere++;
  }
  if (!lead) return false;
  if (elsewhere || at_barrier || returned) {
    char text[200];
    snprintf(text, sizeof text,
             "line %d: simdgroup operation in divergent flow: of %d lanes %d are at another, %d at a barrier, "
             "%d have returned; ", lead->line, group.count, elsewhere, at_barrier, returned);
    fault(text + where(*lead));
  }
  uint32_t parity = group.parity, mask = 0;
  for (int i = 0; i < group.count; i++) {
    Lane& l = lanes[i];
    if (l.state != AT_SIMD_OP || l.line != lead->line || l.op != lead->op) continue;
    if (l.parity != parity) memcpy(group.slot[parity][i], group.slot[l.parity][i], SLOT_BYTES);
    l.parity = parity;
    l.state = READY;
    mask |= 1u << i;
  }
  group.mask[parity] = mask;
  group.have_result[parity] = 0;
  group.parity = parity ^ 1;
  Result& r = *machine->result;
  (lead->op == MATRIX ? r.matrix_ops : lead->op == SIMDGROUP_BARRIER ? r.simdgroup_barriers : r.simd_ops)++;
  return true;
}

bool release_barrier() {
  Machine& m = *machine;
  int waiting = 0;
  bool at_several = false;
  Lane* lead = nullptr;
  for (int i = 0; i < m.threads; i++) {
    Lane& l = m.lanes[i];
    if (l.state != AT_BARRIER) continue;
    waiting++;
    if (!lead) lead = &l;
    at_several |= l.line != lead->line;
  }
  if (!waiting || waiting + m.returned != m.threads) return false;
  if (waiting != m.threads || at_several) {
    char text[160];
    snprintf(text, sizeof text, "line %d: threadgroup_barrier not reached by every thread (%d of %d%s); ", lead->line,
             waiting, m.threads, at_several ? ", at different barriers" : "");
    fault(text + where(*lead));
  }
  for (int i = 0; i < m.threads; i++)
    if (m.lanes[i].state == AT_BARRIER) m.lanes[i].state = READY;
  m.result->threadgroup_barriers++;
  m.barrier_turn = (m.barrier_turn + 1) & 3;
  return true;
}

void prepare_group(const uint32_t group[3]) {
  Machine& m = *machine;
  uint32_t* size = launch.group_size;
  for (int k = 0; k < 3; k++)
    size[k] = std::min(launch.threadgroup[k], launch.grid[k] - group[k] * launch.threadgroup[k]);
  int n = m.threads = size[0] * size[1] * size[2], simdgroups = (n + SIMD_WIDTH - 1) / SIMD_WIDTH;
  m.returned = 0;
  m.lanes.resize(std::max<size_t>(m.lanes.size(), n));
  m.simdgroups.resize(std::max<size_t>(m.simdgroups.size(), simdgroups));
  m.simd_fence.resize(simdgroups * 2);
  // ThreadSanitizer must not take the threads of neighbouring groups for the same ones
  int set = TSAN ? (group[0] + group[1] + group[2]) & 1 : 0;
  while ((int)m.stacks[set].size() < n) {
    char* stack = (char*)mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(stack, GUARD, PROT_NONE);
    m.stacks[set].push_back(stack + GUARD);
  }
  while (TSAN && (int)m.tsan_fibers[set].size() < n) m.tsan_fibers[set].push_back(__tsan_create_fiber(0));
  if (TSAN) { // mapped and unmapped for each group, which makes ThreadSanitizer forget the accesses
    m.arena = (char*)mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(m.arena, 0xff, 2 * THREADGROUP_LIMIT);
  }
  __tsan_release(&m.begin_fence);
  for (int s = 0; s < simdgroups; s++) {
    m.simdgroups[s].parity = 0;
    m.simdgroups[s].first = s * SIMD_WIDTH;
    m.simdgroups[s].count = std::min(SIMD_WIDTH, n - s * SIMD_WIDTH);
  }
  for (int i = 0; i < n; i++) {
    Lane& l = m.lanes[i];
    l.index = i;
    l.lane = i % SIMD_WIDTH;
    l.simdgroup = &m.simdgroups[i / SIMD_WIDTH];
    l.in_group[0] = i % size[0];
    l.in_group[1] = i / size[0] % size[1];
    l.in_group[2] = i / (size[0] * size[1]);
    for (int k = 0; k < 3; k++) {
      l.group[k] = group[k];
      l.in_grid[k] = group[k] * launch.threadgroup[k] + l.in_group[k];
    }
    l.state = READY;
    l.parity = 0;
    l.stack = m.stacks[set][i];
    l.tsan_fiber = TSAN ? m.tsan_fibers[set][i] : nullptr;
    // staggered tops: equal offsets in every page would share cache sets
    l.stack_pointer = first_frame((char*)l.stack + STACK - i % 61 * 320, thread_main);
  }
}

void release_group() {
  Machine& m = *machine;
  if (TSAN) munmap(m.arena, ARENA);
  else
    for (int i = 0; i < m.block_count; i++) free(m.blocks[i].memory);
  m.block_count = 0;
  m.threadgroup_bytes = 0;
}

void run_group(const uint32_t group[3]) {
  Machine& m = *machine;
  prepare_group(group);
  int simdgroups = (m.threads + SIMD_WIDTH - 1) / SIMD_WIDTH;
  std::vector<int> groups(simdgroups), lanes(SIMD_WIDTH);
  for (int i = 0; i < simdgroups; i++) groups[i] = m.order == REVERSE ? simdgroups - 1 - i : i;
  for (int i = 0; i < SIMD_WIDTH; i++) lanes[i] = m.order == REVERSE ? SIMD_WIDTH - 1 - i : i;
  while (m.returned < m.threads) {
    bool progress = false;
    if (m.order == SHUFFLED) std::shuffle(groups.begin(), groups.end(), m.random);
    for (int s : groups) {
      Simdgroup& simdgroup = m.simdgroups[s];
      do {
        if (m.order == SHUFFLED) std::shuffle(lanes.begin(), lanes.end(), m.random);
        for (int i : lanes) {
          if (i >= simdgroup.count) continue;
          Lane& l = m.lanes[simdgroup.first + i];
          if (l.state != READY) continue;
          run_lane(l);
          progress = true;
        }
      } while (release_simdgroup(simdgroup));
    }
    progress |= release_barrier();
    if (!progress) {
      fault("deadlock");
      m.result->faults += FAULTS_ENOUGH;
    }
    if (m.result->faults >= FAULTS_ENOUGH) break;
  }
  release_group();
}
} // namespace
} // namespace msl

using namespace msl;

extern "C" __attribute__((visibility("default"))) int msl_run(void (*kernel)(void**), const Request* request,
                                                              Result* result) {
  Machine m;
  machine = &m;
  memset(result, 0, sizeof *result);
  m.kernel = kernel;
  m.buffers = request->buffers;
  m.result = result;
  m.order = (Order)request->order;
  m.random.seed(request->seed);
  m.tsan_fiber = __tsan_get_current_fiber();
  uint64_t groups = 1;
  result->threads = 1;
  for (int k = 0; k < 3; k++) {
    launch.grid[k] = request->grid[k];
    launch.threadgroup[k] = std::min(request->threadgroup[k], request->grid[k]);
    launch.groups[k] = (launch.grid[k] + launch.threadgroup[k] - 1) / launch.threadgroup[k];
    groups *= launch.groups[k];
    result->threads *= launch.grid[k];
  }
  result->threadgroups = groups;
  uint32_t size = launch.threadgroup[0] * launch.threadgroup[1] * launch.threadgroup[2];
  if (size > THREAD_LIMIT) {
    result->faults = 1;
    snprintf(result->log, sizeof result->log, "%u threads in a threadgroup: more than %u\n", size, THREAD_LIMIT);
    return 1;
  }
  count_begin(*request);
  for (uint64_t i = 0; i < groups && result->faults < FAULTS_ENOUGH; i++) {
    uint64_t j = m.order == REVERSE ? groups - 1 - i : i;
    uint32_t group[3] = {(uint32_t)(j % launch.groups[0]), (uint32_t)(j / launch.groups[0] % launch.groups[1]),
                         (uint32_t)(j / ((uint64_t)launch.groups[0] * launch.groups[1]))};
    count_group(i);
    run_group(group);
  }
  __tsan_acquire(&m.end_fence);
  if (result->threadgroup_bytes > THREADGROUP_LIMIT)
    fault(std::to_string(result->threadgroup_bytes) + " bytes of threadgroup memory: more than " +
          std::to_string(THREADGROUP_LIMIT));
  for (auto& set : m.stacks)
    for (void* stack : set) munmap((char*)stack - GUARD, STACK + GUARD);
  snprintf(result->log, sizeof result->log, "%s", m.log.c_str());
  machine = nullptr;
  return result->faults != 0;
}

// Barriers and simdgroup operations. Every one is a place where a thread yields to the scheduler;
// the 32 lanes of a simdgroup are released from it together, each seeing what the others offered.
#pragma once
#include "../../runtime/runtime.h"

// Under a sanitizer, the exchange between lanes is the machine's doing and not the kernel's: it is not instrumented.
#ifdef MSL_INSTRUMENTED
#define MSL_MACHINE __attribute__((no_sanitize("thread", "address", "undefined"), noinline))
#else
#define MSL_MACHINE inline
#endif
// The line of the caller names the operation: lanes that meet at different lines have diverged.
#define MSL_LINE int line_ = __builtin_LINE()

namespace msl {
template <class T>
struct Offers { // what the lanes offered, and who took part
  const unsigned char (*slots)[SLOT_BYTES];
  uint32_t mask;
  MSL_MACHINE T at(int lane) const {
    T r;
    __builtin_memcpy((void*)&r, slots[lane & 31], sizeof(T));
    return r;
  }
  bool has(int lane) const { return mask >> (lane & 31) & 1; }
};

template <class T>
MSL_MACHINE Offers<T> offer(const T& value, int line, Op op) {
  static_assert(sizeof(T) <= SLOT_BYTES, "the operand of a simdgroup operation is too large");
  Lane* me = current;
  Simdgroup* group = me->simdgroup;
  uint32_t parity = group->parity;
  me->parity = parity;
  __builtin_memcpy(group->slot[parity][me->lane], (const void*)&value, sizeof(T));
  msl_simd_wait(line, op);
  parity = me->parity;
  return {group->slot[parity], group->mask[parity]};
}

// A pairwise tree, in the order of an ascending xor butterfly; absent lanes count as the identity.
template <class T, class F>
MSL_MACHINE T tree(const Offers<T>& offers, F f, T identity, int base, int n) {
  T a[32];
  for (int i = 0; i < n; i++) a[i] = offers.has(base + i) ? offers.at(base + i) : identity;
  for (int w = 1; w < n; w *= 2)
    for (int i = 0; i < n; i += 2 * w) a[i] = f(a[i], a[i + w]);
  return a[0];
}

template <class T, class F>
MSL_MACHINE T reduce(const T& value, int line, Op op, F f, T identity) {
  Offers<T> offers = offer(value, line, op);
  Simdgroup* group = current->simdgroup;
  uint32_t parity = current->parity;
  T r;
  if (group->have_result[parity]) { // computed once by the first lane that comes back
    __builtin_memcpy((void*)&r, group->result[parity], sizeof(T));
  } else {
    r = tree<T>(offers, f, identity, 0, 32);
    __builtin_memcpy(group->result[parity], (const void*)&r, sizeof(T));
    group->have_result[parity] = 1;
  }
  return r;
}

template <class T>
MSL_MACHINE T pick(const T& value, int source, int line) {
  Offers<T> offers = offer(value, line, SHUFFLE);
  if (source >= 0 && source < 32 && offers.has(source)) return offers.at(source);
  // Undefined in Metal: hand back a pattern that shows, but let kernels that discard the value go on.
  T r;
  __builtin_memset((void*)&r, 0xff, sizeof r);
  return r;
}

template <class T>
struct element { using type = T; };
template <class T, int N>
struct element<metal::vec<T, N>> { using type = T; };
template <class T>
constexpr T top() {
  using L = std::numeric_limits<typename element<T>::type>;
  if constexpr (L::is_integer) return T(L::max());
  else return T(L::infinity());
}
template <class T>
constexpr T bottom() {
  using L = std::numeric_limits<typename element<T>::type>;
  if constexpr (L::is_integer) return T(L::lowest());
  else return T(-L::infinity());
}
} // namespace msl

namespace metal {
enum class mem_flags : uint {
  mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4,
  mem_threadgroup_imageblock = 8, mem_object_data = 16
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags((uint)a | (uint)b); }
inline void threadgroup_barrier(mem_flags, MSL_LINE) { msl::msl_barrier(line_, msl::THREADGROUP); }
inline void simdgroup_barrier(mem_flags, MSL_LINE) { msl::msl_barrier(line_, msl::SIMDGROUP); }

#define MSL_REDUCTION(name, OP, expression, identity)                                                   \
  template <class T>                                                                                    \
  inline T simd_##name(T v, MSL_LINE) {                                                                 \
    return msl::reduce<T>(v, line_, msl::OP, [](T a, T b) { return T(expression); }, T(identity));      \
  }                                                                                                     \
  template <class T>                                                                                    \
  inline T quad_##name(T v, MSL_LINE) {                                                                 \
    auto offers = msl::offer(v, line_, msl::OP);                                                        \
    auto f = [](T a, T b) { return T(expression); };                                                    \
    return msl::tree<T>(offers, f, T(identity), msl::current->lane & ~3u, 4);                           \
  }
MSL_REDUCTION(sum, SUM, a + b, 0)
MSL_REDUCTION(product, PRODUCT, a * b, 1)
MSL_REDUCTION(and, AND, a & b, ~T(0))
MSL_REDUCTION(or, OR, a | b, 0)
MSL_REDUCTION(xor, XOR, a ^ b, 0)
MSL_REDUCTION(min, MIN, metal::min(a, b), msl::top<T>())
MSL_REDUCTION(max, MAX, metal::max(a, b), msl::bottom<T>())

template <class T>
inline T simd_shuffle(T v, ushort lane, MSL_LINE) { return msl::pick(v, lane, line_); }
template <class T>
inline T simd_shuffle_xor(T v, ushort mask, MSL_LINE) { return msl::pick(v, msl::current->lane ^ mask, line_); }
template <class T>
inline T simd_shuffle_up(T v, ushort delta, MSL_LINE) { // lanes below delta keep their own value
  int lane = (int)msl::current->lane;
  return msl::pick(v, lane < delta ? lane : lane - delta, line_);
}
template <class T>
inline T simd_shuffle_down(T v, ushort delta, MSL_LINE) {
  int lane = (int)msl::current->lane;
  return msl::pick(v, lane + delta > 31 ? lane : lane + delta, line_);
}
template <class T>
inline T simd_shuffle_rotate_up(T v, ushort delta, MSL_LINE) {
  return msl::pick(v, (msl::current->lane - delta) & 31, line_);
}
template <class T>
inline T simd_shuffle_rotate_down(T v, ushort delta, MSL_LINE) {
  return msl::pick(v, (msl::current->lane + delta) & 31, line_);
}
template <class T>
inline T simd_shuffle_and_fill_up(T v, T fill, ushort delta, MSL_LINE) {
  int source = (int)msl::current->lane - delta;
  auto values = msl::offer(v, line_, msl::SHUFFLE);
  auto fills = msl::offer(fill, line_, msl::SHUFFLE);
  return source < 0 ? fills.at(source + 32) : values.at(source);
}
template <class T>
inline T simd_shuffle_and_fill_down(T v, T fill, ushort delta, MSL_LINE) {
  int source = (int)msl::current->lane + delta;
  auto values = msl::offer(v, line_, msl::SHUFFLE);
  auto fills = msl::offer(fill, line_, msl::SHUFFLE);
  return source > 31 ? fills.at(source - 32) : values.at(source);
}
template <class T>
inline T simd_broadcast(T v, ushort lane, MSL_LINE) { return msl::pick(v, lane, line_); }
template <class T>
inline T simd_broadcast_first(T v, MSL_LINE) {
  auto offers = msl::offer(v, line_, msl::BROADCAST);
  return offers.at(__builtin_ctz(offers.mask));
}
template <class T>
inline T quad_shuffle(T v, ushort lane, MSL_LINE) {
  return msl::pick(v, (msl::current->lane & ~3u) + (lane & 3), line_);
}
template <class T>
inline T quad_shuffle_xor(T v, ushort mask, MSL_LINE) {
  return msl::pick(v, msl::current->lane ^ (mask & 3), line_);
}
template <class T>
inline T quad_broadcast(T v, ushort lane, MSL_LINE) {
  return msl::pick(v, (msl::current->lane & ~3u) + (lane & 3), line_);
}

#define MSL_PREFIX(name, expression, identity, bound)                        \
  template <class T>                                                         \
  inline T simd_prefix_##name(T v, MSL_LINE) {                               \
    auto offers = msl::offer(v, line_, msl::PREFIX);                         \
    T a = T(identity);                                                       \
    for (int i = 0; i bound (int)msl::current->lane; i++) {                  \
      T b = offers.at(i);                                                    \
      if (offers.has(i)) a = T(expression);                                  \
    }                                                                        \
    return a;                                                                \
  }
MSL_PREFIX(inclusive_sum, a + b, 0, <=)
MSL_PREFIX(exclusive_sum, a + b, 0, <)
MSL_PREFIX(inclusive_product, a * b, 1, <=)
MSL_PREFIX(exclusive_product, a * b, 1, <)

struct simd_vote {
  using vote_t = ulong;
  ulong votes, active;
  explicit operator vote_t() const { return votes; }
  bool all() const { return votes == active; }
  bool any() const { return votes != 0; }
};
inline simd_vote simd_ballot(bool b, MSL_LINE) {
  auto offers = msl::offer((uint)b, line_, msl::BALLOT);
  ulong votes = 0;
  for (int i = 0; i < 32; i++)
    if (offers.has(i) && offers.at(i)) votes |= 1ul << i;
  return {votes, offers.mask};
}
inline bool simd_all(bool b, MSL_LINE) { return simd_ballot(b, line_).all(); }
inline bool simd_any(bool b, MSL_LINE) { return simd_ballot(b, line_).any(); }
inline bool simd_is_first(MSL_LINE) {
  auto offers = msl::offer(0u, line_, msl::BALLOT);
  return (uint)__builtin_ctz(offers.mask) == msl::current->lane;
}
} // namespace metal

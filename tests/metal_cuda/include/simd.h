// Barriers, simd operations and simdgroup matrices. All 32 lanes take part in each: what the kernels that run here keep
// to, as the CPU machine has checked.
#pragma once
namespace msl {
inline uint lane() {
  uint l;
  asm("mov.u32 %0, %%laneid;" : "=r"(l));
  return l;
}
template <class T>
inline T from(T value, uint source) { // every value travels as 32-bit words
  constexpr int N = (sizeof(T) + 3) / 4;
  union Words {
    uint words[N];
    T value;
    Words() {}
  } w;
  w.value = value;
  for (int i = 0; i < N; i++) w.words[i] = __shfl_sync(~0u, w.words[i], source & 31);
  return w.value;
}
} // namespace msl

namespace metal {
enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
inline void simdgroup_barrier(mem_flags) { __syncwarp(); }

#define MSL_REDUCTION(name, expression)                    \
  template <class T>                                       \
  inline T simd_##name(T v) {                              \
    for (uint m = 1; m < 32; m *= 2) {                     \
      T a = v, b = msl::from(v, msl::lane() ^ m);          \
      v = T(expression);                                   \
    }                                                      \
    return v;                                              \
  }
MSL_REDUCTION(sum, a + b)
MSL_REDUCTION(min, metal::min(a, b))
MSL_REDUCTION(max, metal::max(a, b))
template <class T>
inline T simd_shuffle(T v, ushort source) { return msl::from(v, source); }
template <class T>
inline T simd_shuffle_xor(T v, ushort mask) { return msl::from(v, msl::lane() ^ mask); }
template <class T>
inline T simd_broadcast(T v, ushort source) { return msl::from(v, source); }
template <class T>
inline T simd_shuffle_up(T v, ushort delta) { // lanes below delta keep their own value
  return msl::from(v, msl::lane() < delta ? msl::lane() : msl::lane() - delta);
}
template <class T>
inline T simd_shuffle_down(T v, ushort delta) {
  return msl::from(v, msl::lane() + delta > 31 ? msl::lane() : msl::lane() + delta);
}
template <class T>
inline T simd_shuffle_and_fill_up(T v, T fill, ushort delta) {
  const T value = msl::from(v, msl::lane() - delta), filled = msl::from(fill, msl::lane() - delta);
  return msl::lane() < delta ? filled : value;
}
template <class T>
inline T simd_prefix_inclusive_sum(T v) {
  for (uint d = 1; d < 32; d *= 2) {
    T before = msl::from(v, msl::lane() - d);
    if (msl::lane() >= d) v = T(v + before);
  }
  return v;
}
struct simd_vote {
  using vote_t = ulong;
  uint votes;
  explicit operator vote_t() const { return votes; }
};
inline simd_vote simd_ballot(bool b) { return {__ballot_sync(~0u, b)}; }
inline bool simd_any(bool b) { return __any_sync(~0u, b); }
inline bool simd_all(bool b) { return __all_sync(~0u, b); }

// Lane l holds the elements (row, col) and (row, col + 1), as in metal_cpu's matrix.h.
template <class T, int R = 8, int C = 8>
struct simdgroup_matrix {
  vec<T, 2> elements;
  vec<T, 2>& thread_elements() { return elements; }
  static uint row() { return (msl::lane() / 4 & 4) + msl::lane() / 2 % 4; }
  static uint col() { return (msl::lane() / 4 & 2) * 2 + msl::lane() % 2 * 2; }
  static uint lane(uint row, uint col) { return (row & 4) * 4 + (col & 4) * 2 + (row & 3) * 2 + (col & 2) / 2; }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
template <class T, int C, int R, class U>
inline simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(U value) {
  simdgroup_matrix<T, R, C> m;
  m.elements = vec<T, 2>(T(value));
  return m;
}
template <class T, class P>
inline void simdgroup_load(
    simdgroup_matrix<T>& m, P* p, ulong stride = 8, ulong2 origin = ulong2(0, 0), bool transpose = false) {
  for (uint i = 0; i < 2; i++) {
    const ulong r = m.row(), c = m.col() + i;
    m.elements.d[i] = T(transpose ? p[(origin.x + c) * stride + origin.y + r] : p[(origin.y + r) * stride + origin.x + c]);
  }
}
template <class T, class P>
inline void simdgroup_store(
    const simdgroup_matrix<T>& m, P* p, ulong stride = 8, ulong2 origin = ulong2(0, 0), bool transpose = false) {
  for (uint i = 0; i < 2; i++) {
    const ulong r = m.row(), c = m.col() + i;
    (transpose ? p[(origin.x + c) * stride + origin.y + r] : p[(origin.y + r) * stride + origin.x + c]) = P(m.elements.d[i]);
  }
}
template <class T>
inline void simdgroup_multiply_accumulate(
    simdgroup_matrix<T>& d, const simdgroup_matrix<T>& a, const simdgroup_matrix<T>& b, const simdgroup_matrix<T>& c) {
  vec<T, 2> sum = c.elements;
  const vec<T, 2> left = a.elements, right = b.elements;
  for (uint k = 0; k < 8; k++) {
    const vec<T, 2> l = msl::from(left, d.lane(d.row(), k)), r = msl::from(right, d.lane(k, d.col()));
    sum.d[0] += l.d[k & 1] * r.d[0];
    sum.d[1] += l.d[k & 1] * r.d[1];
  }
  d.elements = sum;
}
template <class T>
inline void simdgroup_multiply(
    simdgroup_matrix<T>& d, const simdgroup_matrix<T>& a, const simdgroup_matrix<T>& b) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<T, 8, 8>(T(0)));
}
} // namespace metal

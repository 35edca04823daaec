// vec<T, N>: element access, the swizzles kernels use, arithmetic per element.
#pragma once
namespace metal {
template <class T, int N>
struct vec;
}
namespace msl {
// two or three components of a vector, living in the vector's union
template <class T, int M, int A, int B, int C = -1>
struct swizzle {
  T d[4];
  operator metal::vec<T, M>() const;
  swizzle& operator=(const metal::vec<T, M>& o);
};
} // namespace msl

namespace metal {
#define MSL_VEC_INDEX                                      \
  constexpr T& operator[](int i) { return d[i]; }          \
  constexpr const T& operator[](int i) const { return d[i]; }

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  union {
    T d[2];
    struct { T x, y; };
    struct { T r, g; };
    struct { T lo, hi; };
  };
  vec() = default;
  constexpr vec(T s) : d{s, s} {}
  constexpr vec(T a, T b) : d{a, b} {}
  template <class U>
  explicit constexpr vec(const vec<U, 2>& o) : d{T(o.d[0]), T(o.d[1])} {}
  MSL_VEC_INDEX
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> { // four elements' size and alignment, as in Metal
  union {
    T d[4];
    struct { T x, y, z; };
    struct { T r, g, b; };
    msl::swizzle<T, 2, 0, 1> xy;
    msl::swizzle<T, 2, 1, 2> yz;
    msl::swizzle<T, 2, 0, 2> xz;
  };
  vec() = default;
  constexpr vec(T s) : d{s, s, s, T(0)} {}
  constexpr vec(T a, T b, T c) : d{a, b, c, T(0)} {}
  constexpr vec(const vec<T, 2>& a, T c) : d{a.d[0], a.d[1], c, T(0)} {}
  template <class U>
  explicit constexpr vec(const vec<U, 3>& o) : d{T(o.d[0]), T(o.d[1]), T(o.d[2]), T(0)} {}
  MSL_VEC_INDEX
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  union {
    T d[4];
    struct { T x, y, z, w; };
    struct { T r, g, b, a; };
    msl::swizzle<T, 2, 0, 1> xy, lo;
    msl::swizzle<T, 2, 2, 3> zw, hi;
    msl::swizzle<T, 2, 0, 2> xz;
    msl::swizzle<T, 2, 1, 3> yw;
    msl::swizzle<T, 3, 0, 1, 2> xyz;
  };
  vec() = default;
  constexpr vec(T s) : d{s, s, s, s} {}
  constexpr vec(T a_, T b_, T c_, T d_) : d{a_, b_, c_, d_} {}
  constexpr vec(const vec<T, 2>& p, const vec<T, 2>& q) : d{p.d[0], p.d[1], q.d[0], q.d[1]} {}
  constexpr vec(const vec<T, 3>& p, T q) : d{p.d[0], p.d[1], p.d[2], q} {}
  template <class U>
  explicit constexpr vec(const vec<U, 4>& o) : d{T(o.d[0]), T(o.d[1]), T(o.d[2]), T(o.d[3])} {}
  MSL_VEC_INDEX
};

#define MSL_VEC_OP(op)                                                                      \
  template <class T, int N>                                                                 \
  constexpr vec<T, N> operator op(const vec<T, N>& a, const vec<T, N>& b) {                 \
    vec<T, N> r(T(0));                                                                      \
    for (int i = 0; i < N; i++) r.d[i] = T(a.d[i] op b.d[i]);                               \
    return r;                                                                               \
  }                                                                                         \
  template <class T, int N>                                                                 \
  constexpr vec<T, N> operator op(const vec<T, N>& a, std::type_identity_t<T> b) {          \
    return a op vec<T, N>(b);                                                               \
  }                                                                                         \
  template <class T, int N>                                                                 \
  constexpr vec<T, N> operator op(std::type_identity_t<T> a, const vec<T, N>& b) {          \
    return vec<T, N>(a) op b;                                                               \
  }                                                                                         \
  template <class T, int N, class U>                                                        \
  constexpr vec<T, N>& operator op##=(vec<T, N>& a, const U& b) {                           \
    return a = a op b;                                                                      \
  }
MSL_VEC_OP(+) MSL_VEC_OP(-) MSL_VEC_OP(*) MSL_VEC_OP(/) MSL_VEC_OP(%)
MSL_VEC_OP(&) MSL_VEC_OP(|) MSL_VEC_OP(^) MSL_VEC_OP(<<) MSL_VEC_OP(>>)

#define MSL_VEC_CMP(op)                                                                     \
  template <class T, int N>                                                                 \
  constexpr vec<bool, N> operator op(const vec<T, N>& a, const vec<T, N>& b) {              \
    vec<bool, N> r(false);                                                                  \
    for (int i = 0; i < N; i++) r.d[i] = a.d[i] op b.d[i];                                  \
    return r;                                                                               \
  }
MSL_VEC_CMP(<) MSL_VEC_CMP(>) MSL_VEC_CMP(<=) MSL_VEC_CMP(>=) MSL_VEC_CMP(==) MSL_VEC_CMP(!=)

template <class T, int N>
constexpr vec<T, N> operator-(const vec<T, N>& a) {
  vec<T, N> r(T(0));
  for (int i = 0; i < N; i++) r.d[i] = T(-a.d[i]);
  return r;
}

template <class T, int N>
struct packed_vec { // packed_float3 and its kin: no padding
  T d[N];
  operator vec<T, N>() const {
    vec<T, N> r(T(0));
    for (int i = 0; i < N; i++) r.d[i] = d[i];
    return r;
  }
};
} // namespace metal

namespace msl {
template <class T, int M, int A, int B, int C>
swizzle<T, M, A, B, C>::operator metal::vec<T, M>() const {
  if constexpr (M == 2) return {d[A], d[B]};
  else return {d[A], d[B], d[C]};
}
template <class T, int M, int A, int B, int C>
swizzle<T, M, A, B, C>& swizzle<T, M, A, B, C>::operator=(const metal::vec<T, M>& o) {
  d[A] = o.d[0];
  d[B] = o.d[1];
  if constexpr (M == 3) d[C] = o.d[2];
  return *this;
}
} // namespace msl

#define MSL_VEC_NAMES(T)                         \
  using T##2 = metal::vec<T, 2>;                 \
  using T##3 = metal::vec<T, 3>;                 \
  using T##4 = metal::vec<T, 4>;                 \
  using packed_##T##2 = metal::packed_vec<T, 2>; \
  using packed_##T##3 = metal::packed_vec<T, 3>; \
  using packed_##T##4 = metal::packed_vec<T, 4>;
#ifdef __CUDACC__ // whose own vectors have these names
namespace msl {
#endif
MSL_VEC_NAMES(bool) MSL_VEC_NAMES(char) MSL_VEC_NAMES(uchar) MSL_VEC_NAMES(short) MSL_VEC_NAMES(ushort)
MSL_VEC_NAMES(int) MSL_VEC_NAMES(uint) MSL_VEC_NAMES(long) MSL_VEC_NAMES(ulong)
MSL_VEC_NAMES(half) MSL_VEC_NAMES(bfloat) MSL_VEC_NAMES(float)
#ifdef __CUDACC__
} // namespace msl
#endif

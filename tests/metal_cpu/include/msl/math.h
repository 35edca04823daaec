// Mathematics: the host's libm in float; half and bfloat go through float and round once.
#pragma once
namespace metal {
#define MSL_UNARY(name, expression)                                                        \
  inline float name(float x) { return expression; }                                        \
  inline half name(half h) { float x = h; return half((float)(expression)); }              \
  inline bfloat name(bfloat h) { float x = h; return bfloat((float)(expression)); }        \
  template <class T, int N>                                                                \
  inline vec<T, N> name(vec<T, N> v) {                                                     \
    for (int i = 0; i < N; i++) v.d[i] = name(v.d[i]);                                     \
    return v;                                                                              \
  }
#define MSL_BINARY(name, expression)                                                       \
  inline float name(float x, float y) { return expression; }                               \
  inline half name(half a, half b) { float x = a, y = b; return half((float)(expression)); } \
  inline bfloat name(bfloat a, bfloat b) { float x = a, y = b; return bfloat((float)(expression)); } \
  template <class T, int N>                                                                \
  inline vec<T, N> name(vec<T, N> v, vec<T, N> u) {                                        \
    for (int i = 0; i < N; i++) v.d[i] = name(v.d[i], u.d[i]);                             \
    return v;                                                                              \
  }
#define MSL_MATH                                                                           \
  MSL_UNARY(exp, std::exp(x)) MSL_UNARY(exp2, std::exp2(x)) MSL_UNARY(exp10, std::pow(10.0f, x)) \
  MSL_UNARY(log, std::log(x)) MSL_UNARY(log2, std::log2(x)) MSL_UNARY(log10, std::log10(x)) \
  MSL_UNARY(sqrt, std::sqrt(x)) MSL_UNARY(rsqrt, 1.0f / std::sqrt(x))                      \
  MSL_UNARY(sin, std::sin(x)) MSL_UNARY(cos, std::cos(x)) MSL_UNARY(tan, std::tan(x))      \
  MSL_UNARY(asin, std::asin(x)) MSL_UNARY(acos, std::acos(x)) MSL_UNARY(atan, std::atan(x)) \
  MSL_UNARY(sinh, std::sinh(x)) MSL_UNARY(cosh, std::cosh(x)) MSL_UNARY(tanh, std::tanh(x)) \
  MSL_UNARY(asinh, std::asinh(x)) MSL_UNARY(acosh, std::acosh(x)) MSL_UNARY(atanh, std::atanh(x)) \
  MSL_UNARY(floor, std::floor(x)) MSL_UNARY(ceil, std::ceil(x)) MSL_UNARY(rint, std::nearbyint(x)) \
  MSL_UNARY(round, std::round(x)) MSL_UNARY(trunc, std::trunc(x)) MSL_UNARY(fabs, std::fabs(x)) \
  MSL_UNARY(fract, x - std::floor(x)) MSL_UNARY(saturate, x < 0 ? 0.0f : x > 1 ? 1.0f : x) \
  MSL_UNARY(sign, x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f)                                     \
  MSL_BINARY(pow, std::pow(x, y)) MSL_BINARY(powr, std::pow(x, y)) MSL_BINARY(fmod, std::fmod(x, y)) \
  MSL_BINARY(atan2, std::atan2(x, y)) MSL_BINARY(fmin, std::fmin(x, y)) MSL_BINARY(fmax, std::fmax(x, y)) \
  MSL_BINARY(divide, x / y) MSL_BINARY(copysign, std::copysign(x, y)) MSL_BINARY(fdim, std::fdim(x, y)) \
  inline float fma(float a, float b, float c) { return std::fma(a, b, c); }                \
  inline half fma(half a, half b, half c) { return half(std::fma((float)a, (float)b, (float)c)); } \
  inline bfloat fma(bfloat a, bfloat b, bfloat c) { return bfloat(std::fma((float)a, (float)b, (float)c)); } \
  template <class T, int N>                                                                \
  inline vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {                            \
    for (int i = 0; i < N; i++) a.d[i] = fma(a.d[i], b.d[i], c.d[i]);                      \
    return a;                                                                              \
  }                                                                                        \
  inline float ldexp(float x, int k) { return std::ldexp(x, k); }
MSL_MATH
namespace precise { MSL_MATH }
namespace fast { MSL_MATH }

#define MSL_ORDER_INTEGER(T)                                       \
  constexpr T min(T a, T b) { return b < a ? b : a; }              \
  constexpr T max(T a, T b) { return a < b ? b : a; }              \
  constexpr T clamp(T x, T lo, T hi) { return min(max(x, lo), hi); }
MSL_ORDER_INTEGER(char) MSL_ORDER_INTEGER(signed char) MSL_ORDER_INTEGER(uchar)
MSL_ORDER_INTEGER(short) MSL_ORDER_INTEGER(ushort) MSL_ORDER_INTEGER(int) MSL_ORDER_INTEGER(uint)
MSL_ORDER_INTEGER(long) MSL_ORDER_INTEGER(ulong)
#define MSL_ORDER_FLOAT(T)                                              \
  inline T min(T a, T b) { return T(std::fmin((float)a, (float)b)); }   \
  inline T max(T a, T b) { return T(std::fmax((float)a, (float)b)); }   \
  inline T clamp(T x, T lo, T hi) { return min(max(x, lo), hi); }       \
  inline T abs(T a) { return T(std::fabs((float)a)); }                  \
  inline bool isnan(T a) { return std::isnan((float)a); }               \
  inline bool isinf(T a) { return std::isinf((float)a); }               \
  inline bool isfinite(T a) { return std::isfinite((float)a); }         \
  inline bool signbit(T a) { return std::signbit((float)a); }           \
  inline T mix(T a, T b, T t) { return T(a + (b - a) * t); }
MSL_ORDER_FLOAT(half) MSL_ORDER_FLOAT(bfloat) MSL_ORDER_FLOAT(float)
namespace fast { using metal::abs; using metal::clamp; using metal::max; using metal::min; }
namespace precise { using metal::abs; using metal::clamp; using metal::max; using metal::min; }

inline int abs(int a) { return a < 0 ? -a : a; }
inline long abs(long a) { return a < 0 ? -a : a; }
inline short abs(short a) { return a < 0 ? -a : a; }
inline int popcount(int x) { return __builtin_popcount((unsigned)x); }
inline uint popcount(uint x) { return __builtin_popcount(x); }
inline ulong popcount(ulong x) { return __builtin_popcountl(x); }
inline uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
inline uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
inline uint mulhi(uint a, uint b) { return (uint)((ulong)a * b >> 32); }
inline uint reverse_bits(uint x) {
  uint r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
  return r;
}
template <class T>
inline T extract_bits(T x, uint offset, uint count) {
  return count ? T(x >> offset & ~0ull >> (64 - count)) : T(0);
}
template <class T>
inline T select(T a, T b, bool c) { return c ? b : a; }
template <class T, int N>
inline vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<bool, N> c) {
  for (int i = 0; i < N; i++) a.d[i] = c.d[i] ? b.d[i] : a.d[i];
  return a;
}
template <class T, int N>
inline T dot(vec<T, N> a, vec<T, N> b) {
  T s = T(a.d[0] * b.d[0]);
  for (int i = 1; i < N; i++) s = T(s + a.d[i] * b.d[i]);
  return s;
}
template <class T, int N>
inline float length(vec<T, N> a) { return std::sqrt((float)dot(a, a)); }
template <class T, int N>
inline vec<T, N> min(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; i++) a.d[i] = min(a.d[i], b.d[i]);
  return a;
}
template <class T, int N>
inline vec<T, N> max(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; i++) a.d[i] = max(a.d[i], b.d[i]);
  return a;
}
template <class T, int N>
inline vec<T, N> abs(vec<T, N> a) {
  for (int i = 0; i < N; i++) a.d[i] = abs(a.d[i]);
  return a;
}
template <int N>
inline bool any(vec<bool, N> a) {
  for (int i = 0; i < N; i++) if (a.d[i]) return true;
  return false;
}
template <int N>
inline bool all(vec<bool, N> a) {
  for (int i = 0; i < N; i++) if (!a.d[i]) return false;
  return true;
}
} // namespace metal

// Scalar types. half and bfloat round after every operation, as the GPU's types do.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

template <class To, class From>
constexpr To as_type(From x) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs types of equal size");
  return __builtin_bit_cast(To, x);
}

// half is the compiler's own 16-bit float: implicit conversions both ways, as in Metal. (NVRTC brings another.)
#ifndef __CUDACC__
typedef _Float16 half;
#endif

// bfloat turns into float by itself but is made from other types only explicitly, as in Metal.
struct bfloat {
  uint16_t bits;
  bfloat() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  constexpr explicit bfloat(T x) : bits(round((float)x)) {}
  constexpr explicit bfloat(half h) : bits(round((float)h)) {}
  constexpr operator float() const { return as_type<float>((uint32_t)bits << 16); }

 private:
  static constexpr uint16_t round(float f) { // to nearest, ties to even; NaN stays NaN
    uint32_t u = as_type<uint32_t>(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
  }
};
static_assert(sizeof(half) == 2 && sizeof(bfloat) == 2);

namespace msl {
// bfloat with an integer stays bfloat, with float becomes float
template <class T>
using with_bfloat = std::conditional_t<std::is_integral_v<T>, bfloat, float>;
template <class T>
using if_arithmetic = std::enable_if_t<std::is_arithmetic_v<T>>;
} // namespace msl

#define MSL_BFLOAT_OP(op)                                                                           \
  constexpr bfloat operator op(bfloat a, bfloat b) { return bfloat((float)a op(float) b); }         \
  template <class T, class = msl::if_arithmetic<T>>                                                 \
  constexpr msl::with_bfloat<T> operator op(bfloat a, T b) {                                        \
    return msl::with_bfloat<T>((float)a op(float) b);                                               \
  }                                                                                                 \
  template <class T, class = msl::if_arithmetic<T>>                                                 \
  constexpr msl::with_bfloat<T> operator op(T a, bfloat b) {                                        \
    return msl::with_bfloat<T>((float)a op(float) b);                                               \
  }                                                                                                 \
  template <class T>                                                                                \
  inline bfloat& operator op##=(bfloat& a, const T& b) {                                            \
    return a = bfloat(a op b);                                                                      \
  }
#define MSL_BFLOAT_CMP(op)                                                                          \
  constexpr bool operator op(bfloat a, bfloat b) { return (float)a op(float) b; }                   \
  template <class T, class = msl::if_arithmetic<T>>                                                 \
  constexpr bool operator op(bfloat a, T b) { return (float)a op(float) b; }                        \
  template <class T, class = msl::if_arithmetic<T>>                                                 \
  constexpr bool operator op(T a, bfloat b) { return (float)a op(float) b; }
MSL_BFLOAT_OP(+) MSL_BFLOAT_OP(-) MSL_BFLOAT_OP(*) MSL_BFLOAT_OP(/)
MSL_BFLOAT_CMP(<) MSL_BFLOAT_CMP(>) MSL_BFLOAT_CMP(<=) MSL_BFLOAT_CMP(>=) MSL_BFLOAT_CMP(==) MSL_BFLOAT_CMP(!=)
constexpr bfloat operator-(bfloat a) { return bfloat(-(float)a); }
constexpr bfloat operator+(bfloat a) { return a; }

#define MSL_LIMITS(T, max_, low_, min_, eps_, inf_, nan_)                           \
  template <>                                                                       \
  struct std::numeric_limits<T> {                                                   \
    static constexpr bool is_specialized = true, is_integer = false, is_signed = true; \
    static constexpr T of(uint16_t b) { return __builtin_bit_cast(T, b); }          \
    static constexpr T max() { return of(max_); }                                   \
    static constexpr T lowest() { return of(low_); }                                \
    static constexpr T min() { return of(min_); }                                   \
    static constexpr T epsilon() { return of(eps_); }                               \
    static constexpr T infinity() { return of(inf_); }                              \
    static constexpr T quiet_NaN() { return of(nan_); }                             \
  };
MSL_LIMITS(half, 0x7bff, 0xfbff, 0x0400, 0x1400, 0x7c00, 0x7e00)
MSL_LIMITS(bfloat, 0x7f7f, 0xff7f, 0x0080, 0x3c00, 0x7f80, 0x7fc0)

#include "vec.h"

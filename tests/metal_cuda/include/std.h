// NVRTC comes without a standard library: the little of it that metal_cpu's headers name.
#pragma once
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
typedef decltype(sizeof(0)) size_t;

namespace std {
using ::size_t;
template <class T, T V>
struct integral_constant { static constexpr T value = V; constexpr operator T() const { return V; } };
template <bool B>
using bool_constant = integral_constant<bool, B>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;
template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> { using type = T; };
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F>
struct conditional { using type = T; };
template <class T, class F>
struct conditional<false, T, F> { using type = F; };
template <bool B, class T, class F>
using conditional_t = typename conditional<B, T, F>::type;
template <class T>
struct type_identity { using type = T; };
template <class T>
using type_identity_t = typename type_identity<T>::type;
template <class...>
using void_t = void;
template <class T>
T&& declval();

template <class T, class U>
struct is_same : false_type {};
template <class T>
struct is_same<T, T> : true_type {};
template <class T, class U>
constexpr bool is_same_v = is_same<T, U>::value;
template <class T>
struct remove_reference { using type = T; };
template <class T>
struct remove_reference<T&> { using type = T; };
template <class T>
using remove_reference_t = typename remove_reference<T>::type;
template <class T>
constexpr bool is_reference_v = !is_same_v<T, remove_reference_t<T>>;
template <class T>
struct remove_cv { using type = T; };
template <class T>
struct remove_cv<const T> { using type = T; };
template <class T>
struct remove_cv<volatile T> { using type = T; };
template <class T>
using remove_cv_t = typename remove_cv<T>::type;
template <class T>
constexpr bool is_const_v = is_same_v<T, const T>;
template <class T>
constexpr bool is_pointer_v = false;
template <class T>
constexpr bool is_pointer_v<T*> = true;
template <class T, class... U>
constexpr bool is_any_of = (is_same_v<remove_cv_t<T>, U> || ...);
template <class T>
constexpr bool is_signed_integral_v = is_any_of<T, signed char, short, int, long, long long>;
template <class T>
constexpr bool is_integral_v = is_signed_integral_v<T> ||
    is_any_of<T, bool, char, unsigned char, unsigned short, unsigned, unsigned long, unsigned long long>;
template <class T>
struct is_integral : bool_constant<is_integral_v<T>> {};
template <class T>
constexpr bool is_floating_point_v = is_any_of<T, float, double>;
template <class T>
constexpr bool is_arithmetic_v = is_integral_v<T> || is_floating_point_v<T>;
template <class T>
constexpr bool is_signed_v = is_arithmetic_v<T> && T(-1) < T(0);
template <class T>
constexpr bool is_unsigned_v = is_arithmetic_v<T> && !is_signed_v<T>;
template <class T>
struct make_unsigned { using type = T; };
template <class T>
struct make_signed { using type = T; };
#define MSL_SIGNS(S)                                           \
  template <>                                                  \
  struct make_unsigned<S> { using type = unsigned S; };        \
  template <>                                                  \
  struct make_signed<unsigned S> { using type = S; };
MSL_SIGNS(char) MSL_SIGNS(short) MSL_SIGNS(int) MSL_SIGNS(long)
template <class T>
using make_unsigned_t = typename make_unsigned<T>::type;
template <class T>
using make_signed_t = typename make_signed<T>::type;
template <class T, class U>
struct common_type { using type = decltype(true ? declval<T>() : declval<U>()); };
template <class T, class U>
using common_type_t = remove_reference_t<typename common_type<T, U>::type>;
template <class From, class To>
constexpr bool is_convertible_v = requires(void (*f)(To)) { f(declval<From>()); };
template <size_t... I>
struct index_sequence {};
template <size_t N, size_t... I>
struct count_to : count_to<N - 1, N - 1, I...> {};
template <size_t... I>
struct count_to<0, I...> { using type = index_sequence<I...>; };
template <class... A>
using index_sequence_for = typename count_to<sizeof...(A)>::type;

template <class T>
struct numeric_limits {
  static constexpr bool is_specialized = true, is_integer = true, is_signed = is_signed_v<T>;
  static constexpr T lowest() { return is_signed ? T(T(1) << (8 * sizeof(T) - 1)) : T(0); }
  static constexpr T max() { return T(~lowest()); }
  static constexpr T min() { return lowest(); }
  static constexpr T infinity() { return T(0); }
};
template <>
struct numeric_limits<bool> {
  static constexpr bool is_specialized = true, is_integer = true, is_signed = false;
  static constexpr bool lowest() { return false; }
  static constexpr bool max() { return true; }
  static constexpr bool min() { return false; }
  static constexpr bool infinity() { return false; }
};
template <>
struct numeric_limits<float> {
  static constexpr bool is_specialized = true, is_integer = false, is_signed = true;
  static constexpr float max() { return 3.402823466e+38f; }
  static constexpr float lowest() { return -max(); }
  static constexpr float min() { return 1.175494351e-38f; }
  static constexpr float epsilon() { return 1.192092896e-07f; }
  static constexpr float infinity() { return __builtin_bit_cast(float, 0x7f800000u); }
  static constexpr float quiet_NaN() { return __builtin_bit_cast(float, 0x7fc00000u); }
};

// CUDA's float functions; rename.h has given the names to Metal
#define MSL_STD1(name, cuda) inline float name(float x) { return ::cuda(x); }
#define MSL_STD2(name, cuda) inline float name(float x, float y) { return ::cuda(x, y); }
MSL_STD1(exp, expf) MSL_STD1(exp2, exp2f) MSL_STD1(log, logf) MSL_STD1(log2, log2f) MSL_STD1(log10, log10f)
MSL_STD1(sqrt, sqrtf) MSL_STD1(sin, sinf) MSL_STD1(cos, cosf) MSL_STD1(tan, tanf) MSL_STD1(asin, asinf)
MSL_STD1(acos, acosf) MSL_STD1(atan, atanf) MSL_STD1(sinh, sinhf) MSL_STD1(cosh, coshf) MSL_STD1(tanh, tanhf)
MSL_STD1(asinh, asinhf) MSL_STD1(acosh, acoshf) MSL_STD1(atanh, atanhf) MSL_STD1(floor, floorf)
MSL_STD1(ceil, ceilf) MSL_STD1(nearbyint, nearbyintf) MSL_STD1(round, roundf) MSL_STD1(trunc, truncf)
MSL_STD1(fabs, fabsf) MSL_STD2(pow, powf) MSL_STD2(fmod, fmodf) MSL_STD2(atan2, atan2f) MSL_STD2(fmin, fminf)
MSL_STD2(fmax, fmaxf) MSL_STD2(copysign, copysignf) MSL_STD2(fdim, fdimf)
inline float fma(float x, float y, float z) { return ::fmaf(x, y, z); }
inline float ldexp(float x, int k) { return ::ldexpf(x, k); }
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return ::fabsf(x) == numeric_limits<float>::infinity(); }
inline bool isfinite(float x) { return ::fabsf(x) < numeric_limits<float>::infinity(); }
inline bool signbit(float x) { return __float_as_int(x) < 0; }
} // namespace std
#define __builtin_popcount __popc
#define __builtin_popcountl __popcll
#define __builtin_clz __clz
#define __builtin_ctz(x) (__ffs(x) - 1)
#ifndef INFINITY
#define INFINITY std::numeric_limits<float>::infinity()
#define NAN std::numeric_limits<float>::quiet_NaN()
#endif

// The type traits and integer names that live in namespace metal.
#pragma once
namespace metal {
using std::bool_constant;
using std::common_type;
using std::common_type_t;
using std::conditional;
using std::conditional_t;
using std::declval;
using std::enable_if;
using std::enable_if_t;
using std::false_type;
using std::integral_constant;
using std::is_const_v;
using std::is_convertible_v;
using std::is_integral;
using std::is_integral_v;
using std::is_pointer_v;
using std::is_same;
using std::is_same_v;
using std::is_signed_v;
using std::is_unsigned_v;
using std::make_signed_t;
using std::make_unsigned;
using std::make_unsigned_t;
using std::numeric_limits;
using std::remove_cv_t;
using std::remove_reference_t;
using std::true_type;
using std::void_t;
template <class T>
using remove_addrspace_t = std::remove_cv_t<T>;
template <class T>
constexpr bool is_floating_point_v =
    std::is_floating_point_v<T> || std::is_same_v<T, half> || std::is_same_v<T, bfloat>;
template <class T>
struct is_floating_point : bool_constant<is_floating_point_v<T>> {};
template <class T>
constexpr bool is_arithmetic_v = std::is_arithmetic_v<T> || is_floating_point_v<T>;
using ::int16_t;
using ::int32_t;
using ::int64_t;
using ::int8_t;
using ::size_t;
using ::uint16_t;
using ::uint32_t;
using ::uint64_t;
using ::uint8_t;
} // namespace metal

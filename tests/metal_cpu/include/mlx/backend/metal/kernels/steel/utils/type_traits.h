#pragma once
// Stands in for MLX's header of this name, whose specialisations by address space are all one to a CPU.
#include <metal_stdlib>
namespace metal {
template <typename T>
struct is_empty : metal::bool_constant<__is_empty(T)> {};
template <typename T>
constexpr bool is_empty_v = __is_empty(T);
template <typename T>
struct is_static : is_empty<remove_cv_t<T>> {};
template <typename T>
struct pointer_element {};
template <typename T>
struct pointer_element<T*> { using type = remove_cv_t<T>; };
template <typename T>
using pointer_element_t = typename pointer_element<remove_cv_t<T>>::type;
} // namespace metal

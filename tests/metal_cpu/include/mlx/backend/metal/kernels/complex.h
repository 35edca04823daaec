#pragma once
// Stands in for MLX's header of this name, which overloads constructors by address space.
// No kernel run here computes with complex numbers; MLX's utilities only name the type.
#include <metal_stdlib>
#include "mlx/backend/metal/kernels/bf16.h"
using namespace metal;
template <typename T>
struct complex_t {
  using value_type = T;
  T real, imag;
  constexpr complex_t(T r, T i = T(0)) : real(r), imag(i) {}
  constexpr complex_t() : real(0), imag(0) {}
};
using complex64_t = complex_t<float>;

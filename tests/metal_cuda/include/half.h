// A 16-bit float for NVRTC, which has no _Float16: made from every number and turned into float, as Metal's half.
#pragma once
struct half {
  unsigned short bits;
  half() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
  half(T x) {
    asm("{ .reg .f16 h; cvt.rn.f16.f32 h, %1; mov.b16 %0, h; }" : "=h"(bits) : "f"((float)x));
  }
  operator float() const {
    float x;
    asm("{ .reg .f16 h; mov.b16 h, %1; cvt.f32.f16 %0, h; }" : "=f"(x) : "h"(bits));
    return x;
  }
};
#define MSL_HALF_OP(op) \
  inline half operator op(half a, half b) { return half((float)a op(float) b); }
MSL_HALF_OP(+) MSL_HALF_OP(-) MSL_HALF_OP(*) MSL_HALF_OP(/)
constexpr half operator-(half a) { return __builtin_bit_cast(half, (unsigned short)(a.bits ^ 0x8000)); }

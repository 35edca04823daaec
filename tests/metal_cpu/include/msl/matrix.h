// simdgroup_matrix, 8x8. Lane l holds the elements (row, col) and (row, col + 1) of the tile.
// Apple does not document the layout; MLX's own kernels, which read thread_elements(), rely on this one.
#pragma once
namespace metal {
template <class T, int R = 8, int C = 8>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "Metal has 8x8 only");
  vec<T, 2> elements;
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T diagonal)
      : elements(row() == col() ? diagonal : T(0), row() == col() + 1 ? diagonal : T(0)) {}
  vec<T, 2>& thread_elements() { return elements; }
  const vec<T, 2>& thread_elements() const { return elements; }

  static int row() { uint lane = msl::current->lane; return (lane / 4 & 4) + lane / 2 % 4; }
  static int col() { uint lane = msl::current->lane; return (lane / 4 & 2) * 2 + lane % 2 * 2; }
  static int lane(int row, int col) { // the inverse
    return (row & 4) * 4 + (col & 4) * 2 + (row & 3) * 2 + (col & 2) / 2;
  }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int C = 8, int R = 8, class U>
inline simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(U value) {
  simdgroup_matrix<T, R, C> m;
  m.elements = vec<T, 2>(T(value));
  return m;
}

template <class T, class P>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, P* p, ulong stride = 8, ulong2 origin = ulong2(0, 0),
                           bool transpose = false) {
  ulong r = m.row(), c = m.col();
  for (ulong i = 0; i < 2; i++)
    m.elements.d[i] = T(transpose ? p[(origin.x + c + i) * stride + origin.y + r]
                                  : p[(origin.y + r) * stride + origin.x + c + i]);
}
template <class T, class P>
inline void simdgroup_store(const simdgroup_matrix<T, 8, 8>& m, P* p, ulong stride = 8,
                            ulong2 origin = ulong2(0, 0), bool transpose = false) {
  ulong r = m.row(), c = m.col();
  for (ulong i = 0; i < 2; i++)
    (transpose ? p[(origin.x + c + i) * stride + origin.y + r] : p[(origin.y + r) * stride + origin.x + c + i]) =
        P(m.elements.d[i]);
}
} // namespace metal

namespace msl {
// d = a b + c in float, the products of a row summed in ascending order
template <class D, class A, class B>
MSL_MACHINE void multiply(metal::simdgroup_matrix<D, 8, 8>& d, const metal::simdgroup_matrix<A, 8, 8>& a,
                          const metal::simdgroup_matrix<B, 8, 8>& b, float c0, float c1, int line) {
  struct Four { float a[2], b[2]; };
  Four mine = {{(float)a.elements.d[0], (float)a.elements.d[1]}, {(float)b.elements.d[0], (float)b.elements.d[1]}};
  Offers<Four> offers = offer(mine, line, MATRIX);
  int row = d.row(), col = d.col();
  for (int k = 0; k < 8; k++) {
    float left = offers.at(d.lane(row, k)).a[k & 1];
    Four right = offers.at(d.lane(k, col));
    c0 = std::fma(left, right.b[0], c0);
    c1 = std::fma(left, right.b[1], c1);
  }
  d.elements.d[0] = D(c0);
  d.elements.d[1] = D(c1);
}
} // namespace msl

namespace metal {
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                          const simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<C, 8, 8>& c,
                                          MSL_LINE) {
  msl::multiply(d, a, b, (float)c.elements.d[0], (float)c.elements.d[1], line_);
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b, MSL_LINE) {
  msl::multiply(d, a, b, 0.0f, 0.0f, line_);
}
} // namespace metal

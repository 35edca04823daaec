// The routed experts of a few tokens (decode), from 4-bit weights in a bank of slots, in two dispatches:
//
//   expert_gate_up   h[m,k] = silu(gate x[m]) * (up x[m])        gate and up of slot slots[m,k], in one pass
//   expert_down      y[m]   = sum over k, in order, of weights[m,k] * (down h[m,k])
//
// The time goes into reading weights, so each is read once: the threadgroups of the first (token, k) pair that names
// a slot serve up to R pairs that name it, those of the later pairs leave at once. A row's result does not depend on
// the other rows: every sum runs in the same order whatever M, R and the other slots are.
//
// A simdgroup takes ROWS output rows; its lanes split the inputs, 16 at a time (one 8-byte load of a weight row).
// Products and sums are float32. H, I are multiples of the group size.

constant constexpr int MXFP4 = 0, NVFP4 = 1, AFFINE = 2;
constant constexpr uint SIMD = 32;
constant constexpr uint LOAD = 16; // weights per lane and load
constant constexpr uint SIMDGROUPS = 2; // per threadgroup

template <int MODE>
constexpr uint group_size() {
  return MODE == MXFP4 ? 32 : MODE == NVFP4 ? 16 : 64;
}

// Eight 4-bit codes to float, but for a constant factor that `scale_of` brings back.
// A code s eem lies in half's bits s...eem... at 2^-14 of its value, subnormals included.
template <int MODE>
inline void unpack(uint codes, thread float* q) {
  if (MODE == AFFINE) {
    for (int i = 0; i < 8; i++) q[i] = float(codes >> (4 * i) & 15);
  } else {
    for (int i = 0; i < 4; i++) { // codes i and i + 4 at once, in the halves of a word
      const uint two = codes >> (4 * i);
      const half2 value = as_type<half2>((two & 0x00070007u) << 9 | (two & 0x00080008u) << 12);
      q[i] = float(value.x);
      q[i + 4] = float(value.y);
    }
  }
}

template <int MODE>
inline float scale_of(uchar bits) {
  if (MODE == MXFP4) return as_type<float>((uint(bits) + 14u) << 23); // 2^(bits - 127) * 2^14
  return float(as_type<half>(ushort(bits << 7))) * 4194304.0f;        // e4m3 as half * 2^8, and 2^14
}
template <int MODE>
inline float scale_of(float scale) {
  return scale;
}
template <int MODE>
inline float scale_of(half scale) {
  return scale;
}
template <int MODE>
inline float scale_of(bfloat scale) {
  return scale;
}

// sums[r] += (weights of row `row` at inputs [at, at + 16)) . x[r], for the R vectors a lane holds
template <int MODE, int R, typename S>
inline void add_row(
    const device uint* w, const device S* scales, const device S* biases, size_t row, uint at, uint inputs,
    thread const float (*x)[LOAD], thread const float* x_sums, thread float* sums) {
  const uint2 codes = *(const device uint2*)(w + (row * inputs + at) / 8);
  float q[LOAD];
  unpack<MODE>(codes.x, q);
  unpack<MODE>(codes.y, q + 8);
  const size_t group = (row * inputs + at) / group_size<MODE>();
  const float scale = scale_of<MODE>(scales[group]);
  const float bias = MODE == AFFINE ? float(biases[group]) : 0.0f;
  for (int r = 0; r < R; r++) {
    float dot = 0;
    for (uint i = 0; i < LOAD; i++) dot += q[i] * x[r][i];
    sums[r] += MODE == AFFINE ? scale * dot + bias * x_sums[r] : scale * dot;
  }
}

// The inputs [at, at + 16) of vector `row`, and their sum.
template <typename P>
inline float load_inputs(P x, size_t row, uint at, uint inputs, thread float* out) {
  float sum = 0;
  for (uint i = 0; i < LOAD; i++) {
    out[i] = float(x[row * inputs + at + i]);
    sum += out[i];
  }
  return sum;
}

// Whether an earlier pair names the slot of `pair` and so does its work.
template <typename P>
inline bool served_earlier(P slots, uint pair) {
  for (uint p = 0; p < pair; p++)
    if (slots[p] == slots[pair]) return true;
  return false;
}

// The next up to R pairs from `next` on that name `slot`; `none` where there are fewer. Returns where to go on.
template <int R, typename P>
inline uint next_pairs(P slots, uint slot, uint next, uint none, thread uint* pairs) {
  for (int r = 0; r < R; r++) {
    while (next < none && slots[next] != slot) next++;
    pairs[r] = next;
    if (next < none) next++;
  }
  return next;
}

// kernel expert_gate_up(x, slots, w, scales, biases) -> h
// grid (32, I / ROWS, M * K), threadgroup (32, 2, 1); h float32 [M * K, I]
const uint lane = thread_index_in_simdgroup;
const uint first = thread_position_in_grid.y * ROWS; // of this simdgroup's rows
const uint pair = thread_position_in_grid.z;
const uint all = slots_shape[0] * K;
if (served_earlier(slots, pair)) return;
const uint slot = slots[pair];

for (uint next = pair; next < all;) {
  uint pairs[R];
  next = next_pairs<R>(slots, slot, next, all, pairs);
  if (pairs[0] == all) break;
  float gate[ROWS][R] = {}, up[ROWS][R] = {};
  for (uint at = lane * LOAD; at < H; at += SIMD * LOAD) {
    float inputs[R][LOAD], sums[R];
    for (int r = 0; r < R; r++)
      if (pairs[r] < all) sums[r] = load_inputs(x, pairs[r] / K, at, H, inputs[r]);
      else sums[r] = load_inputs(x, pairs[0] / K, at, H, inputs[r]);
    for (uint row = 0; row < ROWS; row++) {
      const size_t gate_row = size_t(slot) * 2 * I + first + row;
      add_row<MODE, R>(w, scales, biases, gate_row, at, H, inputs, sums, gate[row]);
      add_row<MODE, R>(w, scales, biases, gate_row + I, at, H, inputs, sums, up[row]);
    }
  }
  for (int r = 0; r < R; r++) {
    if (pairs[r] == all) break;
    for (uint row = 0; row < ROWS; row++) {
      const float g = simd_sum(gate[row][r]), u = simd_sum(up[row][r]);
      if (lane == row) h[size_t(pairs[r]) * I + first + row] = g / (1.0f + exp(-g)) * u;
    }
  }
}

// kernel expert_down(h, slots, weights, w, scales, biases) -> y
// grid (32, H / ROWS, 1), threadgroup (32, 2, 1); y T [M, H]
const uint lane = thread_index_in_simdgroup;
const uint first = thread_position_in_grid.y * ROWS;
const uint all = slots_shape[0] * K;
threadgroup float products[SIMDGROUPS][M_MAX * K * ROWS];
threadgroup float* mine = products[simdgroup_index_in_threadgroup]; // (down h) by pair and row

for (uint pair = 0; pair < all; pair++) {
  if (served_earlier(slots, pair)) continue;
  const uint slot = slots[pair];
  for (uint next = pair; next < all;) {
    uint pairs[R];
    next = next_pairs<R>(slots, slot, next, all, pairs);
    if (pairs[0] == all) break;
    float down[ROWS][R] = {};
    for (uint at = lane * LOAD; at < I; at += SIMD * LOAD) {
      float inputs[R][LOAD], sums[R];
      for (int r = 0; r < R; r++)
        if (pairs[r] < all) sums[r] = load_inputs(h, pairs[r], at, I, inputs[r]);
        else sums[r] = load_inputs(h, pairs[0], at, I, inputs[r]);
      for (uint row = 0; row < ROWS; row++)
        add_row<MODE, R>(w, scales, biases, size_t(slot) * H + first + row, at, I, inputs, sums, down[row]);
    }
    for (int r = 0; r < R; r++) {
      if (pairs[r] == all) break;
      for (uint row = 0; row < ROWS; row++) {
        const float product = simd_sum(down[row][r]);
        if (lane == row) mine[pairs[r] * ROWS + row] = product;
      }
    }
  }
}
simdgroup_barrier(mem_flags::mem_threadgroup);
for (uint i = lane; i < slots_shape[0] * ROWS; i += SIMD) {
  const uint m = i / ROWS, row = i % ROWS;
  float sum = 0;
  for (uint k = 0; k < K; k++) sum += weights[m * K + k] * mine[(m * K + k) * ROWS + row];
  y[size_t(m) * H + first + row] = T(sum);
}

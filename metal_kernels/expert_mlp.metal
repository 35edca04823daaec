// The routed experts of a few tokens (decode), from 4-bit weights in a bank of slots, in two dispatches:
//
//   expert_gate_up   h[m,k] = silu(gate x[m]) * (up x[m])        gate and up of slot slots[m,k], in one pass
//   expert_down      y[m]   = sum over k, in order, of weights[m,k] * (down h[m,k])
//
// The time goes into reading weights, so each is read once: the threadgroups of the first (token, k) pair that names
// a slot serve R pairs that name it at a time, those of the later pairs leave at once. A row's result does not depend
// on the other rows: every sum runs in the same order whatever M, R and the other slots are. A set of pairs is a bit
// for each in WORDS words. Unless WEIGHTED, every weight is 1.
//
// A simdgroup takes ROWS output rows; its lanes split the inputs, 16 at a time (one 8-byte load of a weight row).
// Products and sums are float32. H, I are multiples of the group size.

constant constexpr int MXFP4 = 0, NVFP4 = 1, AFFINE = 2;
constant constexpr uint SIMD = 32;
constant constexpr uint LOAD = 16; // weights per lane and load
constant constexpr uint SIMDGROUPS = 4; // per threadgroup: what they share of x and h, a core's cache serves

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

// Sixteen weights of one row, as they are stored.
struct Codes {
  uint2 codes;
  float scale, bias;
};

template <int MODE, typename S>
inline Codes load_row(
    const device uint* w, const device S* scales, const device S* biases, size_t row, uint at, uint inputs) {
  Codes loaded;
  loaded.codes = *(const device uint2*)(w + (row * inputs + at) / 8);
  const size_t group = (row * inputs + at) / group_size<MODE>();
  loaded.scale = scale_of<MODE>(scales[group]);
  loaded.bias = MODE == AFFINE ? float(biases[group]) : 0.0f;
  return loaded;
}

// Their product with sixteen inputs x, whose sum is `sum`.
template <int MODE>
inline float product(Codes row, thread const float* x, float sum) {
  float q[LOAD], dot = 0;
  unpack<MODE>(row.codes.x, q);
  unpack<MODE>(row.codes.y, q + 8);
  for (uint i = 0; i < LOAD; i++) dot += q[i] * x[i];
  return MODE == AFFINE ? row.scale * dot + row.bias * sum : row.scale * dot;
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

// A set of (token, k) pairs, one bit each, the same in all lanes.
template <int WORDS>
struct Pairs {
  uint bits[WORDS];

  // The pairs whose slot is `slot`.
  template <typename P>
  static Pairs naming(uint slot, P slots, uint all, uint lane) {
    Pairs pairs;
    for (uint i = 0; i < WORDS; i++) {
      const uint pair = i * SIMD + lane;
      pairs.bits[i] = uint(static_cast<simd_vote::vote_t>(simd_ballot(pair < all && slots[pair] == slot)));
    }
    return pairs;
  }

  // Pairs 0 .. all - 1.
  static Pairs below(uint all, uint lane) {
    Pairs pairs;
    for (uint i = 0; i < WORDS; i++)
      pairs.bits[i] = uint(static_cast<simd_vote::vote_t>(simd_ballot(i * SIMD + lane < all)));
    return pairs;
  }

  void drop(Pairs others) thread {
    for (uint i = 0; i < WORDS; i++) bits[i] &= ~others.bits[i];
  }

  // Take out the first pair; `none` if the set is empty.
  uint take(uint none) thread {
    for (uint i = 0; i < WORDS; i++)
      if (bits[i] != 0) {
        const uint bit = ctz(bits[i]);
        bits[i] &= bits[i] - 1;
        return i * SIMD + bit;
      }
    return none;
  }
};

// kernel expert_gate_up(x, slots, w, scales, biases) -> h
// grid (32, I / ROWS, M * K), threadgroup (32, SIMDGROUPS, 1); h float32 [M * K, I]
const uint lane = thread_index_in_simdgroup;
const uint first = thread_position_in_grid.y * ROWS; // of this simdgroup's rows
const uint pair = thread_position_in_grid.z;
const uint all = slots_shape[0] * K;
const uint slot = slots[pair];
auto members = Pairs<WORDS>::naming(slot, slots, all, lane);
uint pairs[R];
pairs[0] = members.take(all);
if (pairs[0] != pair) return; // an earlier pair's threadgroup does this slot

while (pairs[0] < all) {
  for (int r = 1; r < R; r++) pairs[r] = members.take(all);
  float gate[ROWS][R] = {}, up[ROWS][R] = {};
  for (uint at = lane * LOAD; at < H; at += SIMD * LOAD) {
    Codes gates[ROWS], ups[ROWS];
    for (uint row = 0; row < ROWS; row++) {
      const size_t gate_row = size_t(slot) * 2 * I + first + row;
      gates[row] = load_row<MODE>(w, scales, biases, gate_row, at, H);
      ups[row] = load_row<MODE>(w, scales, biases, gate_row + I, at, H);
    }
    for (int r = 0; r < R; r++) {
      if (pairs[r] == all) break;
      float inputs[LOAD];
      const float sum = load_inputs(x, pairs[r] / K, at, H, inputs);
      for (uint row = 0; row < ROWS; row++) {
        gate[row][r] += product<MODE>(gates[row], inputs, sum);
        up[row][r] += product<MODE>(ups[row], inputs, sum);
      }
    }
  }
  for (int r = 0; r < R; r++) {
    if (pairs[r] == all) break;
    for (uint row = 0; row < ROWS; row++) {
      const float g = simd_sum(gate[row][r]), u = simd_sum(up[row][r]);
      if (lane == row) h[size_t(pairs[r]) * I + first + row] = g / (1.0f + exp(-g)) * u;
    }
  }
  pairs[0] = members.take(all);
}

// kernel expert_down(h, slots, weights, w, scales, biases) -> y
// grid (32, H / ROWS, 1), threadgroup (32, SIMDGROUPS, 1); y T [M, H]
const uint lane = thread_index_in_simdgroup;
const uint first = thread_position_in_grid.y * ROWS;
const uint all = slots_shape[0] * K;
threadgroup float products[SIMDGROUPS][WORDS * SIMD * ROWS];
threadgroup float* mine = products[simdgroup_index_in_threadgroup]; // (down h) by pair and row

auto left = Pairs<WORDS>::below(all, lane);
for (uint pair = left.take(all); pair < all; pair = left.take(all)) {
  const uint slot = slots[pair];
  auto members = Pairs<WORDS>::naming(slot, slots, all, lane);
  left.drop(members);
  uint pairs[R];
  pairs[0] = members.take(all);
  while (pairs[0] < all) {
    for (int r = 1; r < R; r++) pairs[r] = members.take(all);
    float down[ROWS][R] = {};
    for (uint at = lane * LOAD; at < I; at += SIMD * LOAD) {
      Codes codes[ROWS];
      for (uint row = 0; row < ROWS; row++)
        codes[row] = load_row<MODE>(w, scales, biases, size_t(slot) * H + first + row, at, I);
      for (int r = 0; r < R; r++) {
        if (pairs[r] == all) break;
        float inputs[LOAD];
        const float sum = load_inputs(h, pairs[r], at, I, inputs);
        for (uint row = 0; row < ROWS; row++) down[row][r] += product<MODE>(codes[row], inputs, sum);
      }
    }
    for (int r = 0; r < R; r++) {
      if (pairs[r] == all) break;
      for (uint row = 0; row < ROWS; row++) {
        const float total = simd_sum(down[row][r]);
        if (lane == row) mine[pairs[r] * ROWS + row] = total;
      }
    }
    pairs[0] = members.take(all);
  }
}
simdgroup_barrier(mem_flags::mem_threadgroup);
for (uint i = lane; i < slots_shape[0] * ROWS; i += SIMD) {
  const uint m = i / ROWS, row = i % ROWS;
  float sum = 0;
  for (uint k = 0; k < K; k++) sum += (WEIGHTED ? weights[m * K + k] : 1.0f) * mine[(m * K + k) * ROWS + row];
  y[size_t(m) * H + first + row] = T(sum);
}

// The gated delta rule, one matrix state S [Dv, Dk] per value head, float32:
//
//   S <- exp(g_t) S;   u = beta_t (v_t - S k_t);   S <- S + u k_t^T;   o_t = S q_t
//
// A value row of S depends on no other row, so rows are spread over simdgroups and S stays in registers from the
// first token to the last: it is read once and written once however many tokens there are.
//
// q, k [B, T, HK, DK]; v, o [B, T, HV, DV]; g, beta [B, T, HV]; state [B, HV, DV, DK]. Value head h reads key head
// h / (HV / HK). `tokens` is T.

constant constexpr uint SIMD = 32;
constant constexpr uint TILE = 8; // tokens per chunk, and the side of a simdgroup matrix
constant constexpr uint QUAD = 4; // lanes that share a value row in the recurrent form

template <typename P>
inline float4 load4(P p) {
  return float4(float(p[0]), float(p[1]), float(p[2]), float(p[3]));
}

inline float quad_total(float x) { // the sum over four neighbouring lanes
  x += simd_shuffle_xor(x, 1);
  return x + simd_shuffle_xor(x, 2);
}

// The row and the first of two columns that a lane holds of a simdgroup matrix.
inline ushort2 held(uint lane) {
  return ushort2((lane / 4 & 4) + lane / 2 % 4, (lane / 4 & 2) * 2 + lane % 2 * 2);
}

// kernel gated_delta_recurrent(q, k, v, g, beta, state, tokens) -> o, new_state
// Token by token. A simdgroup takes 8 value rows, four lanes a row, DK / 4 values of the row a lane.
// grid (32, DV / 8, B * HV), threadgroup (32, 4, 1). With STEPS, new_state [B, T, HV, DV, DK] is S after every token.
constexpr uint HELD = DK / QUAD / 4; // vectors of four values
const uint lane = thread_index_in_simdgroup;
const uint row = thread_position_in_grid.y * (SIMD / QUAD) + lane / QUAD;
const uint head = thread_position_in_grid.z % HV, batch = thread_position_in_grid.z / HV;
const uint key_head = head / (HV / HK);
const uint offset = lane % QUAD * 4; // neighbours read neighbouring vectors

const device float4* s = (const device float4*)(state + ((size_t(batch) * HV + head) * DV + row) * DK + offset);
float4 S[HELD];
for (uint i = 0; i < HELD; i++) S[i] = s[i * QUAD];

for (int t = 0; t < tokens; t++) {
  const size_t at = size_t(batch) * tokens + t;
  const auto k_t = k + (at * HK + key_head) * DK + offset;
  const auto q_t = q + (at * HK + key_head) * DK + offset;
  const float decay = exp(float(g[at * HV + head]));
  float4 keys[HELD];
  float4 seen = float4(0.0f);
  for (uint i = 0; i < HELD; i++) {
    keys[i] = load4(k_t + i * QUAD * 4);
    S[i] *= decay;
    seen += S[i] * keys[i];
  }
  const float predicted = quad_total(seen.x + seen.y + seen.z + seen.w);
  const float u = float(beta[at * HV + head]) * (float(v[(at * HV + head) * DV + row]) - predicted);
  float4 read = float4(0.0f);
  for (uint i = 0; i < HELD; i++) {
    S[i] += u * keys[i];
    read += S[i] * load4(q_t + i * QUAD * 4);
  }
  const float out = quad_total(read.x + read.y + read.z + read.w);
  if (lane % QUAD == 0) o[(at * HV + head) * DV + row] = TO(out);
  if (STEPS || t == tokens - 1) {
    const size_t place = STEPS ? at : batch;
    device float4* kept = (device float4*)(new_state + ((place * HV + head) * DV + row) * DK + offset);
    for (uint i = 0; i < HELD; i++) kept[i * QUAD] = S[i];
  }
}

// kernel gated_delta_chunked(q, k, v, g, beta, state, tokens) -> o, new_state
// Eight tokens at a time, in products of 8x8 matrices. With G the running sum of g in the chunk and
// D_ij = exp(G_i - G_j) for j <= i (above the diagonal it would overflow):
//
//   A_ij = beta_i D_ij (k_i . k_j), j < i          M = (I + A)^-1 diag(beta)
//   U = M (V - exp(G) K S^T)                       [token, value]
//   O = exp(G) Q S^T + (D_ij (q_i . k_j)) U        S^T <- exp(G_8) S^T + K^T (exp(G_8 - G) U)
//
// A simdgroup takes 8 value rows and holds S^T [DK, 8] as matrices; M and D (Q K^T), the same for all of them, are
// made by two of them. grid (32, DV / 8, B * HV), threadgroup (32, SIMDGROUPS, 1). Tokens past the end have
// k = 0, which changes nothing.
threadgroup float keys[TILE * DK], queries[TILE * DK];
threadgroup float solve[TILE * TILE], attend[TILE * TILE];
threadgroup float G[TILE], betas[TILE];

const uint lane = thread_index_in_simdgroup, simdgroup = thread_position_in_threadgroup.y;
const uint thread_index = simdgroup * SIMD + lane;
const uint first = thread_position_in_grid.y * TILE; // of this simdgroup's value rows
const uint head = thread_position_in_grid.z % HV, batch = thread_position_in_grid.z / HV;
const uint key_head = head / (HV / HK);
const ushort2 place = held(lane);
constexpr uint TILES = DK / TILE;

simdgroup_float8x8 S[TILES]; // S^T, tile i holds keys 8 i .. 8 i + 7 by value rows
const size_t state_at = ((size_t(batch) * HV + head) * DV + first) * DK;
for (uint i = 0; i < TILES; i++) simdgroup_load(S[i], state + state_at + i * TILE, DK, ulong2(0, 0), true);

for (uint start = 0; start < uint(tokens); start += TILE) {
  const uint count = min(TILE, uint(tokens) - start);
  const size_t at = size_t(batch) * tokens + start; // the chunk's first token

  threadgroup_barrier(mem_flags::mem_threadgroup); // the last chunk's keys have been read
  for (uint i = thread_index; i < TILE * DK; i += SIMD * SIMDGROUPS) {
    const uint token = i / DK;
    const size_t from = ((at + token) * HK + key_head) * DK + i % DK;
    keys[i] = token < count ? float(k[from]) : 0.0f;
    queries[i] = token < count ? float(q[from]) : 0.0f;
  }
  if (simdgroup == 0) {
    const bool real = lane < count;
    const float sum = simd_prefix_inclusive_sum(real ? float(g[(at + lane) * HV + head]) : 0.0f);
    if (lane < TILE) {
      G[lane] = sum;
      betas[lane] = real ? float(beta[(at + lane) * HV + head]) : 0.0f;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  for (uint which = simdgroup; which < 2; which += SIMDGROUPS) { // 0: K K^T, 1: Q K^T
    simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (uint i = 0; i < TILES; i++) {
      simdgroup_float8x8 left, right;
      simdgroup_load(left, (which == 0 ? keys : queries) + i * TILE, DK);
      simdgroup_load(right, keys + i * TILE, DK, ulong2(0, 0), true);
      simdgroup_multiply_accumulate(sum, left, right, sum);
    }
    const uint row = place.x;
    for (uint j = 0; j < 2; j++) {
      const uint col = place.y + j;
      const bool below = which == 0 ? col < row : col <= row;
      const float decayed = below ? sum.thread_elements()[j] * exp(G[row] - G[col]) : 0.0f;
      if (which == 0) solve[row * TILE + col] = betas[row] * decayed;
      else attend[row * TILE + col] = decayed;
    }
    if (which == 0) { // (I + A)^-1 by forward substitution, a column per lane
      simdgroup_barrier(mem_flags::mem_threadgroup);
      float column[TILE];
      for (uint i = 0; i < TILE; i++) {
        column[i] = i == lane ? 1.0f : 0.0f;
        for (uint j = 0; j < i; j++) column[i] -= solve[i * TILE + j] * column[j];
      }
      simdgroup_barrier(mem_flags::mem_threadgroup);
      if (lane < TILE)
        for (uint i = 0; i < TILE; i++) solve[i * TILE + lane] = column[i] * betas[lane];
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  simdgroup_float8x8 KS = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  simdgroup_float8x8 O = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint i = 0; i < TILES; i++) {
    simdgroup_float8x8 tile;
    simdgroup_load(tile, keys + i * TILE, DK);
    simdgroup_multiply_accumulate(KS, tile, S[i], KS);
    simdgroup_load(tile, queries + i * TILE, DK);
    simdgroup_multiply_accumulate(O, tile, S[i], O);
  }
  const uint token = place.x;
  const size_t values = ((at + token) * HV + head) * DV + first + place.y;
  const float grown = exp(G[token]);
  simdgroup_float8x8 W, U, M;
  for (uint j = 0; j < 2; j++) {
    W.thread_elements()[j] = (token < count ? float(v[values + j]) : 0.0f) - grown * KS.thread_elements()[j];
    O.thread_elements()[j] *= grown;
  }
  simdgroup_load(M, solve, TILE);
  simdgroup_multiply(U, M, W);
  simdgroup_load(M, attend, TILE);
  simdgroup_multiply_accumulate(O, M, U, O);
  if (token < count)
    for (uint j = 0; j < 2; j++) o[values + j] = TO(O.thread_elements()[j]);

  const float end = G[TILE - 1], decay = exp(end), left = exp(end - G[token]);
  for (uint j = 0; j < 2; j++) U.thread_elements()[j] *= left;
  for (uint i = 0; i < TILES; i++) {
    simdgroup_float8x8 tile;
    simdgroup_load(tile, keys + i * TILE, DK, ulong2(0, 0), true);
    for (uint j = 0; j < 2; j++) S[i].thread_elements()[j] *= decay;
    simdgroup_multiply_accumulate(S[i], tile, U, S[i]);
  }
}
for (uint i = 0; i < TILES; i++) simdgroup_store(S[i], new_state + state_at + i * TILE, DK, ulong2(0, 0), true);

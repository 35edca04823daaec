// What the gated delta rule takes, from the projections of a layer, in one pass:
//
//   c_t = silu(sum over j of taps[j] * x_{t-K+1+j})        x = qkv, before it the last K - 1 rows of the previous call
//   q = c / |c| / sqrt(D), k = c / |c|, v = c              per head; |c| = sqrt(sum c^2 + 1e-6)
//   g = -exp(A_log) softplus(a + dt_bias), beta = sigmoid(b)
//
// qkv [B, T, C] with C = (2 HK + HV) D channels, q heads first, then k, then v; past [B, K - 1, C]; taps float32 [K, C];
// a, b [B, T, HV]. Everything is float32 but `past`. A simdgroup takes one head for RUN tokens and keeps the last K
// inputs of its channels in registers, so that each is read once (and K - 1 again at the start of a run).

constant constexpr uint SIMD = 32;

// Input row `t` of a channel, t >= -(K - 1); negative rows are those of the previous call.
template <int K, typename X, typename P>
inline float row_at(X qkv, P past, size_t batch, int t, int tokens, uint channel, uint channels) {
  if (t < 0) return float(past[(batch * (K - 1) + (t + K - 1)) * channels + channel]);
  return float(qkv[(batch * tokens + t) * channels + channel]);
}

// kernel delta_inputs(qkv, past, taps, a, b, A_log, dt_bias, tokens) -> q, k, v, g, beta, new_past
// grid (32, 2 HK + HV, B * ceil(T / RUN)), threadgroup (32, 4, 1)
constexpr uint CHANNELS = (2 * HK + HV) * D, HELD = D / SIMD, KEEP = K - 1;
const uint lane = thread_index_in_simdgroup;
const uint head = thread_position_in_grid.y;
const int runs = (tokens + RUN - 1) / RUN;
const size_t batch = thread_position_in_grid.z / runs;
const int first = thread_position_in_grid.z % runs * RUN, end = min(first + RUN, int(tokens));

float window[HELD][K], tap[HELD][K];
for (uint i = 0; i < HELD; i++) {
  const uint channel = head * D + i * SIMD + lane;
  for (int j = 0; j < K; j++) tap[i][j] = taps[j * CHANNELS + channel];
  for (int j = 1; j < K; j++) window[i][j] = row_at<K>(qkv, past, batch, first - K + j, tokens, channel, CHANNELS);
}

for (int t = first; t < end; t++) {
  float c[HELD];
  float squares = 0;
  for (uint i = 0; i < HELD; i++) {
    const uint channel = head * D + i * SIMD + lane;
    for (int j = 1; j < K; j++) window[i][j - 1] = window[i][j];
    window[i][K - 1] = row_at<K>(qkv, past, batch, t, tokens, channel, CHANNELS);
    float sum = 0;
    for (int j = 0; j < K; j++) sum += tap[i][j] * window[i][j];
    c[i] = sum / (1.0f + exp(-sum));
    squares += c[i] * c[i];
  }
  const size_t at = batch * tokens + t;
  if (head < 2 * HK) {
    const float inverse = rsqrt(simd_sum(squares) + 1e-6f);
    for (uint i = 0; i < HELD; i++) {
      const uint within = i * SIMD + lane;
      if (head < HK) q[(at * HK + head) * D + within] = c[i] * inverse * rsqrt(float(D));
      else k[(at * HK + head - HK) * D + within] = c[i] * inverse;
    }
  } else {
    const uint value_head = head - 2 * HK;
    for (uint i = 0; i < HELD; i++) v[(at * HV + value_head) * D + i * SIMD + lane] = c[i];
    if (lane == 0) {
      const float x = float(a[at * HV + value_head]) + dt_bias[value_head];
      const float softplus = max(x, 0.0f) + log1p(exp(-abs(x)));
      g[at * HV + value_head] = -exp(A_log[value_head]) * softplus;
      beta[at * HV + value_head] = 1.0f / (1.0f + exp(-float(b[at * HV + value_head])));
    }
  }
}

if (end == tokens) // the rows that the next call will need, bit for bit as they came
  for (uint i = 0; i < HELD; i++)
    for (uint j = 0; j < KEEP; j++) {
      const uint channel = head * D + i * SIMD + lane;
      new_past[(batch * KEEP + j) * CHANNELS + channel] = TP(window[i][j + 1]);
    }

// Top-k routing. One simdgroup takes one row of logits [E]; lane l holds experts l, l + 32, l + 64, ...
//
// The softmax of the k best logits is the softmax of all of them, cut to the best and made to sum to one again, so no
// other exponential is needed. Everything is float32: near ties must not be decided by the rounding of a probability.
// Among equal logits the lower expert wins. The ids are written in ascending order.

constant constexpr uint SIMD = 32;

// kernel router_topk(logits) -> ids, weights
const uint lane = thread_index_in_simdgroup;
const uint row = threadgroup_position_in_grid.y;
constexpr int HELD = (E + SIMD - 1) / SIMD; // experts per lane

float held[HELD];
bool nan = false;
for (int i = 0; i < HELD; i++) {
  const uint expert = lane + SIMD * i;
  const float logit = expert < E ? float(logits[size_t(row) * E + expert]) : -INFINITY;
  nan |= isnan(logit);
  held[i] = isnan(logit) ? -INFINITY : logit; // the ids stay valid whatever the logits are
}

uint taken = 0; // one bit per held expert
uint chosen = E;  // lane r keeps the r-th best
float best = -INFINITY;
for (uint r = 0; r < K; r++) {
  float mine = -INFINITY;
  uint id = E;
  for (int i = 0; i < HELD; i++) {
    const uint expert = lane + SIMD * i;
    const bool free = expert < E && !(taken >> i & 1);
    if (free && (id == E || held[i] > mine)) {
      mine = held[i];
      id = expert;
    }
  }
  const float top = simd_max(mine);
  const uint winner = simd_min(mine == top ? id : uint(E));
  if (winner % SIMD == lane) taken |= 1u << (winner / SIMD);
  if (r == lane) {
    chosen = winner;
    best = top;
  }
}

const float largest = simd_max(best);
const float e = lane < K ? exp(best - largest) : 0.0f;
const float total = simd_sum(e);
const bool broken = simd_any(nan); // a NaN logit makes every weight of its row NaN: it must not pass unseen
uint rank = 0;
for (uint r = 0; r < K; r++) rank += simd_broadcast(chosen, r) < chosen;
if (lane < K) {
  ids[row * K + rank] = chosen;
  weights[row * K + rank] = broken ? NAN : e / total;
}

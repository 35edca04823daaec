"""Mutants of our kernels that no test can tell from the kernel, and why: file -> reason -> lines as in str(Mutant),
without the number."""

EQUIVALENT: dict[str, dict[str, list[str]]] = {
    "router_topk": {
        "room for more experts than there are: those past E are not free, so never looked at": [
            "constexpr int HELD = (E + SIMD - 1) / SIMD; // experts per lane  ->  "
            "constexpr int HELD = (E + SIMD + 1) / SIMD; // experts per lane",
            "constexpr int HELD = (E + SIMD - 1) / SIMD; // experts per lane  ->  "
            "constexpr int HELD = (E + SIMD - 1) * SIMD; // experts per lane",
            "for (int i = 0; i < HELD; i++) {  ->  for (int i = 0; i <= HELD; i++) {",
        ],
        "expert E is what a lane with nothing to offer says too": [
            "const bool free = expert < E && !(taken >> i & 1);  ->  "
            "const bool free = expert <= E && !(taken >> i & 1);",
        ],
        "the best of lane K is -infinity, its exponential 0": [
            "const float e = lane < K ? exp(best - largest) : 0.0f;  ->  "
            "const float e = lane <= K ? exp(best - largest) : 0.0f;",
        ],
    },
    "delta_inputs": {
        "one lane writes, whichever: all have the same": ["if (lane == 0) {  ->  if (lane == 1) {"],
    },
    "gated_delta": {
        "lanes 2 and 3 of a quad hold the same after the first step": [
            "return x + simd_shuffle_xor(x, 2);  ->  return x + simd_shuffle_xor(x, 3);",
        ],
        "one lane of the quad writes, whichever: all have the same": [
            "if (lane % QUAD == 0) o[(at * HV + head) * DV + row] = TO(out);  ->  "
            "if (lane % QUAD == 1) o[(at * HV + head) * DV + row] = TO(out);",
        ],
        "a token past the end has no key: its update goes nowhere": [
            "W.thread_elements()[j] = (token < count ? float(v[values + j]) : 0.0f) - grown * KS.thread_elements()[j];"
            "  ->  W.thread_elements()[j] = (token < count ? float(v[values + j]) : 0.5f) - grown * "
            "KS.thread_elements()[j];",
            "betas[lane] = real ? float(beta[(at + lane) * HV + head]) : 0.0f;  ->  "
            "betas[lane] = real ? float(beta[(at + lane) * HV + head]) : 0.5f;",
        ],
        "the diagonal of A is 0": [
            "for (uint j = 0; j < i; j++) column[i] -= solve[i * TILE + j] * column[j];  ->  "
            "for (uint j = 0; j <= i; j++) column[i] -= solve[i * TILE + j] * column[j];",
        ],
    },
    "expert_mlp": {},
}


def explained(file: str) -> set[str]:
    return {line for lines in EQUIVALENT[file].values() for line in lines}

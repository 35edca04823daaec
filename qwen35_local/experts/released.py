"""The released model in numbers, to plan with before downloading 211 GB: from its card and config."""

from .budget import Geometry
from .sight import Sight

LAYERS, FULL, H, I, E, K, VOCAB = 60, 15, 4096, 1024, 512, 10, 248320  # noqa: E741
CONTEXT, HEAD_DIM = 262144, 256
MXFP4 = 4.25 / 8  # bytes of a weight: four bits, and eight more for every 32

_delta_net = (2 * 2048 + 2 * 8192 + 2 * 64) * H + 8192 * H  # q, k, v, z, b, a; out
_attention = (2 * 32 * 256 + 2 * 2 * 256) * H + 32 * 256 * H  # query and gate, k, v; out
_shared = 3 * H * I + H
_trunk = (LAYERS - FULL) * _delta_net + FULL * _attention + LAYERS * _shared + 2 * VOCAB * H
# The tower in bfloat16: patches, blocks of attention and MLP, the merger; 4096 x 4096 pixels at most.
_v, _m, _merged = 1152, 4304, 4 * 1152
_tower = 1536 * _v + 2304 * _v + 27 * (4 * _v * _v + 2 * _v * _m) + _merged * (_merged + H)
_routers = LAYERS * E * H

RELEASED_397B = Geometry(
    layers=LAYERS,
    experts=E,
    top_k=K,
    expert_nbytes=round(3 * H * I * MXFP4),
    trunk_nbytes=round(_trunk * MXFP4 + _routers * 8.5 / 8),
    kv_per_token=FULL * 2 * 2 * 256 * 2,
    state_nbytes=(LAYERS - FULL) * (64 * 128 * 128 * 4 + 3 * 12288 * 2),
    heads=32,
    hidden=H,
    intermediate=I,
    vocab=VOCAB,
    itemsize=2,
    sight=Sight(2 * _tower, 2048 * _m * 5 * 4, 4 * (2 * 4 * 1536 + 10 * _v * 2), H * 2, 16, 16384),
)

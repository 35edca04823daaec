"""Every operation that has a kernel: what `qwen35 doctor` judges and shows."""

from .delta_inputs import INPUTS
from .expert_mlp import EXPERT_ROWS, EXPERTS
from .gated_delta import DECODE, PREFILL, STEPS
from .router_topk import ROUTER

OPERATIONS = [ROUTER, INPUTS, DECODE, STEPS, PREFILL, *EXPERTS.values(), *EXPERT_ROWS.values()]

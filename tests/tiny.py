"""The tiny random checkpoints of the tests: which there are, and a model from one."""

from pathlib import Path

import mlx.core as mx

from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.model.config import ModelConfig
from qwen35_local.model.qwen35 import Qwen35
from qwen35_local.model.weights import Weights

# Case of tests/golden/tiny.npz -> dtype of the checkpoint, YaRN factor.
CASES = {"F32": ("F32", 1.0), "F32-yarn4": ("F32", 4.0), "BF16": ("BF16", 1.0)}


def opened(path: Path, dtype: mx.Dtype = mx.float32) -> tuple[Weights, ModelConfig]:
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config)
    return Weights(checkpoint, config, dtype), config


def load(path: Path, dtype: mx.Dtype = mx.float32) -> Qwen35:
    weights, config = opened(path, dtype)
    return Qwen35(weights, config.text)

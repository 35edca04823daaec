"""The tensors of a checkpoint in any known layout as float32 numpy arrays, one expert at a time. No MLX.

Every packing is undone here, so that what writes GGUF knows only numbers. All values of the 16-bit, 8-bit and 4-bit
float packings are exact in float32; affine ones are what MLX computes in float32.
"""

import math

import numpy as np

from ..checkpoint.files import Checkpoint, TensorInfo
from ..checkpoint.names import canonical, is_zero_centred
from ..errors import CheckpointError, ConfigError
from ..model.config import ModelConfig, Quantization
from ..model.vision_config import VisionConfig
from .types import FP4

NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1", "U32": "<u4"}


class Source:
    """Reads on demand: nothing is kept, so the largest array in memory is the largest one asked for."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig):
        self.config = config
        self._tensors: dict[str, TensorInfo] = {}
        for name, tensor in checkpoint.tensors.items():
            if (ours := canonical(name)) in self._tensors:
                raise CheckpointError(f"{name} and {self._tensors[ours].name} are the same tensor")
            self._tensors[ours] = tensor
        forms = {tensor.shape[1] == 1 for name, tensor in self._tensors.items() if name.endswith("conv1d.weight")}
        if len(forms) != 1:
            raise CheckpointError(
                "the checkpoint's conv1d weights do not say whether its norms are released or converted"
            )
        self._raw = forms == {True}

    def has(self, module: str) -> bool:
        """Whether there is a tensor or packed module of this canonical name."""
        return any(name in self._tensors for name in (module, f"{module}.weight"))

    def packing(self, module: str) -> str:
        """The dtype of a plain matrix, or the mode of a packed one."""
        if (q := self._packed(module)) is not None:
            return q.mode
        return self._info(module if module in self._tensors else f"{module}.weight").dtype

    def vector(self, name: str, size: int) -> np.ndarray:
        """float32 [size]; zero-centred norms come ready to multiply by, as 1 + w."""
        values = self._floats(name).reshape(-1)
        if values.shape != (size,):
            raise ConfigError(f"{name} has {values.size} values, config.json asks for {size}")
        return values + np.float32(1) if self._raw and is_zero_centred(name) else values

    def conv(self, name: str, channels: int, kernel: int) -> np.ndarray:
        """Taps, float32 [channels, kernel], oldest input first."""
        taps = self._floats(name)
        if taps.size != channels * kernel:
            raise ConfigError(
                f"{name} is {list(taps.shape)}, config.json asks for {channels} channels of {kernel} taps"
            )
        return taps.reshape(channels, kernel)

    def patch_filter(self, name: str, c: VisionConfig, frame: int) -> np.ndarray:
        """The vision tower's patch filter for one frame, float32 [out, channels, rows, columns].

        As released it is [out, channels, frames, rows, columns]; MLX conversions have the channels last.
        """
        values = self._floats(name)
        H, C, T, P = c.hidden_size, c.in_channels, c.temporal_patch_size, c.patch_size
        if values.shape == (H, T, P, P, C) != (H, C, T, P, P):
            values = values.transpose(0, 4, 1, 2, 3)
        if values.shape != (H, C, T, P, P):
            raise ConfigError(f"{name} is {list(values.shape)}, config.json asks for {[H, C, T, P, P]}")
        return np.ascontiguousarray(values[:, :, frame])

    def matrix(self, module: str, out: int, in_: int) -> np.ndarray:
        """float32 [out, in] of a module, plain or packed."""
        return self._shaped(module, None, (out, in_))

    def expert(self, mlp: str, part: str, e: int, intermediate: int, hidden: int) -> np.ndarray:
        """One expert's `gate` or `up` [intermediate, hidden], or its `down` [hidden, intermediate]."""
        shape = (hidden, intermediate) if part == "down" else (intermediate, hidden)
        if self.has(stacked := f"{mlp}.switch_mlp.{part}_proj"):
            return self._shaped(stacked, e, shape)
        if self.has(single := f"{mlp}.experts.{e}.{part}_proj"):
            return self._shaped(single, None, shape)
        if part == "down":
            return self._shaped(f"{mlp}.experts.down_proj", e, shape)
        both = self._shaped(f"{mlp}.experts.gate_up_proj", e, (2 * intermediate, hidden))
        return both[:intermediate] if part == "gate" else both[intermediate:]

    def expert_packing(self, mlp: str) -> str:
        for module in (f"{mlp}.switch_mlp.gate_proj", f"{mlp}.experts.0.gate_proj", f"{mlp}.experts.gate_up_proj"):
            if self.has(module):
                return self.packing(module)
        raise CheckpointError(f"the checkpoint has no experts under {mlp} in any known layout")

    def _shaped(self, module: str, index: int | None, shape: tuple[int, int]) -> np.ndarray:
        q = self._packed(module)
        if q is None:
            values = self._floats(module if module in self._tensors else f"{module}.weight", index)
        else:
            values = self._unpacked(module, q, index)
        if values.shape != shape:
            raise ConfigError(f"{module} is {list(values.shape)}, config.json asks for {list(shape)}")
        return values

    def _packed(self, module: str) -> Quantization | None:
        if f"{module}.scales" not in self._tensors:
            return None
        if self.config.quantization is None or (q := self.config.quantization.of(module)) is None:
            raise ConfigError(f"{module} has scales, but config.json says it is not quantised")
        if f"{module}.global_scale" in self._tensors:
            raise CheckpointError(f"{module}.global_scale: tensor-scaled nvfp4 is not supported, convert without it")
        return q

    def _info(self, name: str) -> TensorInfo:
        if name not in self._tensors:
            raise CheckpointError(f"the checkpoint has no tensor {name}")
        return self._tensors[name]

    def _array(self, name: str, index: int | None = None) -> np.ndarray:
        """A view of the file, of all or of the item `index` of the leading axis."""
        info = self._info(name)
        if info.dtype not in NUMPY:
            raise CheckpointError(f"{info.name} is {info.dtype}, which cannot be written as GGUF: use the bf16 release")
        shape, offset = info.shape, info.offset
        if index is not None:
            shape = shape[1:]
            offset += index * (info.nbytes // info.shape[0])
        dtype = np.dtype(NUMPY[info.dtype])
        with info.file.open("rb") as file:
            file.seek(offset)
            values = np.fromfile(file, dtype, math.prod(shape))
        if values.size != math.prod(shape):
            raise CheckpointError(f"{info.file.name} ended inside {info.name}: it changed while it was read")
        return values.reshape(shape)

    def _floats(self, name: str, index: int | None = None) -> np.ndarray:
        values = self._array(name, index)
        match self._info(name).dtype:
            case "BF16":
                return (values.astype(np.uint32) << 16).view(np.float32)
            case "F16" | "F32":
                return values.astype(np.float32)
            case other:
                raise CheckpointError(f"{self._info(name).name} is {other}, expected BF16, F16 or F32")

    def _unpacked(self, module: str, q: Quantization, index: int | None) -> np.ndarray:
        codes = unpack(self._array(f"{module}.weight", index), q.bits)
        grouped = codes.reshape(*codes.shape[:-1], -1, q.group_size)
        if q.mode == "affine":
            scales, biases = (self._floats(f"{module}.{part}", index)[..., None] for part in ("scales", "biases"))
            values = grouped * scales + biases
        else:
            scales = self._array(f"{module}.scales", index)
            scale = E4M3[scales] if q.mode == "nvfp4" else np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
            values = (E4M3 if q.bits == 8 else E2M1)[grouped] * scale[..., None]
        return values.astype(np.float32).reshape(codes.shape)


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """uint32 [..., n * bits / 32] -> codes uint8 [..., n]; MLX packs them as one little-endian stream of bits."""
    data = words.view(np.uint8)
    if bits == 8:
        return data
    stream = np.unpackbits(data, axis=-1, bitorder="little")
    places = (1 << np.arange(bits, dtype=np.uint8)).astype(np.uint8)
    return (stream.reshape(*words.shape[:-1], -1, bits) * places).sum(-1, dtype=np.uint8)


def _e4m3() -> np.ndarray:
    """float32 of every byte of the 8-bit float with 4 exponent and 3 fraction bits (bias 7, no infinities)."""
    code = np.arange(256)
    exponent, fraction = (code >> 3) & 15, code & 7
    magnitude = np.where(exponent == 0, np.ldexp(fraction / 8, -6), np.ldexp(1 + fraction / 8, exponent - 7))
    magnitude[(code & 127) == 127] = np.nan
    return np.where(code & 128, -magnitude, magnitude).astype(np.float32)


E4M3 = _e4m3()
E2M1 = np.concatenate([FP4, -FP4])

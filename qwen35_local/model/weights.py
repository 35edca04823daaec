"""Checkpoint tensors to arrays, in every known layout: each module asks for what it needs and every answer is checked.

Arrays are lazy (MLX reads them when they are first evaluated), so a tensor that no module asks for costs nothing, and
`settle` after each layer bounds what loading holds beside the weights themselves.
"""

import math
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from ..checkpoint.files import Checkpoint, TensorInfo
from ..checkpoint.names import canonical, is_zero_centred
from ..errors import CheckpointError, ConfigError
from ..experts.layout import LayerLayout, layer_layout
from .config import ModelConfig, TextConfig
from .layers import Dense, Matrix, Packed

FLOATS = ("BF16", "F16", "F32")


class Weights:
    """The tensors of one checkpoint under canonical names; `dtype` is that of the activations."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ModelConfig,
        dtype: mx.Dtype,
        on_progress: Callable[[int], None] | None = None,
    ):
        """`on_progress(nbytes)` hears after each layer how much is in memory."""
        self.dtype = dtype
        self.nbytes = 0
        self._on_progress = on_progress
        self._pending: list[mx.array] = []
        self.quantization = config.quantization
        self.tensors: dict[str, TensorInfo] = {}
        for name, tensor in checkpoint.tensors.items():
            if (ours := canonical(name)) in self.tensors:
                raise CheckpointError(f"{name} and {self.tensors[ours].name} are the same tensor")
            self.tensors[ours] = tensor
        self._files: dict[Path, dict[str, mx.array]] = {}
        self._raw_norms = self._has_raw_norms()

    def _has_raw_norms(self) -> bool:
        """Whether norms are stored as w (released) or as 1 + w (MLX conversions).

        The one reliable sign is the layout of the convolution: [C, 1, K] as released, [C, K, 1] as converted.
        """
        raw = {tensor.shape[1] == 1 for name, tensor in self.tensors.items() if name.endswith("conv1d.weight")}
        if len(raw) > 1:
            raise CheckpointError("some conv1d weights are [C, 1, K] and some [C, K, 1]: the norms' form is unknown")
        return raw == {True}

    @property
    def parameters(self) -> int:
        """Weights of the language model, packed ones counted as what they stand for; vision and MTP are not in it."""
        count = 0
        for name, tensor in self.tensors.items():
            module, _, kind = name.rpartition(".")
            if name.startswith(("visual.", "mtp.")) or (f"{module}.scales" in self.tensors and kind != "weight"):
                continue
            q = self.quantization.of(module) if self.quantization and tensor.dtype == "U32" else None
            count += math.prod(tensor.shape) * 32 // q.bits if q else math.prod(tensor.shape)
        return count

    def _tensor(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            if f"{name.removesuffix('.weight')}.weight_scale_inv" in self.tensors:
                raise CheckpointError("FP8 block-scaled weights are not supported: use the bf16 release")
            raise CheckpointError(f"the checkpoint has no tensor {name}")
        return self.tensors[name]

    def _load(self, tensor: TensorInfo) -> mx.array:
        """Lazy. Handed out once and not kept: what is converted afterwards would stay in memory twice."""
        if tensor.name not in self._files.get(tensor.file, ()):
            try:
                self._files[tensor.file] = mx.load(str(tensor.file))  # pyright: ignore[reportArgumentType]
            except RuntimeError as error:
                raise CheckpointError(f"cannot read {tensor.file.name}: {error}") from error
        return self._files[tensor.file].pop(tensor.name)

    def settle(self) -> None:
        """Read everything handed out since the last call."""
        try:
            mx.eval(self._pending)
        except RuntimeError as error:
            raise CheckpointError(f"reading the weights failed: {error}") from error
        self.nbytes += sum(array.nbytes for array in self._pending)
        self._pending.clear()
        if self._on_progress is not None:
            self._on_progress(self.nbytes)

    def _given(self, *arrays: mx.array) -> None:
        self._pending.extend(arrays)

    def array(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        """A float tensor of exactly this shape, as `dtype`."""
        array = self._floats(name, shape, dtype)
        self._given(array)
        return array

    def _floats(self, name: str, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
        return self._load(self._expect(name, shape, FLOATS)).astype(dtype)

    def _expect(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> TensorInfo:
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise ConfigError(f"{tensor.name} is {list(tensor.shape)}, config.json asks for {list(shape)}")
        if tensor.dtype not in dtypes:
            raise CheckpointError(f"{tensor.name} is {tensor.dtype}, expected {' or '.join(dtypes)}")
        return tensor

    def norm(self, name: str, size: int) -> mx.array:
        """float32 [size], ready to multiply by: 1 is added here, in float32, if the file holds a zero-centred w."""
        weight = self._floats(name, (size,), mx.float32)
        weight = weight + 1.0 if self._raw_norms and is_zero_centred(name) else weight
        self._given(weight)
        return weight

    def conv(self, name: str, channels: int, kernel: int) -> mx.array:
        """Depthwise convolution taps, float32 [kernel, channels], oldest input first."""
        shape = (channels, 1, kernel) if self._raw_norms else (channels, kernel, 1)
        taps = mx.contiguous(self._floats(name, shape, mx.float32).reshape(channels, kernel).T)
        self._given(taps)
        return taps

    def matrix(self, name: str, out: int, in_: int) -> Matrix:
        """The weight of a module, [out, in], packed as the file has it."""
        matrix = self._matrix(name, out, in_)
        self._given(*matrix.parts)
        return matrix

    def _matrix(self, name: str, out: int, in_: int, stack: tuple[int, ...] = ()) -> Matrix:
        """[*stack, out, in]. Released expert stacks are called `X`, every other weight `X.weight`."""
        if f"{name}.scales" in self.tensors:
            return self._packed(name, (*stack, out), in_)
        if self.quantization is not None and self.quantization.overrides.get(name) is not None:
            raise ConfigError(f"config.json says {name} is quantised, but it has no scales")
        full = name if name in self.tensors else f"{name}.weight"
        return Dense(self._floats(full, (*stack, out, in_), self.dtype))

    def _packed(self, name: str, lead: tuple[int, ...], in_: int) -> Packed:
        q = self.quantization.of(name) if self.quantization else None
        if q is None:
            raise ConfigError(f"{name} has scales, but config.json says it is not quantised")
        if in_ % q.group_size:
            raise ConfigError(f"{name} has {in_} inputs, not a multiple of the group size {q.group_size}")
        if f"{name}.global_scale" in self.tensors:
            raise CheckpointError(f"{name}.global_scale: tensor-scaled nvfp4 is not supported, convert without it")
        groups = (*lead, in_ // q.group_size)
        weight = self._load(self._expect(f"{name}.weight", (*lead, in_ * q.bits // 32), ("U32",)))
        if not q.has_biases:
            return Packed(weight, self._load(self._expect(f"{name}.scales", groups, ("U8",))), None, q)
        scales, biases = (self._floats(f"{name}.{part}", groups, self.dtype) for part in ("scales", "biases"))
        return Packed(weight, scales, biases, q)

    def expert_layouts(self, c: TextConfig) -> list[LayerLayout]:
        """Where the routed experts of every layer are; nothing is read."""
        return [layer_layout(self.tensors, f"layers.{i}.mlp", c.num_experts) for i in range(c.num_layers)]

    def mtp_layout(self, c: TextConfig) -> LayerLayout:
        """The same for the MTP head."""
        return layer_layout(self.tensors, "mtp.layers.0.mlp", c.num_experts)

    def experts(self, mlp: str, E: int, intermediate: int, hidden: int) -> tuple[Matrix, Matrix]:
        """All routed experts of a layer: gate above up [E, 2 I, H] and down [E, H, I].

        Layouts: released (`experts.gate_up_proj`, fused), MLX (`switch_mlp.gate_proj` …), one by one (`experts.7.…`).
        """
        gate_up, down = (_for_gather(matrix) for matrix in self._experts(mlp, E, intermediate, hidden))
        self._given(*gate_up.parts, *down.parts)
        return gate_up, down

    def _experts(self, mlp: str, E: int, intermediate: int, hidden: int) -> tuple[Matrix, Matrix]:
        fused, stacked, singly = f"{mlp}.experts.gate_up_proj", f"{mlp}.switch_mlp", f"{mlp}.experts.0.gate_proj.weight"
        if fused in self.tensors or f"{fused}.scales" in self.tensors:
            gate_up = self._matrix(fused, 2 * intermediate, hidden, (E,))
            return _for_gather(gate_up), _for_gather(
                self._matrix(f"{mlp}.experts.down_proj", hidden, intermediate, (E,))
            )
        if f"{stacked}.gate_proj.weight" in self.tensors:
            gate, up = (self._matrix(f"{stacked}.{part}_proj", intermediate, hidden, (E,)) for part in ("gate", "up"))
            down = self._matrix(f"{stacked}.down_proj", hidden, intermediate, (E,))
        elif singly in self.tensors:
            gate, up = (self._stack(mlp, f"{part}_proj", E, intermediate, hidden) for part in ("gate", "up"))
            down = self._stack(mlp, "down_proj", E, hidden, intermediate)
        else:
            raise CheckpointError(f"the checkpoint has no experts under {mlp} in any known layout")
        return joined((gate, up), mx.concatenate, 1, f"gate_proj and up_proj of {mlp}"), down

    def _stack(self, mlp: str, part: str, E: int, out: int, in_: int) -> Matrix:
        if (surplus := f"{mlp}.experts.{E}.{part}.weight") in self.tensors:
            raise ConfigError(f"config.json says {E} experts, but the checkpoint has {surplus}")
        each = tuple(self._matrix(f"{mlp}.experts.{e}.{part}", out, in_) for e in range(E))
        return joined(each, mx.stack, 0, f"the experts of {mlp}")


def joined(matrices: tuple[Matrix, ...], join: Callable[..., mx.array], axis: int, what: str) -> Matrix:
    """Matrices of equal packing as one. Packing runs along the inputs, so rows are joined without repacking."""
    if len({matrix.quantization if isinstance(matrix, Packed) else None for matrix in matrices}) > 1:
        raise ConfigError(f"{what} are packed differently from one another")
    parts = zip(*(matrix.parts for matrix in matrices), strict=True)
    return matrices[0].with_parts([join(list(arrays), axis) for arrays in parts])


def _for_gather(matrix: Matrix) -> Matrix:
    """MLX's gather_mm on a CPU takes float32 only, so plain experts are widened there."""
    if isinstance(matrix, Dense) and not mx.metal.is_available():
        return Dense(matrix.weight.astype(mx.float32))
    return matrix

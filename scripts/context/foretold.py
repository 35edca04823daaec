"""A mid-size model that an MTP head can foretell: random weights guess nothing, and show no speed worth measuring.

Every layer adds little to the residual, so what follows a token is the one whose row of the output matrix is most like
that token's embedding: the next on one long cycle through the vocabulary. Half of the channels tell the head, which
sees only those, a wrong successor for a share of the tokens. All layers, experts and passes cost what they cost.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from bench_engine import plain_tokenizer
from make_checkpoint import PRESETS, SPECIAL_TOKENS, encode, write

from qwen35_local.checkpoint.files import Checkpoint, TensorInfo
from qwen35_local.hub.progress import Meter
from qwen35_local.hub.recipe import recipe
from qwen35_local.hub.store import Parts, convert_directory

QUIET = 0.1  # of their random size is left to what layers write into the residual
LOUD = 1.5  # the channels that only the trunk sees, beside the others
WRITERS = ("o_proj.weight", "out_proj.weight", "down_proj", "down_proj.weight")


def make(path: Path, right: float, preset: str = "mid", seed: int = 0) -> Path:
    """The checkpoint in MXFP4; `right` is how often a guess is right. Kept from run to run."""
    if path.exists():
        return path
    p = PRESETS[preset]
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        source = write(Path(scratch) / "release", preset, "BF16", seed)
        (source / "tokenizer.json").write_text(json.dumps(plain_tokenizer(p.vocab)))
        (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        tensors = Checkpoint.open(source).tensors
        for name, tensor in tensors.items():
            if name.endswith(WRITERS):
                with values(tensor) as array:
                    array *= QUIET
        teach(tensors, p.hidden, p.vocab - SPECIAL_TOKENS, right, np.random.default_rng(seed))
        convert_directory(source, path, recipe("mxfp4"), Parts(), Meter(0, 0, "converted", quiet=True))
    return path


def teach(tensors: Mapping[str, TensorInfo], hidden: int, vocab: int, right: float, rng: np.random.Generator) -> None:
    """Put the cycle into embeddings, output matrix and head."""
    after = np.empty(vocab, np.int64)
    cycle = rng.permutation(vocab)
    after[cycle] = np.roll(cycle, -1)
    guessed = after.copy()
    missed = rng.permutation(vocab)[: round((1 - right) * vocab)]
    guessed[missed] = after[np.roll(missed, 1)]
    half = hidden // 2
    embedded = rng.standard_normal((vocab, hidden)).astype(np.float32)
    embedded[:, half:] *= LOUD
    with values(tensors["model.language_model.embed_tokens.weight"]) as array:
        array[:vocab] = embedded
    with values(tensors["lm_head.weight"]) as array:
        array[guessed, :half] = embedded[:, :half] / np.sqrt(hidden)
        array[after, half:] = embedded[:, half:] / np.sqrt(hidden)
    with values(tensors["mtp.fc.weight"]) as array:  # [of the hidden state | of the last token]: the first half of that
        array[:] = 0
        array[:half, :half] = np.eye(half, dtype=np.float32)


@contextmanager
def values(tensor: TensorInfo) -> Iterator[np.ndarray]:
    """A bfloat16 tensor as float32, written back at the end."""
    with tensor.file.open("r+b") as file:
        file.seek(tensor.offset)
        bits = np.frombuffer(file.read(tensor.nbytes), np.uint16).astype(np.uint32) << 16
        array = bits.view(np.float32).reshape(tensor.shape)
        yield array
        file.seek(tensor.offset)
        file.write(encode(array, "BF16"))

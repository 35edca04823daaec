"""Which model this is: a fingerprint of its files that another revision, fine-tune or packing does not have."""

import hashlib
from pathlib import Path

from ..errors import CheckpointError

SAMPLES, SAMPLE = 5, 16 << 10  # places in each file of weights that are read, and bytes there
NAMED = ("config.json", "tokenizer.json")


def fingerprint(*paths: Path) -> str:
    """16 hexadecimal digits for a model directory, or for files of weights.

    Of config and tokenizer every byte counts; of the weights their files' names and sizes, their headers, and samples:
    training moves every matrix, and hashing 200 GB would take minutes.
    """
    digest = hashlib.blake2b(digest_size=8)
    directories = [path for path in paths if path.is_dir()]
    named = [path / name for path in directories for name in NAMED if (path / name).exists()]
    weights = [file for path in directories for file in sorted(path.glob("*.safetensors*"))]
    try:
        for file in named:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        for file in [*weights, *(path for path in paths if path not in directories)]:
            with file.open("rb") as data:
                size = file.stat().st_size
                digest.update(f"{file.name}\0{size}\0".encode())
                for number in range(SAMPLES):
                    data.seek(max(0, size - SAMPLE) * number // (SAMPLES - 1))
                    digest.update(data.read(SAMPLE))
    except OSError as error:
        raise CheckpointError(f"{paths[0]} cannot be read: {error.strerror}") from error
    return digest.hexdigest()

"""A tiny checkpoint, released and packed, and a source whose disk fails when told to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import FaultyReader
from make_checkpoint import write
from pack_checkpoint import pack

from qwen35_local.checkpoint.files import Checkpoint
from qwen35_local.checkpoint.names import canonical
from qwen35_local.experts.layout import LayerLayout, layer_layout
from qwen35_local.experts.source import Source


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("released"), "tiny", "F32")


@pytest.fixture(scope="session")
def packed(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(released, tmp_path_factory.mktemp("packed"), "mxfp4")


@pytest.fixture(scope="session")
def layout(packed: Path) -> LayerLayout:
    tensors = {canonical(name): tensor for name, tensor in Checkpoint.open(packed).tensors.items()}
    return layer_layout(tensors, "layers.2.mlp", 16)


@pytest.fixture
def reader() -> FaultyReader:
    return FaultyReader()


@pytest.fixture
def source(reader: FaultyReader) -> Iterator[Source]:
    source = Source(workers=4, reader=reader)
    yield source
    source.close()

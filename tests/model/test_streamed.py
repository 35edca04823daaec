"""Streamed experts give the bits of resident ones: at every budget, cold or warm, looked ahead for, after faults."""

import errno
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from faults import FaultyReader
from hypothesis import given, settings
from hypothesis import strategies as st
from make_checkpoint import write
from pack_checkpoint import pack
from tiny import load, opened

from qwen35_local.errors import ExpertReadError
from qwen35_local.experts.governor import Governor
from qwen35_local.experts.source import Source
from qwen35_local.experts.store import open_store
from qwen35_local.experts.store import pack as pack_experts
from qwen35_local.model.qwen35 import Layer, Qwen35, drained
from qwen35_local.model.stream import ExpertStream

KINDS = [
    ("F32", "mxfp4", "switch_mlp"),
    ("BF16", "none", "fused"),
    *(
        pytest.param(*kind, marks=pytest.mark.slow)
        for kind in (
            ("F32", "none", "fused"),
            ("F32", "none", "single"),
            ("BF16", "mxfp4", "single"),
            ("BF16", "affine4", "switch_mlp"),
            ("F32", "affine8", "fused"),
            ("F32", "nvfp4", "switch_mlp"),
            ("F32", "mxfp8", "fused"),
        )
    ),
]
PIECES = [20, 8, 1, 9, 1, 1]
IDS = np.random.default_rng(0).integers(0, 600, 4096)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    root, made = tmp_path_factory.mktemp("streamed"), {}

    def checkpoint(dtype: str = "F32", mode: str = "mxfp4", layout: str = "switch_mlp") -> Path:
        if dtype not in made:
            made[dtype] = write(root / dtype, "tiny", dtype)
        if (dtype, mode, layout) not in made:
            made[dtype, mode, layout] = pack(made[dtype], root / f"{dtype}-{mode}-{layout}", mode, layout)  # pyright: ignore[reportArgumentType]
        return made[dtype, mode, layout]

    return checkpoint


@contextmanager
def streamed(
    path: Path,
    slots: int,
    scratch: int = 4,
    lookahead: int = 0,
    direct: bool = False,
    source: Source | None = None,
    packed: bool = False,
) -> Iterator[tuple[Qwen35, ExpertStream]]:
    weights, config = opened(path)
    layouts = open_store(path / "experts") if packed else weights.expert_layouts(config.text)
    source = source or Source(direct, workers=3)
    stream = ExpertStream(layouts, [slots] * len(layouts), scratch, source, config.text, lookahead)
    stream.fill()
    yield Qwen35(weights, config.text, stream.experts), stream
    stream.close()


def logits_of(model: Qwen35, pieces: Sequence[int], ids: np.ndarray = IDS) -> np.ndarray:
    state, start, parts = model.new_state(), 0, []
    for length in pieces:
        hidden = model(mx.array(ids[None, start : start + length]), state)
        parts.append(np.array(model.logits(hidden))[0])
        start += length
    return np.concatenate(parts)


@pytest.mark.parametrize(("dtype", "mode", "layout"), KINDS)
def test_every_budget_gives_the_same_bits(checkpoint, dtype, mode, layout):
    path = checkpoint(dtype, mode, layout)
    wanted = logits_of(load(path), PIECES)
    for slots, lookahead, direct in ((16, 0, False), (8, 2, True), (4, 0, False), (1, 2, True)):
        with streamed(path, slots, 4, lookahead, direct) as (model, _):
            assert np.array_equal(logits_of(model, PIECES), wanted), f"cold, {slots} slots"
            assert np.array_equal(logits_of(model, PIECES), wanted), f"warm, {slots} slots"


@pytest.fixture(scope="module")
def with_store(checkpoint) -> Path:
    path = checkpoint()
    weights, config = opened(path)
    list(pack_experts(weights.expert_layouts(config.text), path / "experts"))
    return path


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 16),
    st.integers(4, 16),
    st.integers(0, 3),
    st.lists(st.integers(1, 15), min_size=1, max_size=5),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
)
def test_random_routing_budgets_pieces_and_places(with_store, slots, scratch, lookahead, pieces, seed, packed, direct):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 600, 80)
    wanted = logits_of(load(with_store), pieces, ids)
    with streamed(with_store, slots, scratch, lookahead, direct, packed=packed) as (model, stream):
        for bank in stream.banks:  # as if other prompts had been here before
            bank.heat[:] = rng.exponential(size=16)
        assert np.array_equal(logits_of(model, pieces, ids), wanted)


def test_a_long_pass_equals_short_ones_and_reads_each_expert_once(checkpoint):
    """640 tokens layer by layer, marks in the middle, against blocks of 512: the same bits from resident experts and
    streamed ones, for less than one reading of the file."""
    path, marks = checkpoint(), (70, 600)
    resident = load(path)
    wanted = logits_of(resident, [70, 512, 18, 40])
    reference = resident.new_state()
    resident(mx.array(IDS[None, :70]), reference)
    for model_of in (lambda: streamed(path, 2), lambda: streamed(path, 16)):
        with model_of() as (model, stream):
            read = stream.source.counters.bytes
            state = model.new_state()
            blocks, snapshots = drained(model.run(mx.array(IDS[None, :640]), state, marks))
            assert [block.shape[1] for block in blocks] == [70, 512, 18, 40]
            logits = [np.array(model.logits(model.norm(block)))[0] for block in blocks]
            assert np.array_equal(np.concatenate(logits), wanted)
            assert stream.source.counters.bytes - read <= sum(bank.layout.nbytes for bank in stream.banks)
            assert [snapshot.tokens for snapshot in snapshots] == [70, 600]
            for ours, theirs in zip(snapshots[0].recurrent, reference.snapshot().recurrent, strict=True):
                assert mx.array_equal(ours.delta, theirs.delta)
                assert mx.array_equal(ours.conv, theirs.conv)
            # A state put back from the snapshot goes on as if the rest had never been.
            state.restore(snapshots[1])
            again = model(mx.array(IDS[None, 600:640]), state)
            assert np.array_equal(np.array(model.logits(again))[0], wanted[600:])


def test_the_hottest_stay_after_a_sweep(checkpoint):
    with streamed(checkpoint(), 6) as (model, stream):
        logits_of(model, [300])
        for bank in stream.banks:
            coldest_kept = bank.heat[bank.slot_of >= 0].min()
            assert (bank.slot_of >= 0).sum() == 6
            assert not bank.slots.readers, "what a sweep computed is not kept"
            assert (bank.heat[bank.slot_of < 0] <= coldest_kept + 1e-9).all()


def test_all_slots_means_no_reads_and_no_waits(checkpoint):
    with streamed(checkpoint(), 16) as (model, stream):
        read = stream.source.counters.bytes
        state = model.new_state()
        hidden = model(mx.array(IDS[None, :20]), state)  # a graph: nothing may look at an id
        assert stream.source.counters.bytes == read
        assert all(bank.counters.misses == 0 and not bank.slots.readers for bank in stream.banks)
        mx.eval(hidden)


def test_the_likeliest_are_guessed_first(checkpoint):
    """Two of a layer are read ahead, so the order matters."""
    model = load(checkpoint())
    layer, h = model.layers[3], mx.random.normal((1, 1, 128), key=mx.random.key(1))
    logits = np.array(layer.mlp.router.linear(layer.post_attention_layernorm(h)))[0, 0]
    guessed = np.array(layer.experts_of(h)).tolist()
    assert guessed == np.argsort(-logits).tolist()[:4] != sorted(guessed)


def test_memory_given_back_and_taken_again_changes_no_bit(checkpoint):
    """The governor resizes banks between passes, from complete to a few slots and back."""
    path = checkpoint()
    wanted = logits_of(load(path), [10, 1, 1])
    shares = iter([1.0, 0.5, 0.2, 0.2, 0.5, 0.75, 1.0, 1.0, *[1.0] * 60])

    class Scripted(Governor):
        def share(self) -> float:
            return next(shares)

    weights, config = opened(path)
    layouts = weights.expert_layouts(config.text)
    stream = ExpertStream(layouts, [16, 8] * 4, 4, Source(workers=3), config.text, 2, elastic=Scripted)
    model, most = Qwen35(weights, config.text, stream.experts), stream.nbytes
    stream.fill()
    sizes = []
    for _ in range(14):
        stream.breathe()
        sizes.append(stream.nbytes)
        assert np.array_equal(logits_of(model, [10, 1, 1]), wanted)
    scratch = most - sum([16, 8] * 4) * layouts[0].expert_nbytes
    assert sizes[0] == sizes[-1] == most
    assert sizes[1] - scratch == sum([8, 4] * 4) * layouts[0].expert_nbytes, "half at once"
    assert sizes[2] - scratch == sum([3, 1] * 4) * layouts[0].expert_nbytes
    grown = [b - a for a, b in itertools.pairwise(sizes[3:])]
    assert all(0 <= step <= 13 * layouts[0].expert_nbytes for step in grown), "a layer at a time"
    stream.close()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_next_router_is_asked_only_while_guesses_are_wanted(checkpoint, monkeypatch, wanted):
    asked, experts_of = [], Layer.experts_of
    monkeypatch.setattr(Layer, "experts_of", lambda layer, h: asked.append(layer) or experts_of(layer, h))
    with streamed(checkpoint(), 4, lookahead=2) as (model, stream):
        monkeypatch.setattr(stream.lookahead, "wanted", lambda bank: wanted)
        logits_of(model, [20, 1, 1])
        assert asked == (model.layers[1:] * 2 if wanted else [])


@pytest.mark.parametrize(("piece", "slots"), [(1, 5), (20, 1), (20, 12)])
def test_a_failing_disk_never_gives_a_wrong_token(checkpoint, slots, piece):
    """Every n-th read fails for good: the pass raises, and the next one, on a new state, is right."""
    path, pieces = checkpoint(), [piece, 1, 1]
    wanted = logits_of(load(path), pieces)
    for every in (7, 200):
        reader, count = FaultyReader(), iter(range(10**9))
        with streamed(path, slots, lookahead=2, source=Source(workers=3, reader=reader)) as (model, _):
            reader.fault = lambda views, offset, every=every, count=count: (
                OSError(errno.EIO, "Input/output error") if next(count) % every < 2 else None
            )
            failures = 0
            for _ in range(3):
                try:
                    assert np.array_equal(logits_of(model, pieces), wanted)
                except ExpertReadError:
                    failures += 1
            assert failures or every == 200
            reader.fault = lambda views, offset: None
            assert np.array_equal(logits_of(model, pieces), wanted)

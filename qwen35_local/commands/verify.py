"""`qwen35 verify MODEL`: hashes, headers, tensors against config, tokenizer, one forward pass."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..backends import gguf_of
from ..checkpoint.locate import find_model
from ..engine import ChatRequest
from ..errors import BackendUnavailable, CheckpointError, MemoryPlanError, Qwen35Error
from ..gguf.check import tensor_problems
from ..gguf.header import read_header
from ..gguf.model import GgufModel, parts_of
from ..hub.known import Known, known_hashes, known_hashes_of
from ..hub.progress import Meter, counted
from ..hub.verify import Finding, check_files, check_tensors
from .layout import labelled

MARK = {True: "ok", False: "FAILED", None: "skipped"}
QUESTION, ANSWER = "What is 2 + 2?", "4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", default="miniature", help="a directory, a GGUF file, a cached repository or 'miniature'"
    )
    parser.add_argument("--no-forward", action="store_true", help="do not load the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    findings = []
    for finding in checks(args.model, not args.no_forward, quiet=args.json):
        findings.append(finding)
        if not args.json:
            print("\n".join(labelled([(f"{finding.check:9} {MARK[finding.ok]:7}", finding.detail)])), flush=True)
    good = all(finding.ok is not False for finding in findings)
    if args.json:
        rows = [{"check": f.check, "ok": f.ok, "detail": f.detail} for f in findings]
        print(json.dumps({"model": args.model, "ok": good, "checks": rows}))
    return 0 if good else 1


def checks(name: str, forward: bool, quiet: bool) -> Iterator[Finding]:
    """One after the other, cheap ones last but for the forward pass, which needs all the others to be good."""
    gguf = gguf_of(name)
    try:
        if gguf is None:
            path = find_model(name)
            yield from hashes(path, known_hashes(path), quiet)
            yield from check_tensors(path)
        elif Path(name).suffix == ".gguf":
            yield from hashes(*known_hashes_of(parts_of(gguf)), quiet)
            yield from check_gguf(gguf, ())
        else:
            path = find_model(name)
            yield from hashes(path, known_hashes(path), quiet)
            yield from check_gguf(gguf, sorted(path.rglob("mmproj*.gguf")))
    except CheckpointError as error:
        yield Finding("headers", False, str(error))
        return
    if forward:
        yield _forward(name)


def hashes(path: Path, known: Known | None, quiet: bool) -> list[Finding]:
    entries = known.files.values() if known else ()
    meter = Meter(sum(entry.size for entry in entries), len(entries), "hashed", quiet=quiet)
    try:
        return check_files(path, known, meter.add)
    finally:
        meter.close()


def check_gguf(path: Path, projectors: Sequence[Path]) -> Iterator[Finding]:
    """Headers of all parts, then every tensor that the metadata asks for. Raises what opening the file would raise."""
    model = GgufModel.open(path)
    for projector in projectors:
        read_header(projector)
    also = f" and {len(projectors)} of a vision tower" if projectors else ""
    yield Finding(
        "headers",
        True,
        f"{len(model.tensors)} tensors in {counted(len(model.files), 'file')}{also}, without gap or cut",
    )
    problems = list(tensor_problems(model))
    yield from (Finding("tensors", False, problem) for problem in problems[:20])
    if not problems:
        yield Finding("tensors", True, "every tensor that the metadata asks for is there, in its shape")


def _forward(name: str) -> Finding:
    """Load it as every command does, and look at the logits of one question and its answer."""
    from .. import open as open_engine

    try:
        with open_engine(name) as engine:
            asked = list(engine.prompt(ChatRequest.of(QUESTION, thinking=False)))
            ids = asked + engine.tokenize(ANSWER)
            logits = engine.logits(ids)
    except (BackendUnavailable, MemoryPlanError) as error:  # says nothing of the files
        return Finding("forward", None, str(error))
    except Qwen35Error as error:
        return Finding("forward", False, str(error))
    return judged(ids, len(asked), logits)


def judged(ids: Sequence[int], start: int, logits: np.ndarray) -> Finding:
    """What float32 logits [T, V] after each of T tokens say of a model: those from `start` on are an answer that any
    chat model gives, so one that finds it less likely than chance has other weights or another tokenizer."""
    if not np.isfinite(logits).all():
        return Finding("forward", False, f"{np.count_nonzero(~np.isfinite(logits))} logits are NaN or infinite")
    if logits.std() < 1e-6:
        return Finding("forward", False, "all logits are equal")
    told = logits[start - 1 : -1]
    shifted = told - told.max(-1, keepdims=True)
    likely = np.take_along_axis(shifted, np.array(ids[start:])[:, None], 1)[:, 0]
    loss, guess = float((np.log(np.exp(shifted).sum(-1)) - likely).mean()), float(np.log(logits.shape[-1]))
    said = f"{QUESTION!r} is answered with {ANSWER!r} at {loss:.2f} nats"
    if loss >= guess:
        return Finding("forward", False, f"{said}, no better than guessing ({guess:.2f}): wrong weights or tokenizer")
    return Finding("forward", True, f"{len(ids)} tokens read, all logits finite, {said}")

"""`qwen35 verify MODEL`: hashes, headers, tensors against config, tokenizer, one forward pass."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..checkpoint.locate import find_model
from ..errors import Qwen35Error
from ..hub.manifest import Manifest
from ..hub.progress import Meter
from ..hub.verify import Finding, check_files, check_tensors

MARK = {True: "ok", False: "FAILED", None: "skipped"}
PROBE = "The quick brown fox jumps over the lazy dog."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="miniature", help="a directory, a cached repository or 'miniature'")
    parser.add_argument("--no-forward", action="store_true", help="do not load the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    path = find_model(args.model)
    findings = []
    for finding in checks(path, args.model, not args.no_forward, quiet=args.json):
        findings.append(finding)
        if not args.json:
            print(f"{finding.check:9} {MARK[finding.ok]:8} {finding.detail}", flush=True)
    good = all(finding.ok is not False for finding in findings)
    if args.json:
        rows = [{"check": f.check, "ok": f.ok, "detail": f.detail} for f in findings]
        print(json.dumps({"path": str(path), "ok": good, "checks": rows}))
    return 0 if good else 1


def checks(path: Path, name: str, forward: bool, quiet: bool) -> Iterator[Finding]:
    manifest = Manifest.read(path)
    total = sum(entry.size for entry in manifest.files.values()) if manifest else 0
    meter = Meter(total, len(manifest.files) if manifest else 0, "hashed", quiet=quiet)
    hashes = check_files(path, meter.add)
    meter.close()
    yield from hashes
    if any(path.rglob("*.gguf")) and not any(path.glob("*.safetensors")):
        yield Finding("tensors", None, "GGUF: llama.cpp checks its tensors when it opens them")
    else:
        try:
            yield from check_tensors(path)
        except Qwen35Error as error:
            yield Finding("headers", False, str(error))
            return
    if forward:
        yield _forward(name)


def _forward(name: str) -> Finding:
    """Load it as every command does, and look at the logits of one sentence."""
    from .. import open as open_engine

    try:
        with open_engine(name) as engine:
            ids = engine.tokenize(PROBE)
            read = getattr(engine, "logits", None)
            if read is None:
                done = engine.complete(PROBE, max_tokens=1, temperature=0).done
                return Finding("forward", True, f"{done.usage.prompt_tokens} tokens read, one written")
            logits = read(ids)
    except Qwen35Error as error:
        return Finding("forward", False, str(error))
    if not np.isfinite(logits).all():
        return Finding("forward", False, f"{np.count_nonzero(~np.isfinite(logits))} logits are NaN or infinite")
    if logits.std() < 1e-6:
        return Finding("forward", False, "all logits are equal")
    likely = np.take_along_axis(logits[:-1], np.array(ids[1:])[:, None], 1)[:, 0]
    loss = float(
        (np.log(np.exp(logits[:-1] - logits[:-1].max(-1, keepdims=True)).sum(-1)) + logits[:-1].max(-1) - likely).mean()
    )
    return Finding("forward", True, f"{len(ids)} tokens read, all logits finite, {loss:.2f} nats a token on a sentence")

"""`qwen35 bench`: one model on this machine, as a report ready to paste: every number with what it was measured on."""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from .. import __version__
from .. import open as open_engine
from ..checkpoint.files import Checkpoint
from ..checkpoint.locate import find_model
from ..errors import Qwen35Error, UsageError
from ..hub.machine import this_machine
from ..hub.progress import size
from ..model.config import ModelConfig
from .options import MODEL_HELP

TEXT = "The expedition kept a careful record of every stone, bird and change of weather along the northern coast. "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="miniature", help=MODEL_HELP.format("%(default)s"))
    parser.add_argument(
        "--prompts", default="128,512,2048", metavar="N,N", help="prompt lengths (default: %(default)s)"
    )
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded after each (default: %(default)s)")
    parser.add_argument("--memory", metavar="SIZE", help="most to use, as 24GB")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    lengths = _lengths(args.prompts)
    if args.tokens < 1:
        raise UsageError(f"--tokens must be at least 1, not {args.tokens}", "tokens")
    report = measure(args.model, lengths, args.tokens, args.memory)
    print(json.dumps(report, indent=1) if args.json else "\n".join(markdown(report)))
    return 0


def _lengths(text: str) -> list[int]:
    try:
        lengths = [int(word) for word in text.split(",")]
    except ValueError:
        lengths = [0]
    if min(lengths) < 1:
        raise UsageError(f"--prompts must be whole numbers above 0, as 128,512, not {text!r}", "prompts")
    return lengths


def measure(model: str, lengths: Sequence[int], tokens: int, memory: str | None) -> dict[str, Any]:
    """Each length twice, from an empty state: cold is the first time that the text is read, warm the second."""
    options: dict[str, Any] = {} if memory is None else {"memory": memory}
    began = time.perf_counter()
    with open_engine(model, **options) as engine:
        loaded = time.perf_counter() - began
        text = engine.tokenize(TEXT)
        rows = []
        for length in lengths:
            if length + tokens > engine.info.context:
                continue
            ids = (text * (length // len(text) + 1))[:length]
            for run_name in ("cold", "warm"):
                rows.append({"prompt": length, "run": run_name} | _timed(engine, ids, tokens))
        info = engine.info
        return {
            "machine": str(this_machine()),
            "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            "qwen35": __version__,
            "model": info.model,
            "experts_per_token": _experts_per_token(model),
            "backend": f"{info.backend} on {info.device}",
            "quantization": info.quantization,
            "weights_bytes": info.memory,
            "load_seconds": loaded,
            "tokens": tokens,
            "rows": rows,
            "peak_rss_bytes": _peak_rss(),
        }


def _experts_per_token(model: str) -> str:
    try:
        text = ModelConfig.from_dict(Checkpoint.open(find_model(model)).config).text
        return f"{text.num_experts_per_tok} of {text.num_experts}"
    except Qwen35Error:  # GGUF: the file decides, and we never change it
        return "as in the file"


def _timed(engine: Any, ids: list[int], tokens: int) -> dict[str, Any]:
    """Seconds of reading `ids` into an empty state and of `tokens` greedy steps after it."""
    session = engine.open_session()
    try:
        start = time.perf_counter()
        for _ in session.sync(ids):
            pass
        best = int(session.logits().argmax())
        before = _experts(session)
        first = time.perf_counter()
        for _ in range(tokens):
            session.advance(best)
            best = int(session.logits().argmax())
        end = time.perf_counter()
        found: dict[str, Any] = {
            "prefill_tps": len(ids) / (first - start),
            "decode_tps": tokens / (end - first),
            "first_token_seconds": first - start,
        }
        if after := _experts(session):
            read = (after["bytes_read"] - before["bytes_read"]) / tokens
            found["experts"] = {"hit rate": after["hit_rate"], "GB/token": read / 1e9, "GB/s": after["read_gbps"]}
        return found
    finally:
        session.close()


def _experts(session: Any) -> dict[str, Any]:
    """What streaming has done since the prompt began; empty if every expert is in memory."""
    return (session.stats() if hasattr(session, "stats") else {}).get("experts") or {}


def _peak_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def markdown(report: dict[str, Any]) -> list[str]:
    """A table and what it was measured on."""
    columns = sorted({name for row in report["rows"] for name in row.get("experts", {})})
    head = ["prompt", "run", "prefill tok/s", "decode tok/s", "first token s", *columns]
    out = [
        f"**{report['model']}**, {report['quantization']}, K = {report['experts_per_token']}, {report['backend']}",
        f"{report['machine']}; {report['system']}; qwen35 {report['qwen35']}",
        f"loaded in {report['load_seconds']:.1f} s, {size(report['weights_bytes'])} of weights in memory, "
        f"peak RSS {size(report['peak_rss_bytes'])}, {report['tokens']} tokens decoded greedily after each prompt",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
    ]
    for row in report["rows"]:
        cells = [str(row["prompt"]), row["run"]]
        cells += [f"{row[name]:.2f}" for name in ("prefill_tps", "decode_tps", "first_token_seconds")]
        cells += [f"{row.get('experts', {}).get(name, 0):.4g}" for name in columns]
        out.append("| " + " | ".join(cells) + " |")
    return out

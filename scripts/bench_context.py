"""Long contexts in numbers: `python scripts/bench_context.py [SECTION]... [--quick] [--json FILE] [--directory DIR]`.

decode   tokens per second from 1K to 256K tokens: three DeltaNet layers to one of attention, against attention in
         every layer; same sizes, same code, from synthetic states. The seeds' headline (8.6x at 32K, 19x at 256K)
         compares with another, larger model; the layers alone can give 4x at most.
prefill  milliseconds of a prompt token at those lengths, in the same run
memory   bytes of keys and values per token at the released geometry, as allocated, by bits
resume   a 32K session of the released geometry: reading its file alone, and resuming from it
kv       what keys and values in fewer bits cost: logits of the miniature, against those as computed
needle   codes in 2K to 128K tokens of filler (the miniature was taught with 200), by length, depth and bits
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

import qwen35_local  # noqa: E402
from qwen35_local.backends.mlx import MlxEngine  # noqa: E402
from scripts.context import curves, needles, quality, resume  # noqa: E402

LENGTHS = (1024, 8192, 32768, 131072, 262144)
SEEDS = {32768: "8.6", 262144: "19"}  # the seeds' headline at these lengths, against another, larger model
NEEDLES = (2048, 8192, 32768, 65536, 131072)


def speed(directory: Path, quick: bool, prefill: bool) -> dict[str, Any]:
    found = curves.models(directory)
    print("parameters: " + ", ".join(f"{kind} {count / 1e6:.0f}M" for kind, (_, count) in found.items()))
    print(
        f"{'tokens':>8} {'hybrid tok/s':>13} {'attention tok/s':>16} {'ratio':>7} {'seeds':>6}"
        + " prompt ms a token" * prefill
    )
    rows = {}
    for length, row in curves.curves(found, LENGTHS[:3] if quick else LENGTHS, prefill):
        rows[str(length)] = row
        prompt = f" {row['prompt ms']:17.1f}" if prefill else ""
        print(
            f"{length:>8} {row['hybrid']:13.2f} {row['attention']:16.2f} {row['ratio']:7.2f} "
            f"{SEEDS.get(length, ''):>6}{prompt}",
            flush=True,
        )
    return rows


def memory(directory: Path, quick: bool) -> dict[str, Any]:
    rows = curves.memory()
    for bits, row in rows.items():
        print(f"{bits:>3} bits: " + ", ".join(f"{name} {value:,.2f}" for name, value in row.items()))
    return rows


def resuming(directory: Path, quick: bool) -> dict[str, Any]:
    row = resume.measured(directory, 4096 if quick else 32768, 3 if quick else 7)
    print(
        f"{row['tokens']} tokens, {row['bytes'] / 1e9:.3f} GB: written in {row['write s']:.2f} s, read alone "
        f"{row['read s']:.2f} s, first token {row['resume s']:.2f} s, ratio {row['ratio']:.3f}"
    )
    return row


def kv(directory: Path, quick: bool) -> dict[str, Any]:
    rows = quality.table(1 if quick else 3)
    print(f"{'bits':>12} {'bytes a token':>14} {'relative error':>15} {'divergence':>11} {'same first':>11}")
    for bits, row in rows.items():
        print(
            f"{bits:>12} {row['bytes per token']:>14} {row['relative']:15.2e} {row['divergence']:11.2e} "
            f"{row['same']:11.2%}"
        )
    return rows


def needle(directory: Path, quick: bool) -> dict[str, Any]:
    """By bits and length, the share of codes found at each depth."""
    rows: dict[str, Any] = {}
    for bits in (None, 8, 4):
        lengths = NEEDLES[:1] if quick else NEEDLES if bits is None else NEEDLES[:3]
        for length in lengths:
            with qwen35_local.open("miniature", context=length + 1024, kv_bits=bits) as engine:
                assert isinstance(engine, MlxEngine)
                texts = 1 if quick or length > 8192 else 4
                found = [one for seed in range(texts) for one in needles.asked(engine, length, seed)]
                stretch = engine.info.yarn
            right = sum(one.right for one in found)
            depths = {f"{d:.0%}": sum(o.right for o in found if o.depth == d) / texts for d in needles.DEPTHS}
            name = f"{bits or 'as computed'}, {length}"
            rows[name] = {"right": right, "asked": len(found), "depths": depths, "yarn": stretch}
            shown = ", ".join(f"{depth} {share:.2f}" for depth, share in depths.items())
            print(f"{name:>20}: {right} of {len(found)} right (YaRN {stretch:g}); {shown}", flush=True)
    return rows


SECTIONS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "decode": lambda directory, quick: speed(directory, quick, prefill=False),
    "prefill": lambda directory, quick: speed(directory, quick, prefill=True),
    "memory": memory,
    "resume": resuming,
    "kv": kv,
    "needle": needle,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--directory", type=Path, help="where models are made and kept (default: a temporary one)")
    args = parser.parse_args()
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"no section {sorted(unknown)[0]}: use {', '.join(SECTIONS)}")
    results: dict[str, Any] = {"machine": platform.platform(), "processor": platform.processor()}
    with tempfile.TemporaryDirectory() as scratch:
        directory = args.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        for name in args.sections or [n for n in SECTIONS if n != "decode"]:  # prefill has its rows
            print(f"\n{name}", flush=True)
            results[name] = SECTIONS[name](directory, args.quick)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""What each kernel moves and dispatches, beside MLX's own operations. Counted, so the same on every machine.

    python scripts/bench_kernels.py [--quick] [--json FILE] [--nvidia | --errors]

"least" is the bytes an operation cannot avoid: every weight, state and activation in use read or written once.
"x least" is what comes from memory when buffers up to 2 MB stay in the cache that all cores share, "x asked" what the
threadgroups ask for, that cache included.
Ours are counted by running the shipped Metal text on the CPU runner of tests/metal_cpu; so are MLX's big kernels (its
own headers). MLX's small operations are counted from the graph, fused wherever a compiler could. On Metal each
candidate is timed too, beside a copy's bandwidth; with --nvidia the same text runs on an NVIDIA GPU (tests/metal_cuda).
--errors shows instead how far every kernel is from float64, on the CPU runner.
"""

import argparse
import datetime
import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kernel_bench import errors, times  # noqa: E402
from kernel_bench.counts import Row, experts, gates, prefill, recurrence, rollback, routing, table  # noqa: E402


def counted(quick: bool) -> list[Row]:
    """The table: every kernel of ours and its counterpart, at the shapes of the 397B model unless `quick`."""
    H, I, heads = (1024, 512, (4, 16)) if quick else (4096, 1024, (16, 64))  # noqa: E741
    rows = [*routing(1, 512, 10), *routing(8, 512, 10)]
    for mode in ("mxfp4",) if quick else ("mxfp4", "nvfp4", "affine"):
        for M in (1, 4, 8) if mode == "mxfp4" else (1,):
            rows += experts(mode, M, 10, 32, H, I)
    rows += [prefill(n, 18, 512, 512) for n in (16, 40)]
    for T in (1, 64):
        rows += gates(T, *heads, 128)
    for T in (1, 4, 64):
        rows += recurrence(T, *heads, 128)
    return rows + rollback(4, *heads, 128)


def on_nvidia(quick: bool) -> list[dict[str, Any]]:
    from metal_cuda.device import DriverError
    from metal_cuda.measure import measured

    try:
        return measured(quick)
    except DriverError as error:
        sys.exit(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes: a minute less, the ratios a little worse")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and ratios there too")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--nvidia", action="store_true", help="on an NVIDIA GPU instead: errors and times")
    instead.add_argument("--errors", action="store_true", help="instead: how far every kernel is from float64")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": platform.machine(),
        "mlx": version("mlx"),
        "quick": options.quick,
    }
    if options.errors:
        result["errors"] = errors.every_type()
        print(errors.table(result["errors"]))
    elif options.nvidia:
        result["rows"] = on_nvidia(options.quick)
        print("\n".join(str(row) for row in result["rows"]))
    else:
        rows = counted(options.quick)
        print(table(rows))
        result["ratios"] = {f"{r.operation} {r.who}": round(r.ratio, 4) for r in rows}
        result["rows"] = [asdict(r) for r in rows]
        if mx.metal.is_available():
            found = times.timed()
            result["times"] = [asdict(row) for row in found]
            print(f"\n{times.table(found)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

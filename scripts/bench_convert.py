"""Converting a release: ours beside `mlx_lm convert`, in turn, each in a process of its own.

    python scripts/bench_convert.py [--quick] [--json FILE] [--peer PYTHON] [--real-size]

GB/s of bfloat16 read, and the peak memory of the process. `--peer` is a Python that has mlx-lm. Ratios are ours over
theirs, of the best round each.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from make_checkpoint import PRESETS, RELEASED, write, write_skeleton

ROOT = Path(__file__).resolve().parents[1]
MODES = {"mxfp4": ("mxfp4", 4, 32), "affine4": ("affine", 4, 64)}


@dataclass
class Run:
    """One conversion. `seconds` includes the start of the process, as a user waits for it; `cpu_seconds` are those of
    all its threads, which a busy machine changes less."""

    who: str
    mode: str
    seconds: float
    cpu_seconds: float
    gigabytes_per_second: float
    peak_rss_mib: float


def timed(who: str, mode: str, command: list[str], nbytes: int) -> Run:
    """Run to the end; raises if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert process.stderr is not None
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{who} failed with {process.returncode}: {error[-2000:]}")
    seconds = time.perf_counter() - start
    rss = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return Run(who, mode, seconds, usage.ru_utime + usage.ru_stime, nbytes / seconds / 1e9, rss)


def ours(source: Path, out: Path, mode: str) -> list[str]:
    return [sys.executable, "-m", "qwen35_local.cli", "convert", str(source), str(out), "--quant", mode]


def theirs(python: str, source: Path, out: Path, mode: str) -> list[str]:
    q_mode, bits, group = MODES[mode]
    packing = ["-q", "--q-mode", q_mode, "--q-bits", str(bits), "--q-group-size", str(group)]
    return [python, "-m", "mlx_lm", "convert", "--hf-path", str(source), "--mlx-path", str(out), *packing]


def make_source(folder: Path, quick: bool) -> Path:
    """A random checkpoint. In a process of its own: on Linux a child's peak begins with what its parent held."""
    PRESETS["bench"] = replace(PRESETS["mid"], layers=4, experts=8) if quick else PRESETS["mid"]
    return write(folder / "source", "bench", "BF16", shards=4)


def side_by_side(args: argparse.Namespace, folder: Path) -> list[Run]:
    """Both on one random checkpoint, in turn."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        source = pool.apply(make_source, (folder, args.quick))
    out, runs = folder / "out", []
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "qwen35_local" / "miniature" / name, source)
    nbytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    for mode in args.modes.split(","):
        for _ in range(1 if args.quick else args.rounds):
            for who, command in (("ours", ours(source, out, mode)), ("mlx-lm", theirs(args.peer, source, out, mode))):
                runs.append(timed(who, mode, command, nbytes))
                shutil.rmtree(out)
    return runs


def at_real_size(folder: Path) -> tuple[Run, int]:
    """One shard of the 397B, 8.6 GB of zeros: what memory it takes, and the bytes of the expert tensor in it."""
    skeleton, source = write_skeleton(folder / "skeleton", RELEASED, 94), folder / "one"
    weight_map = json.loads((skeleton / "model.safetensors.index.json").read_text())["weight_map"]
    source.mkdir()
    for name in ("config.json", weight_map["model.language_model.layers.0.mlp.experts.gate_up_proj"]):
        shutil.move(skeleton / name, source / name)
    nbytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    run = timed("ours", "mxfp4", ours(source, folder / "out", "mxfp4"), nbytes)
    shutil.rmtree(folder / "out")
    return run, 2 * 512 * 2048 * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a checkpoint of 0.1 GB instead of 1.1 GB, one round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--peer", default=sys.executable, help="a Python with mlx-lm (default: this one)")
    parser.add_argument("--modes", default=",".join(MODES), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--real-size", action="store_true", help="instead: ours alone on one shard of the 397B")
    args = parser.parse_args()
    ratios, largest = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        if args.real_size:
            run, largest = at_real_size(Path(folder))
            runs = [run]
        else:
            runs = side_by_side(args, Path(folder))
    print(f"{'who':8}{'mode':10}{'seconds':>10}{'CPU':>10}{'GB/s in':>10}{'peak RSS MiB':>14}")
    for run in runs:
        speed = f"{run.seconds:10.1f}{run.cpu_seconds:10.1f}{run.gigabytes_per_second:10.3f}"
        print(f"{run.who:8}{run.mode:10}{speed}{run.peak_rss_mib:14.0f}")
    if args.real_size:
        print(f"the expert tensor: {largest / 2**20:.0f} MiB")
    else:
        best = {
            (who, mode): max(r.gigabytes_per_second for r in runs if (r.who, r.mode) == (who, mode))
            for mode in args.modes.split(",") for who in ("ours", "mlx-lm")
        }  # fmt: skip
        ratios = {mode: best["ours", mode] / best["mlx-lm", mode] for mode in args.modes.split(",")}
        print("ratios:", ", ".join(f"{mode} {ratio:.2f}x" for mode, ratio in ratios.items()))
    if args.json:
        args.json.write_text(json.dumps({"ratios": ratios, "runs": [asdict(run) for run in runs]}, indent=1) + "\n")


if __name__ == "__main__":
    main()

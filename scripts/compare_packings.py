"""What each packing costs, on the miniature: `qwen35 compare` of its bfloat16 release with conversions of it.

    python scripts/compare_packings.py [--quick] [--json FILE] [--quants mixed,mxfp4,nvfp4,affine4]

Judges the answers of held-out conversations (tests/golden/miniature_heldout.jsonl), without thinking or tools, and
prints the rows of the table in qwen35_local/hub/README.md.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from qwen35_local.commands.compare import chat_windows, compare
from qwen35_local.hub.place import occupied
from qwen35_local.hub.progress import Meter, size
from qwen35_local.hub.recipe import recipe
from qwen35_local.hub.store import Parts, convert_directory

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = ROOT / "tests" / "golden" / "miniature_heldout.jsonl"
ALL = 1 << 20  # tokens: no limit here


def plain(item: dict[str, Any]) -> bool:
    """One question in words alone."""
    words = all(isinstance(message["content"], str) for message in item["messages"])
    return words and not item["thinking"] and not item["tools"] and len(item["messages"]) < 3


def chats(step: int) -> Iterator[str]:
    """Every `step`-th plain conversation with its right answer, as compare takes them."""
    items = [json.loads(line) for line in HELD_OUT.read_text().splitlines()]
    for item in [item for item in items if plain(item)][::step]:
        answer = {"role": "assistant", "content": item["expected"]["content"]}
        yield json.dumps({"messages": [*item["messages"], answer]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the conversations instead of a quarter")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quants", default="mixed,mxfp4,nvfp4,affine4", help="default: %(default)s")
    args = parser.parse_args()
    text = "\n".join(chats(16 if args.quick else 4))
    rows: list[dict[str, Any]] = []
    print("| | on disk | perplexity | KL, nats a token | same first choice | same experts: mean | worst layer |")
    print("| --- " * 7 + "|", flush=True)
    with TemporaryDirectory() as folder:
        release = Path(folder) / "release"
        subprocess.run([sys.executable, "-m", "scripts.miniature.release_layout", release], cwd=ROOT, check=True)
        for quant in args.quants.split(","):
            target = Path(folder) / quant
            convert_directory(release, target, recipe(quant), Parts(), Meter(1, 1, "converted", quiet=True))
            found = compare(str(release), str(target), partial(chat_windows, text, ALL))
            rows.append(found | {"a": "release", "b": quant, "bytes": occupied(target)})
            print(line(rows[-1]), flush=True)
    print(f"\n{rows[0]['tokens']} tokens, perplexity of the release {rows[0]['perplexity_a']:.4f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def line(row: dict[str, Any]) -> str:
    """Of the table."""
    routers = row["routers"]
    worst = int(np.argmin(routers))
    return (
        f"| {row['b']} | {size(row['bytes'])} | {row['perplexity_b']:.4f} | {row['kl']:.2g} | {row['top1']:.2%} | "
        f"{np.mean(routers):.1%} | {routers[worst]:.1%} (layer {worst}) |"
    )


if __name__ == "__main__":
    main()

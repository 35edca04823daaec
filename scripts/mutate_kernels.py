"""Make every small mistake at every place of our Metal kernels and see who finds it (tests/kernel_cases/mutants.py).

    python scripts/mutate_kernels.py [FILE ...] [--show] [--journal FOLDER]

FILE is router_topk, delta_inputs, gated_delta or expert_mlp; by default all, one after the other: half an hour of one
core. Verdicts are kept as they come, so that a run that was ended goes on where it was. A file whose mutants are all
judged is recorded in tests/kernels/mutants, which the default suite holds against the kernels. --show prints the
record as the table in tests/metal_cpu/README.md, and runs nothing.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kernel_cases.mutants import CASES, Verdict, judged, mutants_of  # noqa: E402
from kernel_cases.tally import FOLDER, Tally, fingerprint, table  # noqa: E402


def tests_hash() -> str:
    """Of all that decides a verdict besides the kernel."""
    folders = ["metal_kernels", "tests/kernel_cases", "tests/metal_cpu"]
    files = sorted(p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc")
    kept = [p for p in files if p.suffix not in (".md", ".metal") and not p.name.startswith("test_")]
    kept = [p for p in kept if p.name not in ("equivalent.py", "tally.py")]
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in kept)).hexdigest()[:16]


def judge(file: str, journal: Path) -> Tally:
    """All mutants of a file; those in the journal are not judged again."""
    known = {}
    if journal.exists():
        known = {verdict.mutant: verdict for line in journal.read_text().splitlines() if (verdict := _parsed(line))}
    waiting = [mutant for mutant in mutants_of(file) if str(mutant) not in known]
    print(f"{file}: {len(mutants_of(file))} mutants, {len(waiting)} to judge; {journal}", flush=True)
    with journal.open("a") as lines:
        for verdict in judged(file, waiting):
            known[verdict.mutant] = verdict
            print(f"{file} {verdict.mutant}: {verdict.by or 'SURVIVES'} {verdict.said}", flush=True)
            lines.write(json.dumps(asdict(verdict)) + "\n")
            lines.flush()
    return Tally.of(file, [known[str(mutant)] for mutant in mutants_of(file)])


def _parsed(line: str) -> Verdict | None:
    try:
        return Verdict(**json.loads(line))
    except ValueError:  # the last line of a run that was killed
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="kernels to judge, by default all")
    parser.add_argument("--show", action="store_true", help="print the record as a table")
    parser.add_argument(
        "--journal", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER", help="where verdicts are kept"
    )
    options = parser.parse_args()
    if unknown := set(options.files) - set(CASES):
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(CASES)}")
    if not options.show:
        for file in options.files or CASES:
            tally = judge(file, options.journal / f"mutants.{file}.{fingerprint(file)}.{tests_hash()}.jsonl")
            tally.write()
            for mutant in tally.unexplained:
                print(f"{file}: found by nobody, explained by nobody: {mutant}")
    print(table([Tally.read(file) for file in CASES if (FOLDER / f"{file}.json").exists()]))


if __name__ == "__main__":
    main()

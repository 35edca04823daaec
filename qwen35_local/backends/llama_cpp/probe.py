"""Open a GGUF file in a child process first: where llama.cpp aborts on a bad file, only the child ends.

The child reads metadata and tensor table of the model and allocates nothing, so it costs a fraction of a second at any
size. A vision part, which has a gigabyte at most, it loads.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict

from ...errors import CheckpointError, Qwen35Error
from ...gguf.model import GgufModel
from ...gguf.vision import VisionPart
from .plan import Plan

TIMEOUT = 120  # seconds: a quarter of a million tokens of vocabulary take two


class Probe:
    """A check under way; `finish` waits for it. Start it, prepare what else is needed, then ask."""

    def __init__(self, model: GgufModel, plan: Plan, vision: VisionPart | None = None):
        self._name = model.path.name
        command = [sys.executable, "-m", __name__, str(model.path), json.dumps(asdict(plan))]
        command += [str(vision.path)] if vision is not None else []
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> None:
        """CheckpointError if the library cannot open the file, or dies of it."""
        try:
            out, err = self._child.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.cancel()
            raise CheckpointError(f"llama.cpp did not open {self._name} within {TIMEOUT} seconds") from None
        if self._child.returncode:
            # An assertion, after the path where the library was built.
            last = (err.strip().splitlines() or ["it gave no reason"])[-1].rpartition(": ")[2]
            raise CheckpointError(f"llama.cpp crashes on {self._name} (status {self._child.returncode}): {last}")
        if refusal := out.strip():
            raise CheckpointError(refusal)

    def cancel(self) -> None:
        self._child.kill()
        self._child.communicate()


def main() -> None:
    from pathlib import Path

    from .handle import Model
    from .library import load, load_mtmd
    from .projector import Projector

    os.environ["GGML_NO_BACKTRACE"] = "1"  # an abort's last line is then its reason
    path, plan, *vision = sys.argv[1:]
    try:
        model = Model(load(), GgufModel.open(Path(path)), Plan(**json.loads(plan)), allocate=False)
        for part in vision:
            Projector(load_mtmd(), Path(part), model, gpu=False).close()
        model.close()
    except Qwen35Error as error:
        print(error)


if __name__ == "__main__":
    main()

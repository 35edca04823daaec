"""Write tests/golden/gguf_tiny.json: what llama.cpp's own converter makes of the tiny checkpoint, tensor by tensor.

python scripts/make_gguf_golden.py DIR      DIR is a checkout of llama.cpp; needs the [oracle] extra

Each tensor is recorded as its shape and the SHA-256 of its float32 bytes; those that hold an exponential, which
libraries round differently, as their values. Nothing of the converter is copied: it is run.
"""

import argparse
import hashlib
import importlib
import json
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
from make_checkpoint import write

from qwen35_local.gguf.header import read_header

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "gguf_tiny.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path)
    parser.add_argument("--commit", required=True, help="which one the checkout is of, for the record")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = write(Path(directory) / "tiny", "tiny", "F32")
        out = Path(directory) / "tiny.gguf"
        run_converter(args.llama_cpp, checkpoint, out)
        tensors = {}
        for name, tensor in sorted(read_header(out).tensors.items()):
            data = np.fromfile(out, np.uint8, tensor.nbytes, offset=tensor.offset).tobytes()
            assert tensor.type.name == "F32", tensor
            exact = {"sha256": hashlib.sha256(data).hexdigest()}
            close = {"values": np.frombuffer(data, np.float32).tolist()}
            tensors[name] = {"shape": list(tensor.shape), **(close if name.endswith("ssm_a") else exact)}
    record = {"made_by": "scripts/make_gguf_golden.py", "llama.cpp": args.commit, "tensors": tensors}
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n")


def run_converter(llama_cpp: Path, checkpoint: Path, out: Path) -> None:
    """llama.cpp's convert_hf_to_gguf.py, but without a vocabulary: it refuses one that it has no hash of."""
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    model = importlib.import_module("conversion.qwen").Qwen3_5MoeTextModel
    model.set_vocab = lambda self: None
    sys.argv = ["convert_hf_to_gguf.py", str(checkpoint), "--outfile", str(out), "--outtype", "f32"]
    runpy.run_path(str(llama_cpp / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()

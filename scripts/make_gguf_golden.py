"""Write tests/golden/gguf_{tiny,mmproj}.json: what llama.cpp's own converter makes of the tiny checkpoint.

python scripts/make_gguf_golden.py DIR      DIR is a checkout of llama.cpp; needs the [oracle] extra

`tiny` is the language model, `mmproj` the vision part, with its metadata. Each tensor is recorded as its shape and the
SHA-256 of its float32 bytes; those that hold an exponential, which libraries round differently, as their values.
Nothing of the converter is copied: it is run.
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

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path)
    parser.add_argument("--commit", required=True, help="which one the checkout is of, for the record")
    args = parser.parse_args()
    for name, options in (("tiny", []), ("mmproj", ["--mmproj"])):
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = write(Path(directory) / "tiny", "tiny", "F32", vision=name == "mmproj")
            out = Path(directory) / "tiny.gguf"
            run_converter(args.llama_cpp, checkpoint, out, options)
            record = {"made_by": "scripts/make_gguf_golden.py", "llama.cpp": args.commit, **recorded(out)}
        (GOLDEN / f"gguf_{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def recorded(file: Path) -> dict:
    """What a file holds: its tensors, and of a vision part its metadata, too."""
    header, tensors = read_header(file), {}
    for name, tensor in sorted(header.tensors.items()):
        data = np.fromfile(file, np.uint8, tensor.nbytes, offset=tensor.offset).tobytes()
        assert tensor.type.name == "F32", tensor
        exact = {"sha256": hashlib.sha256(data).hexdigest()}
        close = {"values": np.frombuffer(data, np.float32).tolist()}
        tensors[name] = {"shape": list(tensor.shape), **(close if name.endswith("ssm_a") else exact)}
    clip = {key: value for key, value in header.metadata.items() if key.startswith("clip.")}
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in clip.items()}
    return {"tensors": tensors} | ({"metadata": plain} if plain else {})


def run_converter(llama_cpp: Path, checkpoint: Path, out: Path, options: list[str]) -> None:
    """llama.cpp's convert_hf_to_gguf.py, but without a vocabulary: it refuses one that it has no hash of."""
    if str(llama_cpp) not in sys.path:
        sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    model = importlib.import_module("conversion.qwen").Qwen3_5MoeTextModel
    model.set_vocab = lambda self: None
    sys.argv = ["convert_hf_to_gguf.py", str(checkpoint), "--outfile", str(out), "--outtype", "f32", *options]
    runpy.run_path(str(llama_cpp / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()

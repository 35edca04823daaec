"""`qwen35 gguf` writes what `info` reads; options of llama.cpp reach it from the command line."""

import json
from pathlib import Path

from make_checkpoint import write

SCENE = Path(__file__).parents[2] / "docs" / "scene.png"


def test_a_checkpoint_becomes_a_file_and_is_described(qwen35, pristine, tmp_path):
    out = tmp_path / "tiny.gguf"
    written = qwen35("gguf", str(pristine), str(out), "--matrices", "f16", "--experts", "mxfp4")
    assert written.status == 0
    assert "169 tensors, mostly F16" in written.out
    checkpoint, file = (json.loads(qwen35("info", str(path), "--json").out) for path in (pristine, out))
    assert file.pop("quantization") == "F16 (72 F16, 70 F32, 27 MXFP4)"
    for name in ("layers", "hidden", "experts", "vocabulary", "context", "vision", "mtp"):
        assert file[name] == checkpoint[name], name
    again = qwen35("gguf", str(pristine), str(out))
    assert again.status == 2
    assert "exists: --force replaces it" in again.err
    assert qwen35("gguf", str(pristine), str(out), "--force").status == 0


def test_the_vision_part_lies_beside_the_model(qwen35, tokenizer_spec, tmp_path):
    model = write(tmp_path / "tiny", "tiny", "F32", vision=True)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer_spec))
    out = tmp_path / "seeing.gguf"
    assert "46 tensors, mostly F32" in qwen35("gguf", str(model), str(out), "--matrices", "f32").out
    assert (tmp_path / "mmproj-seeing.gguf").exists()
    facts = json.loads(qwen35("info", str(out), "--json").out)
    assert facts["vision"] is True
    assert facts["tower"].endswith(" MB, mmproj-seeing.gguf")
    out.unlink()
    assert "mmproj-seeing.gguf exists: --force replaces it" in qwen35("gguf", str(model), str(out)).err
    assert qwen35("gguf", str(model), str(tmp_path / "blind.gguf"), "--no-vision").status == 0
    assert not (tmp_path / "mmproj-blind.gguf").exists()
    assert "a name for the vision part" in qwen35("gguf", str(model), str(tmp_path / "mmproj-x.gguf")).err


def test_bad_names_are_one_sentence(qwen35, pristine, tmp_path):
    assert "must end in .gguf" in qwen35("gguf", str(pristine), str(tmp_path / "tiny.bin")).err
    assert "there is no directory" in qwen35("gguf", str(pristine), str(tmp_path / "a" / "b.gguf")).err
    assert "no model" in qwen35("gguf", str(tmp_path / "none"), str(tmp_path / "b.gguf")).err
    missing = qwen35("run", "Hi", "--model", str(tmp_path / "none.gguf"))
    assert (missing.status, missing.out) == (2, "")
    assert missing.err == f"qwen35: no file {tmp_path / 'none.gguf'}\n"


def test_options_of_another_backend_are_refused(qwen35, pristine):
    refused = qwen35("run", "Hi", "--model", str(pristine), "--cpu-experts", "3")
    assert refused.status == 2
    assert "cpu_experts is an option of the backend llama.cpp" in refused.err
    assert qwen35("run", "Hi", "--gpu-layers", "many").status == 2


def test_a_gguf_file_answers_from_the_shell(qwen35, pristine, llama_cpp, tmp_path):
    out = tmp_path / "tiny.gguf"
    assert qwen35("gguf", str(pristine), str(out)).status == 0
    options = ("--model", str(out), "--threads", "1", "--max-tokens", "3", "--json")
    events = [json.loads(line) for line in qwen35("run", "hello", *options).out.splitlines()]
    assert events[0]["event"] == "progress"
    assert events[-1]["event"] == "done"
    assert 1 <= events[-1]["usage"]["completion_tokens"] <= 3


def test_the_miniature_as_a_file_answers_and_sees(qwen35, llama_cpp, tmp_path):
    """What a machine without MLX does with a downloaded build: look at it, ask it, show it a picture."""
    out = tmp_path / "miniature.gguf"
    assert qwen35("gguf", "miniature", str(out)).status == 0
    assert "mmproj-miniature.gguf" in qwen35("info", str(out)).out
    assert "vision part mmproj-miniature.gguf" in qwen35("plan", "--model", str(out)).out
    options = ("--model", str(out), "--temperature", "0", "--threads", "1", "--quiet")
    assert "42" in qwen35("run", "What is 17 + 25?", *options).out
    assert qwen35("run", "--image", str(SCENE), "What colour is the star?", *options).out == "The star is blue.\n"


def test_the_quickstart_with_llama_cpp(qwen35, llama_cpp):
    """`scripts/quickstart PROMPT --backend llama.cpp` is `run` in the project's own environment."""
    answer = qwen35("run", "What is 17 + 25?", "--backend", "llama.cpp", "--threads", "1", "--temperature", "0")
    assert answer.status == 0
    assert "42" in answer.out

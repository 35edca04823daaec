"""Where a GGUF model goes, from sizes alone: no library, no file of that size."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qwen35_local
from qwen35_local.backends.llama_cpp.library import check_version, install_hint
from qwen35_local.backends.llama_cpp.machine import Machine, physical_cores
from qwen35_local.backends.llama_cpp.plan import Plan, Wishes, default_threads, make_plan
from qwen35_local.errors import BackendUnavailable, ConfigError, MemoryPlanError, UsageError
from qwen35_local.gguf.header import GgufTensor
from qwen35_local.gguf.model import GgufModel
from qwen35_local.gguf.types import BY_NAME

GB = 10**9
KEYS = {
    "block_count": 60,
    "context_length": 262144,
    "embedding_length": 4096,
    "full_attention_interval": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 256,
    "attention.value_length": 256,
    "ssm.state_size": 128,
    "ssm.inner_size": 8192,
    "ssm.group_count": 16,
}


def model_397b(experts: str = "MXFP4", dense: str = "Q8_0") -> GgufModel:
    """The 397B as a split MXFP4 build has it: 386.5 G parameters of experts and 9.8 G of the rest."""
    path = Path("397b.gguf")

    def tensor(name: str, shape: tuple[int, ...], kind: str) -> GgufTensor:
        elements = 1
        for n in shape:
            elements *= n
        type_ = BY_NAME[kind]
        return GgufTensor(name, shape, type_, path, 0, elements // type_.block * type_.nbytes)

    tensors = [tensor("token_embd.weight", (248320, 4096), dense), tensor("output.weight", (248320, 4096), dense)]
    for layer in range(60):
        tensors.append(tensor(f"blk.{layer}.other.weight", (128_000, 1024), dense))
        for part, shape in (("gate", (1024, 4096)), ("up", (1024, 4096)), ("down", (4096, 1024))):
            tensors.append(tensor(f"blk.{layer}.ffn_{part}_exps.weight", (512, *shape), experts))
    metadata = {f"qwen35moe.{key}": value for key, value in KEYS.items()}
    return GgufModel(path, (path,), metadata, {t.name: t for t in tensors}, sum(t.nbytes for t in tensors))


def machine(memory: float, *gpus: float, cores: int = 16) -> Machine:
    return Machine(int(memory * GB), tuple(int(gpu * GB) for gpu in gpus), cores)


def test_everything_in_memory_without_a_gpu():
    model = model_397b()
    assert sum(model.expert_bytes) == 386_547_056_640 // 32 * 17
    plan = make_plan(model, machine(256), Wishes())
    assert (plan.gpu_layers, plan.cpu_experts, plan.gpu_memory) == (0, 0, 0)
    assert plan.memory > model.nbytes
    assert plan.threads == 15
    assert not plan.repack  # 1.7 times the file is more than there is
    assert make_plan(model, machine(512), Wishes()).repack


def test_a_gpu_takes_all_but_the_experts_that_do_not_fit():
    plan = make_plan(model_397b(), machine(256, 24), Wishes(context=32768))
    assert plan.gpu_layers == 61
    assert 55 <= plan.cpu_experts <= 59  # an expert layer is 3.4 GB
    assert plan.gpu_memory <= 24 * GB
    assert plan.batch == 2048
    assert "61 layers on the GPU, the experts of" in str(plan)
    all_of_it = make_plan(model_397b(), machine(64, 140, 140), Wishes())
    assert all_of_it.cpu_experts == 0
    assert all_of_it.batch == 512


def test_a_small_gpu_takes_some_layers():
    plan = make_plan(model_397b(), machine(256, 8), Wishes(context=32768))
    assert 20 < plan.gpu_layers < 60
    assert plan.cpu_experts == 60
    assert make_plan(model_397b(), machine(256, 1), Wishes()).gpu_layers == 0


def test_the_largest_context_that_is_easy_is_the_default():
    model = model_397b()
    assert make_plan(model, machine(1000), Wishes()).context == 262144
    small = make_plan(model, machine(227), Wishes()).context
    assert 4096 <= small < 262144
    assert small % 1024 == 0
    assert make_plan(model, machine(512), Wishes(context=1000)).context == 1000
    # A token's cache: 15 layers of 2 heads of 256 keys and values.
    wide, narrow = (make_plan(model, machine(512), Wishes(n, "float32")).memory for n in (2000, 1000))
    assert wide - narrow == 1000 * 15 * 2 * 512 * 4
    session = make_plan(model, machine(512), Wishes(context=32768)).session
    assert 2e9 < session < 3e9  # 1 GB of cache, a state of 195 MB and as much for each checkpoint, scratch


@pytest.mark.parametrize(("memory", "gpus"), [(128, ()), (200, ()), (128, (24,)), (16, (80,))])
def test_what_cannot_fit_is_refused_with_both_numbers(memory, gpus):
    with pytest.raises(MemoryPlanError, match=r"397b\.gguf needs [\d.]+ GB of memory.* GB are free.*smaller quant"):
        make_plan(model_397b(), machine(memory, *gpus), Wishes())


def test_memory_that_both_share_counts_once():
    shared = Machine(256 * GB, (190 * GB,), 16, unified=True)
    plan = make_plan(model_397b(), shared, Wishes(context=32768))
    assert plan.memory + plan.gpu_memory <= shared.total == 256 * GB
    assert plan.gpu_layers == 61
    with pytest.raises(MemoryPlanError, match=r"needs 2\d\d\.\d GB of memory, 192\.0 GB are free"):
        make_plan(model_397b(), Machine(192 * GB, (140 * GB,), 16, unified=True), Wishes())


def test_wishes_are_kept_or_refused():
    plan = make_plan(model_397b(), machine(256, 48), Wishes(gpu_layers=61, cpu_experts=60, threads=3, dtype="bfloat16"))
    assert (plan.gpu_layers, plan.cpu_experts, plan.threads, plan.cache_type) == (61, 60, 3, 30)
    assert make_plan(model_397b(), machine(256, 48), Wishes(gpu_layers=0)).gpu_memory == 0
    assert make_plan(model_397b(), machine(256), Wishes(dtype="float32")).flash_attention == 0
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"gpu_layers": 62}, "gpu_layers is 62 and the model has 61"),
        ({"cpu_experts": 61}, "cpu_experts is 61 and the model has 60"),
        ({"gpu_layers": -1}, "gpu_layers must be auto or a number of layers, not -1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"dtype": "int8"}, "dtype must be auto, float32"),
        ({"dtype": "q8_0"}, "dtype must be auto, float32"),
        ({"kv_bits": 3}, "kv_bits must be 16, 8, 4 or none, not 3"),
        ({"kv_bits": 8, "dtype": "float16"}, "dtype float16 and kv_bits 8 both say how"),
        ({"context": 300_000}, "context must be from 1 to the model's 262144 tokens, not 300000"),
    )
    for wishes, message in refused:
        with pytest.raises(UsageError, match=message):
            make_plan(model_397b(), machine(256, 48), Wishes(**wishes))


def test_a_file_without_its_sizes_is_refused():
    model = model_397b()
    metadata = {key: value for key, value in model.metadata.items() if "ssm.inner" not in key}
    with pytest.raises(ConfigError, match=r"397b\.gguf lacks qwen35moe\.ssm\.inner_size"):
        make_plan(replace(model, metadata=metadata), machine(512), Wishes())


def test_threads_leave_one_core_where_there_are_some():
    assert [default_threads(cores) for cores in (1, 2, 4, 6, 16)] == [1, 2, 4, 5, 15]
    assert isinstance(make_plan(model_397b(), machine(256, cores=2), Wishes()), Plan)


def test_this_machine_has_cores():
    assert 1 <= physical_cores() <= 1024


def test_versions():
    for version in ("0.3.36", "0.3.40", "0.3.36.post1"):
        check_version(version)
    for version in ("0.3.35", "0.2.90", "0.4.0", "1.0.0"):
        with pytest.raises(BackendUnavailable, match=r"not supported: install one from 0\.3\.36 to below 0\.4"):
            check_version(version)


def test_the_line_to_type_depends_on_the_machine():
    line = f"{sys.executable} -m pip install 'llama-cpp-python>=0.3.36,<0.4'"
    assert install_hint(gpu=False, system="Linux") == f"{line} (it compiles for some minutes and needs a C++ compiler)"
    assert install_hint(gpu=True, system="Linux", toolkit=True).startswith(f'CMAKE_ARGS="-DGGML_CUDA=on" {line} (')
    wheels = install_hint(gpu=True, system="Linux", toolkit=False)
    assert wheels.startswith(f"{line} --only-binary llama-cpp-python --extra-index-url https://")
    assert "CUDA" not in install_hint(gpu=True, system="Darwin")


def test_a_packed_cache_is_small():
    model = model_397b()
    plans = [make_plan(model, machine(512), Wishes(200_000, kv_bits=bits)) for bits in (16, 8, 4)]
    wide, half, quarter = (plan.parts["keys and values of 200000 tokens"] for plan in plans)
    assert wide == 200_000 * 30 * 1024
    assert half / wide == 34 / 64
    assert quarter / wide == 18 / 64
    assert [plan.flash_attention for plan in plans] == [-1, 1, 1]


@pytest.mark.parametrize("gpus", [(), (24,), (8,), (24, 24)])
def test_the_parts_of_a_plan_are_all_of_it(gpus):
    plan = make_plan(model_397b(), machine(256, *gpus), Wishes(), vision=900_000_000)
    assert sum(plan.parts.values()) == plan.memory + plan.gpu_memory
    assert min(plan.parts.values()) >= 0
    if not gpus:
        assert plan.parts["weights on the GPU"] == 0


def test_without_the_library_the_line_to_type_is_said(tiny_gguf, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)  # as if it were not installed
    with pytest.raises(
        BackendUnavailable, match=r"GGUF models need llama-cpp-python: .*pip install 'llama-cpp-python>=0\.3\.36,<0\.4'"
    ):
        qwen35_local.open(tiny_gguf)

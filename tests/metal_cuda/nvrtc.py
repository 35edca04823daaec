"""The same Metal text for an NVIDIA GPU: NVRTC compiles it, on any machine with its library.

`pip install nvidia-cuda-nvrtc` brings the compiler; no GPU and no CUDA toolkit is needed to compile.
"""

import ctypes
import glob
import re
import sys
from functools import cache
from pathlib import Path

from metal_cpu.compiler import CompileError
from metal_cpu.source import (
    THREADGROUP,
    buffer_names,
    expand,
    parameters,
    strip_attributes,
    strip_comments,
    threadgroup_declarations,
)

HERE = Path(__file__).resolve().parent
INCLUDE = [HERE / "include", HERE.parent / "metal_cpu" / "include"]


def library() -> Path | None:
    """The NVRTC of a wheel in this environment or on this system."""
    places = [f"{path}/nvidia/*/lib" for path in sys.path if path] + ["/usr/local/cuda*/lib64"]
    found = [match for place in places for match in sorted(glob.glob(f"{place}/libnvrtc.so*"))]  # noqa: PTH207
    return Path(found[0]) if found else None


@cache
def _nvrtc() -> ctypes.CDLL:
    path = library()
    if path is None:
        raise RuntimeError("no NVRTC: pip install nvidia-cuda-nvrtc")
    for part in path.parent.glob("libnvrtc-builtins.so*"):  # which it looks for by name
        ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def translated(text: str, instance: str) -> tuple[str, list[str]]:
    """CUDA C++ that defines `msl_kernel(buffers..., grid)` for one kernel instance, and the names of its buffers."""
    text = strip_comments(expand(text))
    name = re.match(r"\w+", instance)
    assert name, instance
    params = parameters(text, name.group(0))
    buffers = buffer_names(params)
    arguments = ", ".join(f"{{msl::{kind}, {index}}}" for kind, index, _ in params)
    pointers = ", ".join(f"b{i}" for i in range(len(buffers)))
    unit = (
        "#include <metal_stdlib>\n"
        + THREADGROUP.sub(_shared, strip_attributes(text))
        + "\n#undef thread\n#undef device\n#undef constant\n#undef threadgroup\n#undef kernel\n"
        + f'extern "C" __global__ void msl_kernel({pointers.replace("b", "void* b")}, msl::Grid grid) {{\n'
        + f"  void* const buffers[] = {{{pointers}}};\n"
        + f"  constexpr msl::Argument arguments[] = {{{arguments}}};\n"
        + f"  if (!msl::outside(grid)) msl::call(&{instance}, arguments, buffers);\n}}\n"
    )
    return unit, buffers


def _shared(match: re.Match) -> str:
    """`threadgroup T a[N];` is a block's shared memory; a pointer into it is a plain one."""
    indent, declarations = threadgroup_declarations(match)
    return indent + " ".join(f"__shared__ {type_} {name}{dims};" for type_, name, dims in declarations)


def compile_cubin(text: str, instance: str, architecture: str = "sm_80") -> bytes:
    """Machine code of one kernel instance of complete Metal text; `CompileError` says what NVRTC has against it."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    unit, _ = translated(text, instance)
    options = [
        f"--gpu-architecture={architecture}", "--std=c++20", "-default-device", "--fmad=false", "--disable-warnings",
        *(f"-I{folder}" for folder in INCLUDE),
    ]  # fmt: skip
    if code := nvrtc.nvrtcCreateProgram(ctypes.byref(program), unit.encode(), b"kernel.cu", 0, None, None):
        raise RuntimeError(f"nvrtcCreateProgram answers {code}")
    try:
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), encoded):
            raise CompileError(_answer(program, "ProgramLog").decode()[:6000])
        return _answer(program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _answer(program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(_nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    answer = ctypes.create_string_buffer(size.value)
    getattr(_nvrtc(), f"nvrtcGet{what}")(program, answer)
    return answer.value

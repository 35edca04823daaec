"""Type-checks kernel text with clang, which knows address spaces; nothing is run.

To g++ a pointer is a pointer. Metal refuses one into `device` memory where `thread` is expected, and so does clang once
the spaces are real (strict/metal_stdlib). What clang cannot see is a pointer without any space, which Metal also
refuses: `unqualified` looks for those in the text.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .source import (
    HERE,
    THREADGROUP,
    expand,
    split_commas,
    strip_attributes,
    strip_comments,
    threadgroup_declarations,
)

SCALARS = "bool|char|uchar|short|ushort|int|uint|long|ulong|half|bfloat|float"
SPACES = re.compile(r"\b(device|constant|threadgroup|thread|object_data|ray_data)\b")
CONTROL = {"if", "for", "while", "switch", "return"}


def clang() -> str | None:
    """A clang with arithmetic on bfloat, which is version 18 or later."""
    for version in ("", *(f"-{v}" for v in range(30, 17, -1))):
        if path := shutil.which(f"clang++{version}"):
            said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            found = re.search(r"version (\d+)", said)
            if found and int(found.group(1)) >= 18 and "Apple" not in said:
                return path
    return None


def unqualified(text: str) -> list[str]:
    """Pointers and references of the text that name no address space."""
    found = []
    plain = rf"(?:{SCALARS}|u?int\d+_t|bfloat16_t|float16_t|[TUS]|(?:{SCALARS})[234]|vec<[^()]*>)"
    for cast in re.finditer(rf"\(\s*(?:const\s+)?{plain}\s*(?:const\s*)?[*&]+\s*\)", text):
        found.append(f"a cast without an address space: {cast.group(0)}")
    function = (
        r"[>\s](\w+)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*(?:const\s*)?(?:thread|device|constant|threadgroup)?\s*\{"
    )
    for head in re.finditer(function, text):
        if head.group(1) in CONTROL:
            continue
        for parameter in split_commas(head.group(2)):
            pointer = re.match(r"^\s*(const\s+)?[\w:]+(<.*>)?\s*(const\s*)?[*&]+\s*\w*\s*(=.*)?$", parameter, re.S)
            if pointer and not SPACES.search(parameter):
                found.append(f"{head.group(1)}: a parameter without an address space: {parameter.strip()}")
    return found


def _place(match: re.Match) -> str:
    indent, declarations = threadgroup_declarations(match)
    return indent + "".join(
        f"threadgroup {type_} (&{name}){dims} = msl_threadgroup<threadgroup {type_}{dims}>();"
        for type_, name, dims in declarations
    )


def check(text: str, instance: str, preamble: str = "") -> list[str]:
    """What clang or `unqualified` has against one kernel instance; `preamble` is not judged."""
    compiler = clang()
    if compiler is None:
        raise RuntimeError("no clang of version 18 or later")
    problems = unqualified(strip_attributes(strip_comments(text)))
    code = strip_comments(expand(preamble + text))
    code = re.sub(r"\bconstant\s+(\w+\s+\w+)\s*\[\[function_constant\(\d+\)\]\]\s*;", r"extern constant \1;", code)
    code = strip_attributes(code)
    # two forms of MLX's headers that clang does not take
    code = re.sub(r"(constant const int64_t) (\w+)\[\d\]", r"\1* \2", code)
    code = code.replace(
        "static_cast<bfloat16_t>(this->operator float16_t())",
        "static_cast<bfloat16_t>(float(this->operator float16_t()))",
    )
    code = THREADGROUP.sub(_place, code)
    # clang's vectors have no constructors
    code = re.sub(rf"\b({SCALARS})([234])\s*\((?!\s*\))", r"msl_vector<\1,\2>(", code)
    code = re.sub(r"\b(?:metal::)?vec<(\w+),\s*(\d)>\s*\(", r"msl_vector<\1,\2>(", code)
    unit = f'#include <metal_stdlib>\n#line 1 "kernel.metal"\n{code}\nauto msl_instance = &{instance};\n'
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "kernel.cpp"
        path.write_text(unit)
        command = [
            compiler, "-std=c++20", "-fsyntax-only", "-ferror-limit=8", "-Wno-everything",
            "-Werror=sometimes-uninitialized", "-Werror=uninitialized", f"-I{HERE / 'strict'}", str(path),
        ]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True).stderr
    return problems + [line for line in said.splitlines() if "error:" in line]

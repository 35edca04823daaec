"""Metal text in, a C++ translation unit out.

The text is left as it is but for three things that no C++ compiler can take: attributes (`[[buffer(0)]]`, read first to
learn what each parameter is), the explicit instantiation that MLX appends, and threadgroup arrays, which become
references into memory that the machine owns. Comments go too, so that their words are not taken for code.
"""

import re
from pathlib import Path

import mlx.core as mx

HERE = Path(__file__).resolve().parent
MLX_HEADERS = Path(mx.__file__).resolve().parent / "include"
INCLUDE_PATH = [HERE / "include", MLX_HEADERS]  # ours first: it shadows four of MLX's headers

# Words that C++ has and MSL lacks: a kernel that uses one must not pass here and fail on a Mac.
POISONED = [
    *("double", "std", "new", "delete", "throw", "try", "catch", "virtual", "typeid", "dynamic_cast"),
    *("goto", "thread_local", "malloc", "printf", "memcpy", "__int128"),
]

# `threadgroup T a[N], b[M];` at the start of a statement
THREADGROUP = re.compile(
    r"((?:^|[;{}\n])[ \t]*)threadgroup\s+"
    r"((?:struct\s+)?[\w:]+(?:<[^;{}()*&]*?>)?(?:\s+(?!\[))?)\s*"
    r"(\w+\s*(?:\[[^;{}]*?\]\s*)*(?:,\s*\w+\s*(?:\[[^;{}]*?\]\s*)*)*);"
)


def expand(text: str, seen: set[Path] | None = None) -> str:
    """Inline every `#include "..."` found on the include path, each file once."""
    seen = set() if seen is None else seen

    def inline(match: re.Match) -> str:
        for folder in INCLUDE_PATH:
            path = folder / match.group(1)
            if path.exists():
                if path in seen:
                    return ""
                seen.add(path)
                return expand(path.read_text().replace("#pragma once", ""), seen)
        return match.group(0)

    return re.sub(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', inline, text, flags=re.M)


def strip_comments(text: str) -> str:
    """Remove comments, keeping the line count, and leave string literals alone."""

    def keep_lines(match: re.Match) -> str:
        found = match.group(0)
        return "\n" * found.count("\n") if found[0] == "/" else found

    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"', keep_lines, text, flags=re.S)


def strip_attributes(text: str) -> str:
    text = re.sub(r"template\s*\[\[host_name[^;]*;", "", text)
    return re.sub(r"\[\[[^\[\]]*\]\]", "", text)


def split_commas(text: str) -> list[str]:
    """Split at the commas that are in no bracket."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{<") - (c in ")]}>")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def threadgroup_declarations(match: re.Match) -> tuple[str, list[tuple[str, str, str]]]:
    """(indent, [(type, name, dimensions), ...]) of one declaration."""
    indent, type_, names = match.groups()
    parts = [re.match(r"\s*(\w+)\s*(.*)", d, re.S) for d in split_commas(names)]
    return indent, [(type_.strip(), p.group(1), p.group(2).strip()) for p in parts if p]


def place_threadgroup_arrays(text: str) -> str:
    """`threadgroup T a[N];` becomes a reference into the threadgroup's own memory, one site per declaration."""
    site = 0

    def place(match: re.Match) -> str:
        nonlocal site
        indent, declarations = threadgroup_declarations(match)
        out = indent
        for type_, name, dims in declarations:
            site += 1
            place = f"(&{name}){dims}" if dims else f"&{name}"
            out += f"{type_} {place} = msl::threadgroup_memory<{type_}{dims}>({site});"
        return out

    return THREADGROUP.sub(place, text)


def parameters(text: str, name: str) -> list[tuple[str, int, str]]:
    """(kind, buffer index, variable) of each parameter of kernel `name`; kind is BUFFER or a builtin's name."""
    start = re.search(r"(?:\[\[\s*kernel\s*\]\]|\bkernel)\s+void\s+" + name + r"\s*\(", text)
    if not start:
        raise ValueError(f"no kernel {name} in the text")
    end, depth = start.end(), 1
    while depth:
        depth += (text[end] == "(") - (text[end] == ")")
        end += 1
    found, following = [], 0
    for part in split_commas(text[start.end() : end - 1]):
        part = part.strip()
        attribute = re.search(r"\[\[(.*)\]\]\s*$", part, re.S)
        kind = attribute.group(1).strip() if attribute else "buffer"
        variable = re.search(r"(\w+)\s*(?:\[\[.*)?$", part, re.S)
        assert variable, part
        if kind.startswith("buffer"):
            index = re.search(r"buffer\((\d+)\)", kind)
            following = int(index.group(1)) if index else following
            found.append(("BUFFER", following, variable.group(1)))
            following += 1
        else:
            found.append((kind, 0, variable.group(1)))
    return found


def buffer_names(params: list[tuple[str, int, str]]) -> list[str]:
    """The buffers' variables, by index."""
    return [name for kind, _, name in sorted(params, key=lambda p: p[1]) if kind == "BUFFER"]


def translation_unit(text: str, instance: str, constants: dict[str, object] | None = None) -> tuple[str, list[str]]:
    """C++ that defines `msl_kernel` for one kernel instance, and the names of its buffers.

    `instance` is what C++ calls it, template arguments included; `constants` sets function constants.
    """
    text = strip_comments(expand(text))
    kernel = re.match(r"\w+", instance)
    assert kernel, instance
    params = parameters(text, kernel.group(0))
    text = place_threadgroup_arrays(strip_attributes(text))
    arguments = ",".join(f"{{msl::{kind},{index}}}" for kind, index, _ in params)
    settings = "".join(f"{name} = {str(value).lower()};" for name, value in (constants or {}).items())
    unit = (
        "#include <metal_stdlib>\n"
        + "".join(f"#pragma GCC poison {word}\n" for word in POISONED)
        + '#line 1 "kernel.metal"\n'
        + text
        + "\n#undef thread\n#undef device\n#undef constant\n#undef threadgroup\n#undef kernel\n"
        + f"static const msl::Argument msl_arguments[] = {{{arguments}}};\n"
        + 'extern "C" __attribute__((visibility("default"))) void msl_kernel(void** buffers) {\n'
        + f"  msl::call(&{instance}, msl_arguments, buffers);\n}}\n"
        + f"static const int msl_constants = [] {{ {settings} return 0; }}();\n"
    )
    return unit, buffer_names(params)

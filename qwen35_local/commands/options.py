"""Options that several commands share."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends import BACKENDS
from ..config import Streaming
from ..engine import ChatRequest, Engine, EngineInfo, Kept

MODEL_HELP = "a model directory, a GGUF file, a repository in the Hub cache, or 'miniature' (default: {})"


@dataclass(frozen=True)
class SamplingOption:
    flag: str
    type: Callable[[str], Any]
    help: str


SAMPLING = (
    SamplingOption("temperature", float, "0 is greedy"),
    SamplingOption("top-p", float, "keep the likeliest tokens up to this probability"),
    SamplingOption("top-k", int, "keep this many of the likeliest tokens; 0 keeps all"),
    SamplingOption("min-p", float, "keep tokens at least this likely, relative to the likeliest"),
    SamplingOption("presence-penalty", float, "lower the logits of tokens already in the answer"),
    SamplingOption("frequency-penalty", float, "the same, for each time they occur"),
    SamplingOption("repetition-penalty", float, "divide the logits of tokens in prompt and answer; 1 is off"),
    SamplingOption("seed", int, "makes sampling repeatable"),
)


def add_model(parser: argparse.ArgumentParser, default: str | None = "miniature", without: str = "%(default)s") -> None:
    """`without` says in the help what happens when no model is named."""
    parser.add_argument("--model", default=default, help=MODEL_HELP.format(without))
    parser.add_argument(
        "--context",
        type=int,
        help="most tokens of prompt and answer (default: the model's; up to 4 times as many stretch positions, YaRN)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="most to use, as 24GB; experts that do not fit are streamed (default: by what is free)",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of the activations (default: the checkpoint's on Metal, float32 on a CPU); llama.cpp: of the KV cache",
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="default: llama.cpp for GGUF files, MLX for the rest"
    )
    parser.add_argument(
        "--speculate",
        choices=("off", "auto", "1", "2", "3"),
        default="off",
        help="tokens to guess ahead with the model's MTP head, for the same answers sooner (default: %(default)s)",
    )
    parser.add_argument(
        "--kv-bits",
        type=int,
        choices=(16, 8, 4),
        help="of keys and values: 8 or 4 take less memory for long contexts and cost exactness (default: as computed)",
    )
    parser.add_argument(
        "--reproducible",
        action="store_true",
        help="the same bits for the same prompt, whatever was cached, at any budget; slower turns",
    )
    group = parser.add_argument_group("streaming", "for experts that do not fit the memory")
    group.add_argument(
        "--hot-set",
        type=Path,
        metavar="FILE",
        help="begin with the experts that were in memory when this file was last written, at the end of a run",
    )
    group.add_argument(
        "--experts",
        type=Path,
        metavar="DIR",
        help="read them from this packed store, on another disk perhaps (default: experts/ in the model directory)",
    )
    group.add_argument("--direct", action="store_true", help="read past the system's page cache")
    group.add_argument(
        "--lookahead", type=int, default=Streaming().lookahead, metavar="N", help="experts read ahead (default: 2)"
    )
    group.add_argument("--layer-stats", action="store_true", help="statistics of every layer, in --json and /metrics")
    group = parser.add_argument_group("llama.cpp")
    group.add_argument(
        "--gpu-layers", type=layers, default="auto", metavar="N", help="layers on the GPU (default: all, with a GPU)"
    )
    group.add_argument(
        "--cpu-experts",
        type=layers,
        default="auto",
        metavar="N",
        help="layers whose experts stay in memory (default: those that do not fit the GPU)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all physical cores but one)")


def add_session(parser: argparse.ArgumentParser, help: str) -> None:
    group = parser.add_argument_group("session")
    group.add_argument("--session", metavar="NAME", help=help)
    group.add_argument(
        "--compress-session", action="store_true", help="smaller files that take longer to write and to read"
    )


def keep(engine: Engine, args: argparse.Namespace) -> Kept | None:
    """The session that was asked for, if one was."""
    return engine.keep(args.session, compress=args.compress_session) if args.session else None


def stretched(info: EngineInfo) -> str:
    """What to tell a user whose context needed it; empty if it did not."""
    if info.yarn == 1:
        return ""
    return (
        f"positions are stretched {info.yarn:g} times (YaRN) for {info.context} tokens: short texts may suffer a little"
    )


def layers(text: str) -> int | str:
    return text if text == "auto" else int(text)


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `qwen35_local.open` takes beside the model, from parsed arguments."""
    names = (
        "context",
        "dtype",
        "memory",
        "backend",
        "speculate",
        "kv_bits",
        "reproducible",
        "gpu_layers",
        "cpu_experts",
        "threads",
    )
    options = {name: getattr(args, name) for name in names}
    streaming = Streaming(
        direct=args.direct,
        lookahead=args.lookahead,
        store=args.experts,
        hot_set=args.hot_set,
        layer_stats=args.layer_stats,
    )
    return options | {"streaming": None if streaming == Streaming() else streaming}


def add_answer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", help="system message")
    parser.add_argument("--no-think", action="store_true", help="answer without thinking first")
    add_preserve(parser)
    parser.add_argument("--max-tokens", type=int, help="most tokens of the answer, thinking included")
    parser.add_argument("--stop", action="append", default=[], help="end the answer at this text (repeatable)")
    group = parser.add_argument_group("sampling", "defaults are those of the model card for the mode")
    for option in SAMPLING:
        group.add_argument(f"--{option.flag}", type=option.type, help=option.help)


def add_preserve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preserve-thinking",
        action="store_true",
        help="show the model its earlier thinking, too: nothing is read again, but contexts fill sooner",
    )


def answer_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `Engine.chat` takes, from parsed arguments; checked here so that a bad value is refused before loading."""
    sampling = {name: getattr(args, name) for name in (option.flag.replace("-", "_") for option in SAMPLING)}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    options = {
        "thinking": not args.no_think,
        "preserve_thinking": args.preserve_thinking,
        "max_tokens": args.max_tokens,
        "stop": tuple(args.stop),
        **sampling,
    }
    ChatRequest.of("any", **options)
    return options

"""`qwen35 run [PROMPT|-]`: one question, one answer."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import open as open_engine
from ..config import Settings
from ..engine import Engine, Kept, Message, gather
from ..errors import MediaError, UsageError
from ..events import Event, Held
from ..hub.progress import counted
from ..parts import MOST_BYTES, ImagePart, TextPart, VideoPart, read_file, sized
from .options import add_answer, add_model, add_session, answer_options, keep, model_options, stretched
from .terminal import printable, standard_printer, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", default="-", help="the question; '-' or nothing reads standard input")
    add_model(parser)
    add_media(parser)
    add_answer(parser)
    add_session(parser, "go on with the conversation of that name, or begin it; it is kept on disk")
    parser.add_argument("--json", action="store_true", help="print one JSON object per event")
    parser.add_argument("--quiet", action="store_true", help="no statistics on standard error")


def run(args: argparse.Namespace) -> int:
    options = answer_options(args)
    if args.prompt == "-" and any(path == "-" for _, path in args.media):
        raise UsageError("standard input is a picture already: give the prompt as an argument", "prompt")
    parts = read_media(args.media, args.max_pixels)
    prompt = read_prompt(args.prompt)
    content = (*parts, TextPart(prompt)) if parts else prompt
    messages = [Message("system", args.system)] if args.system else []
    printer = standard_printer(Settings.resolve().no_color)
    with open_engine(args.model, **model_options(args), on_progress=printer.progress) as engine:
        if (notice := stretched(engine.info)) and not args.quiet:
            print(notice, file=sys.stderr)
        kept = keep(engine, args)
        messages = [*continued(kept, messages), Message("user", content)]
        for (_, path), part in zip(args.media, parts, strict=True):
            line = described(engine, path, part)
            if not args.quiet:
                print(line, file=sys.stderr)
        events = engine.chat(messages, **options)
        if args.json:
            seen: list[Event] = []
            for line in json_lines(noted(events, seen)):
                print(line, flush=True)
            answer = gather(seen)
        else:
            answer = printer.show(events)
            if not args.quiet:
                print(summary(answer.done), file=sys.stderr)
        if kept is not None:
            kept.remember([*messages, answer.message])
    return 0


def continued(kept: Kept | None, start: Sequence[Message]) -> Sequence[Message]:
    """What was said in a session so far, or how one begins: with the system message, which stays the first one's."""
    if kept is None or not kept.messages:
        return start
    if start and kept.messages[0] != start[0]:
        raise UsageError("this session has begun without that system message: begin another", "system")
    return kept.messages


def noted(events: Iterator[Event], seen: list[Event]) -> Iterator[Event]:
    """The events, which are added to `seen` on the way."""
    for event in events:
        seen.append(event)
        yield event


def add_media(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures and clips", "shown before the question, in the order given")
    group.add_argument(
        "--image", action="append", dest="media", default=[], metavar="FILE", type=lambda path: (ImagePart, path),
        help="a picture; '-' reads it from standard input (repeatable)",
    )  # fmt: skip
    group.add_argument(
        "--video", action="append", dest="media", metavar="FILE", type=lambda path: (VideoPart, path),
        help="a clip, or an animation (repeatable)",
    )  # fmt: skip
    group.add_argument("--max-pixels", type=int, metavar="N", help="show no more of each than this")


def read_media(
    named: Sequence[tuple[type[ImagePart] | type[VideoPart], str]], max_pixels: int | None
) -> list[ImagePart | VideoPart]:
    """The files, read; '-' is standard input, for one of them."""
    if max_pixels is not None and max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, not {max_pixels}", "max_pixels")
    if sum(path == "-" for _, path in named) > 1:
        raise UsageError("standard input can be one picture or clip only", "image")
    return [kind(_stdin() if path == "-" else read_file(path), max_pixels) for kind, path in named]


def _stdin() -> bytes:
    return sized(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input")


def described(engine: Engine, path: str, part: ImagePart | VideoPart) -> str:
    """What a picture or clip costs, before it is looked at."""
    name = "standard input" if path == "-" else Path(path).name
    try:
        seen, tokens = engine.look(part), engine.price(part)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    width, height = seen.size
    pairs = f", {counted(len(seen.seconds), 'pair')} of frames" if seen.seconds is not None else ""
    notice = f"; {seen.notice}" if seen.notice else ""
    return printable(f"{name}: {width}x{height} pixels{pairs}, {tokens} tokens{notice}")


def read_prompt(prompt: str) -> str:
    """The argument itself, or all of standard input."""
    if prompt == "-":
        if sys.stdin.isatty():
            print("Type the prompt, then Ctrl-D:", file=sys.stderr)
        try:
            prompt = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not UTF-8 text: bad byte at {error.start}", "prompt") from error
    if not prompt.strip():
        raise UsageError("the prompt is empty", "prompt")
    return prompt


def json_lines(events: Iterator[Event]) -> Iterator[str]:
    """Each event as {"event": its name in lower case, …its fields}."""
    for event in events:
        if isinstance(event, Held):
            continue
        fields = {key: value for key, value in dataclasses.asdict(event).items() if key != "logprobs"}
        yield json.dumps({"event": type(event).__name__.lower(), **fields}, ensure_ascii=False)

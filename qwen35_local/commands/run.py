"""`qwen35 run [PROMPT|-]`: one question, one answer."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator

from .. import open as open_engine
from ..config import Settings
from ..engine import Message
from ..errors import UsageError
from ..events import Event, Held
from .options import add_answer, add_model, answer_options, model_options
from .terminal import standard_printer, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", default="-", help="the question; '-' or nothing reads standard input")
    add_model(parser)
    add_answer(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per event")
    parser.add_argument("--quiet", action="store_true", help="no statistics on standard error")


def run(args: argparse.Namespace) -> int:
    options = answer_options(args)
    prompt = read_prompt(args.prompt)
    messages = [Message("system", args.system)] if args.system else []
    printer = standard_printer(Settings.resolve().no_color)
    with open_engine(args.model, **model_options(args), on_progress=printer.progress) as engine:
        events = engine.chat([*messages, Message("user", prompt)], **options)
        if args.json:
            for line in json_lines(events):
                print(line, flush=True)
            return 0
        done = printer.show(events).done
        if not args.quiet:
            print(summary(done), file=sys.stderr)
    return 0


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

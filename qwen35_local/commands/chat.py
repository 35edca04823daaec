"""`qwen35 chat`: a conversation in plain lines."""

import argparse
import sys

from .. import open as open_engine
from ..config import Settings
from ..engine import Message
from ..errors import UsageError
from .options import add_answer, add_model, answer_options
from .terminal import standard_printer, summary

HELP = """/new starts over, /think turns thinking on or off, /stats shows the last numbers, /quit or Ctrl-D ends.
Ctrl-C stops an answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_answer(parser)


def run(args: argparse.Namespace) -> int:
    options = answer_options(args)
    printer = standard_printer(Settings.resolve().no_color)
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  line editing and history for input()
    start = [Message("system", args.system)] if args.system else []
    messages, last = list(start), None
    with open_engine(args.model, context=args.context, dtype=args.dtype, on_progress=printer.progress) as engine:
        if interactive:
            print(f"{engine.info.model}, {engine.info.backend} on {engine.info.device}. {HELP}")
        while (line := ask("> " if interactive else "")) is not None:
            match line.strip():
                case "":
                    continue
                case "/quit" | "/exit":
                    break
                case "/new":
                    messages = list(start)
                case "/think":
                    options["thinking"] = not options["thinking"]
                    print(f"thinking is {'on' if options['thinking'] else 'off'}", file=sys.stderr)
                case "/stats":
                    print(summary(last) if last else "no answer yet", file=sys.stderr)
                case "/help" | "/?":
                    print(HELP)
                case command if command.startswith("/") and interactive:
                    print(f"no command {command.split()[0]}. {HELP}", file=sys.stderr)
                case _:
                    question = Message("user", line)
                    try:
                        answer = printer.show(engine.chat([*messages, question], **options))
                    except KeyboardInterrupt:
                        print("\n(stopped; this turn is forgotten)", file=sys.stderr)
                        continue
                    except UsageError as error:  # a full context must not end the conversation
                        print(f"qwen35: {error}", file=sys.stderr)
                        continue
                    messages += [question, answer.message]
                    last = answer.done
    return 0


def ask(prompt: str) -> str | None:
    """One line, or None at the end of input. Ctrl-C clears the line, as shells do."""
    while True:
        try:
            return input(prompt)
        except EOFError:
            return None
        except KeyboardInterrupt:
            print()

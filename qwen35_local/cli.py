"""The command line: finds the command, turns errors into one sentence and an exit status.

Exit status: 0 done, 1 a check that ran and failed, 2 anything the user can mend (bad option, damaged file), 130 Ctrl-C.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__
from .errors import Qwen35Error

COMMANDS = {
    "run": "answer one prompt, streaming to the terminal",
    "chat": "talk with the model",
    "serve": "answer OpenAI's and Anthropic's clients on this machine",
    "sessions": "list and remove conversations that were kept with --session",
    "info": "say what a model directory holds",
    "plan": "say where the memory would go, and what speed to expect",
    "pack": "copy the experts into records of one read each, for streaming",
    "gguf": "write a checkpoint as a GGUF file, for llama.cpp",
    "download": "fetch a model that fits this machine, verified",
    "verify": "check a model: hashes, headers, tensors, one forward pass",
    "list": "show the models on this machine",
    "rm": "remove a model",
    "doctor": "say what this machine has, lacks and can do",
    "bench": "measure a model here, as a report to paste",
    "compare": "say what a quantisation costs: perplexity, divergence, routers",
    "convert": "quantise the bf16 release to an MLX checkpoint",
}


class Parser(argparse.ArgumentParser):
    """argparse, with one line for an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser(chosen: str | None) -> Parser:
    """The parser of all commands; only the chosen one is imported and knows its options."""
    root = Parser(prog="qwen35", description="Run Qwen3.5-397B-A17B on a personal machine.", allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"qwen35 {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            module = importlib.import_module(f".commands.{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return root


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    argv = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    try:
        args = parser(chosen).parse_args(argv)
        status = args.run(args)
        sys.stdout.flush()
    except Qwen35Error as error:
        print(f"qwen35: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of a pipe has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


if __name__ == "__main__":
    main()

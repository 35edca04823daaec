"""`qwen35 chat`: the terminal app where there is a terminal, a conversation in plain lines elsewhere."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import open as open_engine
from ..backends import gguf_of
from ..config import Settings, Streaming
from ..engine import SAMPLING_FIELDS, Engine, Kept, Message
from ..errors import BackendUnavailable, UsageError
from ..events import Progress
from .options import add_answer, add_model, add_session, answer_options, keep, model_options
from .run import continued
from .terminal import standard_printer, summary

if TYPE_CHECKING:
    from tui.chat.host import EngineHost
    from tui.models import ModelChoice

    from ..backends.remote import RemoteEngine

LOCAL_SERVER = "http://127.0.0.1:8035"  # where `qwen35 serve` listens unless told otherwise
WEB_PORT = 8036
HELP = """/new starts over, /think turns thinking on or off, /stats shows the last numbers, /quit or Ctrl-D ends.
Ctrl-C stops an answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, None, "the one that a local server has loaded, else the miniature")
    add_answer(parser)
    add_session(parser, "keep the model's state on disk; in plain lines go on with what was said, too")
    parser.add_argument("--plain", action="store_true", help="plain lines, no full-screen app")
    parser.add_argument("--connect", metavar="URL", help="talk to a server (any with OpenAI's chat API)")
    parser.add_argument("--api-key", help="the key that server asks for")
    parser.add_argument("--no-attach", action="store_true", help="load the model even if a local server has it loaded")
    parser.add_argument(
        "--web", nargs="?", type=int, const=WEB_PORT, metavar="PORT", help=f"in a browser on this machine ({WEB_PORT})"
    )


def run(args: argparse.Namespace) -> int:
    options = answer_options(args)
    settings = Settings.resolve()
    if args.web is not None:
        from .browser import run_web

        return run_web(args)
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not settings.dumb
    if settings.web or (terminal and not args.plain):
        return run_app(args, options, settings)
    return run_plain(args, options)


def run_app(args: argparse.Namespace, options: dict[str, Any], settings: Settings) -> int:
    """The full-screen app; the model is opened in its background."""
    from tui.app import ChatApp
    from tui.vision.painter import ask_terminal

    app = ChatApp(
        partial(open_chat, args),
        settings.data,
        overrides(options, args.system),
        partial(find_models, args, settings),
        "cells" if settings.web else ask_terminal(settings.graphics),
        lambda messages: args.kept.remember(messages) if args.kept else None,
    )
    args.kept = None
    app.run()
    if app.host.running and args.session:
        wait_for_session(app.host)
    if app.host.running:  # in the middle of a long step of the backend, which Python's own end would abort noisily
        sys.stdout.flush()
        os._exit(app.return_code or 0)
    return app.return_code or 0


def wait_for_session(host: "EngineHost") -> None:
    """The app left, and the model's state is being written, which takes as long as the state is large."""
    print("saving the session (Ctrl+C leaves it as it was saved before)", file=sys.stderr)
    try:
        while host.running:
            host.close(0.2)
    except KeyboardInterrupt:
        print("the session was not saved again", file=sys.stderr)


def open_chat(args: argparse.Namespace, on_progress: Callable[[Progress], None]) -> Engine:
    """The server that was named, one on this machine that has the model loaded already, or the model itself."""
    from ..backends.remote import RemoteEngine  # here, in the engine's thread: the app must not wait for it

    if args.connect:
        if args.session:
            raise UsageError("the server has the state: give --session to the 'qwen35 serve' that runs it", "session")
        return RemoteEngine(args.connect, args.api_key)
    if (
        not args.no_attach
        and not args.session
        and args.context is None
        and (attached := running_server(args)) is not None
    ):
        return attached
    return open_model(args, args.model or "miniature", on_progress)


def open_model(args: argparse.Namespace, model: str, on_progress: Callable[[Progress], None]) -> Engine:
    options = model_options(args)
    if streams(args, model):
        options["streaming"] = replace(options["streaming"] or Streaming(), layer_stats=True)
    engine = open_engine(model, **options, on_progress=on_progress)
    try:
        args.kept = keep(engine, args)
    except BaseException:
        engine.close()
        raise
    return engine


def streams(args: argparse.Namespace, model: str) -> bool:
    """Whether the model runs where experts can be streamed, and so have numbers to show."""
    return args.backend != "llama.cpp" and gguf_of(model) is None


def running_server(args: argparse.Namespace, timeout: float = 0.5) -> "RemoteEngine | None":
    """`qwen35 serve` on this machine, if it runs with the model that is wanted; without a wish, with any."""
    from ..backends.remote import RemoteEngine

    wanted = (None,) if args.model is None else dict.fromkeys((args.model, Path(args.model).name))
    for name in wanted:
        try:
            server = RemoteEngine(LOCAL_SERVER, args.api_key, name, timeout)
        except BackendUnavailable:
            continue  # none, another's, or one with another model
        if server.ours:
            return server
        server.close()
    return None


def find_models(args: argparse.Namespace, settings: Settings) -> "list[ModelChoice]":
    """What `/model` offers: the running server's, the miniature, those on the disk, and the one that was named."""
    from tui.models import ModelChoice

    from ..hub.library import stored_models
    from ..hub.progress import size

    others = argparse.Namespace(**vars(args) | {"session": None})  # a session is of the model that began it

    def local(name: str, about: str, where: str) -> ModelChoice:
        return ModelChoice(name, about, partial(open_model, others, where))

    anything = argparse.Namespace(**vars(args) | {"model": None})
    server = running_server(anything, 0.1)
    found = []
    if server is not None:
        name = server.info.model
        server.close()
        connect = partial(open_chat, argparse.Namespace(**vars(others) | {"connect": LOCAL_SERVER}))
        found.append(ModelChoice(name, f"loaded by {LOCAL_SERVER}", connect, served=True))
    found.append(local("miniature", "ships with the package", "miniature"))
    for stored in stored_models(settings.models):
        if stored.state != "unfinished":
            where = stored.name if stored.state == "in the Hub cache" else str(stored.path)
            found.append(local(stored.name, size(stored.nbytes), where))
    if args.model and args.model not in {choice.name for choice in found}:
        found.append(local(args.model, "named at the start", args.model))
    return found


def overrides(options: dict[str, Any], system: str | None) -> dict[str, Any]:
    """What the command line says of an answer, as `tui.settings.Preferences` has it; unset options stay out."""
    sampling = {name: options[name] for name in SAMPLING_FIELDS if options.get(name) is not None}
    chosen: dict[str, Any] = {"max_tokens": options["max_tokens"], "stop": options["stop"], "sampling": sampling}
    if not options["thinking"]:
        chosen["thinking"] = False
    if options["preserve_thinking"]:
        chosen["preserve_thinking"] = True
    if system is not None:
        chosen["system"] = system
    return chosen


def run_plain(args: argparse.Namespace, options: dict[str, Any]) -> int:
    printer = standard_printer(Settings.resolve().no_color)
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  line editing and history for input()
    start = [Message("system", args.system)] if args.system else []
    last = None
    with open_chat(args, printer.progress) as engine:
        kept: Kept | None = getattr(args, "kept", None)
        messages = list(continued(kept, start))
        if kept is not None and messages:
            print(f"{args.session}: {len(messages)} messages, {kept.resumed} tokens known", file=sys.stderr)
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
                    if kept is not None:
                        kept.remember(messages)
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

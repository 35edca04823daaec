"""`qwen35 serve`: an OpenAI- and Anthropic-compatible server on this machine."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from ..bridge import Worker
from ..engine import Engine
from ..errors import UsageError
from ..events import Progress
from .options import add_model, add_preserve, add_session, keep, model_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_preserve(parser)
    add_session(parser, "keep the states of conversations on disk from one start to the next")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8035, help="default: %(default)s")
    parser.add_argument("--api-key", help="ask every client for this key")
    parser.add_argument("--alias", action="append", default=[], help="another model name to answer to; '*' is any")
    parser.add_argument("--parallel", type=int, default=4, help="answers that take turns (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=8, help="requests that may wait; more get 503 (default: 8)")
    parser.add_argument("--idle-timeout", type=float, help="seconds without work after which memory is freed")
    parser.add_argument("--allow-host", action="append", default=[], help="another Host name to accept")
    parser.add_argument("--allow-origin", action="append", default=[], help="a web page's origin to let in (CORS)")
    parser.add_argument("--allow-remote-media", action="store_true", help="fetch pictures from public web addresses")
    parser.add_argument("--media-dir", type=Path, help="let requests name files below this directory (file://)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def run(args: argparse.Namespace) -> int:
    from ..server.app import Settings, make_app
    from ..server.guard import LOOPBACK, Rules
    from ..server.listen import is_loopback, listen, serve
    from ..server.media import Media

    if not is_loopback(args.host) and not args.api_key:
        raise UsageError(f"--host {args.host} is open to the network: give an --api-key too", "host")
    if args.media_dir is not None and not args.media_dir.is_dir():
        raise UsageError(f"--media-dir {args.media_dir} is not a directory", "media_dir")
    if args.idle_timeout is not None and args.idle_timeout <= 0:
        raise UsageError(f"--idle-timeout must be above 0 seconds, not {args.idle_timeout:g}", "idle_timeout")
    logging.basicConfig(level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    socket = listen(args.host, args.port)

    def load(report: Callable[[Progress], None]) -> Engine:
        from .. import open as open_engine

        engine = open_engine(args.model, **model_options(args), on_progress=report)
        try:
            keep(engine, args)
        except BaseException:
            engine.close()
            raise
        return engine

    worker = Worker(load, args.queue, args.parallel, args.idle_timeout)
    hosts = (*LOOPBACK, *([args.host.lower()] if not is_loopback(args.host) else []), *map(str.lower, args.allow_host))
    settings = Settings(
        rules=Rules(hosts=hosts, origins=tuple(args.allow_origin), api_key=args.api_key),
        aliases=tuple(args.alias),
        media=Media(args.media_dir, args.allow_remote_media),
        preserve_thinking=args.preserve_thinking,
    )
    return serve(make_app(worker, settings), worker, socket)

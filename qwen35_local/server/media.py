"""Pictures and videos of requests: data URIs always, files and the web only where the user has said so."""

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from .refusal import Refused, bad
from .remote import fetch_remote

MAX_FETCHED = 16  # URLs of one request
MAX_MEDIA = 32 * 2**20  # bytes of one picture or video


class Media:
    """Gets the bytes behind a URL. `directory` opens file:// URLs below it, `remote` opens http and https."""

    def __init__(self, directory: Path | None = None, remote: bool = False):
        self._directory = directory.resolve() if directory else None
        self.remote = remote

    def fetch(self, url: str) -> bytes:
        """The bytes, at most MAX_MEDIA. Raises Refused (400)."""
        scheme = url[:8].partition(":")[0].lower()
        match scheme:
            case "data":
                return _sized(data_uri(url))
            case "file":
                return self._file(url)
            case "http" | "https":
                if not self.remote:
                    raise _bad(
                        "media are not fetched from the web: send a data: URI (or start with --allow-remote-media)"
                    )
                return fetch_remote(url, MAX_MEDIA)
        raise _bad(f"a media URL must begin with data:, not {url[:20]!r}")

    def _file(self, url: str) -> bytes:
        if self._directory is None:
            raise _bad("files are not read: send a data: URI (or start with --media-dir)")
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or "\0" in unquote(parts.path):
            raise _bad("a file URL must name a path of this machine")
        try:
            path = Path(unquote(parts.path)).resolve(strict=True)
            if not path.is_relative_to(self._directory) or not path.is_file():
                raise _bad("that file is not below the media directory")
            with path.open("rb") as file:
                return _sized(file.read(MAX_MEDIA + 1))
        except (OSError, RuntimeError) as error:
            raise _bad("that file is not below the media directory") from error


def prefetch(value: Any, media: Media) -> Callable[[str], bytes]:
    """Fetch every web URL of a request's media now; gives what looks them up afterwards. It blocks: use a thread."""
    found: dict[str, bytes] = {}
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            # The places where the surfaces have a URL: {"url": …} and {"image_url": …}.
            for url in (node.get("url"), node.get("image_url")):
                if isinstance(url, str) and url[:8].lower().startswith(("http://", "https://")):
                    if len(found) >= MAX_FETCHED:
                        raise _bad(f"a request may name at most {MAX_FETCHED} media on the web")
                    found[url] = found[url] if url in found else media.fetch(url)
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node

    def look_up(url: str) -> bytes:
        return found[url] if url in found else media.fetch(url)

    return look_up


def data_uri(url: str) -> bytes:
    """What a data: URI holds."""
    head, comma, payload = url.partition(",")
    if not comma:
        raise _bad("a data URI needs a comma before its data")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode(unquote(payload), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"a data URI holds bad base64: {error}") from error


def _sized(data: bytes) -> bytes:
    if not data:
        raise _bad("a picture or video is empty")
    if len(data) > MAX_MEDIA:
        raise _bad(f"a picture or video has more than {MAX_MEDIA} bytes")
    return data


def _bad(message: str) -> Refused:
    return bad(message, "messages", "invalid_media")

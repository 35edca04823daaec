"""Is a paste a picture? Dragged files arrive as paths, quoted or escaped as the terminal likes; others as data URIs."""

import base64
import binascii
import re
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlparse

from qwen35_local.errors import MediaError

from .load import is_media

DATA_URI = re.compile(r"data:(?:image|video)/[\w.+-]+(?:;[\w=.+-]+)*,", re.ASCII)
WORD = re.compile(r"'([^']*)'|\"([^\"]*)\"|((?:\\.|[^\s\\])+)")
LONGEST = 8192  # characters; a longer paste is no list of paths


def data_uri(text: str) -> bytes | None:
    """The bytes of a data URI, or None if the text is none; raises MediaError if it is a damaged one."""
    text = text.strip()
    match = DATA_URI.match(text)
    if match is None:
        return None
    body = text[match.end() :]
    if ";base64," not in match[0]:
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error as error:
        raise MediaError(f"the data URI is damaged: {error}") from error


def media_paths(text: str) -> list[Path]:
    """The files, if the paste is nothing but paths of existing pictures and clips; else an empty list."""
    text = text.strip()
    if not text or len(text) > LONGEST:
        return []
    whole = _path(text)
    if _usable(whole):
        return [whole]
    found = []
    for match in WORD.finditer(text):
        quoted = match[1] if match[1] is not None else match[2]
        path = _path(quoted if quoted is not None else re.sub(r"\\(.)", r"\1", match[3]))
        if not _usable(path):
            return []
        found.append(path)
    return found


def _path(text: str) -> Path:
    if text.startswith("file://"):
        return Path(unquote(urlparse(text).path))
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _usable(path: Path) -> bool:
    try:
        return is_media(path) and path.is_file()
    except (OSError, ValueError):
        return False

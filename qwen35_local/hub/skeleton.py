"""The headers of a repository's shards, as files of the full length that are nearly all hole: they open like the real
ones, so a conversion of 807 GB is planned, tensor by tensor, after a few megabytes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..checkpoint.files import INDEX, MAX_HEADER, Checkpoint
from ..errors import DownloadError
from .http import Again, Client
from .place import on_disk
from .remote import Listing, RemoteFile, auth_headers

GUESS = 64 << 10  # bytes; holds the header of a trunk shard
TRIES = 5


def fetch_skeleton(listing: Listing, weights: tuple[RemoteFile, ...], small: Path, directory: Path) -> Checkpoint:
    """`small` is where config.json and the index are. What was fetched before is kept."""
    client = Client(auth_headers(), 30.0)
    with on_disk(directory):
        directory.mkdir(exist_ok=True)
        for name in ("config.json", INDEX):
            if (small / name).exists():
                (directory / name).write_bytes((small / name).read_bytes())

    def fetch(file: RemoteFile) -> None:
        target = directory / file.path
        if target.exists() and target.stat().st_size == file.size:
            return
        head = _head(client, listing, file)
        with on_disk(target):
            part = target.with_name(target.name + ".part")
            with part.open("wb") as hole:
                hole.write(head)
                hole.truncate(file.size)
            part.replace(target)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fetch, weights))
    return Checkpoint.open(directory)


def _head(client: Client, listing: Listing, file: RemoteFile) -> bytes:
    """The header of a safetensors file and the length before it."""
    head = _bytes(client, listing, file, 0, min(GUESS, file.size))
    end = 8 + int.from_bytes(head[:8], "little")
    if not 8 <= end <= min(MAX_HEADER, file.size):
        raise DownloadError(f"{file.path} is not a safetensors file: it claims a header of {end - 8} bytes")
    if end > len(head):
        head += _bytes(client, listing, file, len(head), end)
    return head[:end]


def _bytes(client: Client, listing: Listing, file: RemoteFile, start: int, end: int) -> bytes:
    problem = ""
    for _ in range(TRIES):
        try:
            answer = client.get(listing.url(file.path), start, end, file.size, file.path)
            with answer.body as body:
                skipped = body.read(start - answer.start)
                data = body.read(end - start)
            if len(skipped) == start - answer.start and len(data) == end - start:
                return data
            problem = "the connection was closed early"
        except (Again, OSError) as error:
            problem = str(error)
    raise DownloadError(f"the header of {file.path} cannot be fetched: {problem}")

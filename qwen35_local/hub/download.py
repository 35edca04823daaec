"""A repository's files to a directory: planned, journalled, verified, and only then under the directory's name."""

import fnmatch
import http.client
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DownloadError, StorageError
from .fetch import Fetcher
from .http import Again, Client, StartOver
from .manifest import Entry, Manifest
from .place import MARGIN, Workplace, free_space, occupied, partial_of
from .progress import Meter, size
from .remote import Listing, RemoteFile, auth_headers
from .transfer import Patience

PROBED = 4 << 30  # bytes; beside a download of so many or more, what a probe of its speed fetches is nothing
STATE = "download.json"  # which repository and commit a partial directory is of
# Never fetched: formats that run code when they are opened, and what no engine of ours reads.
UNWANTED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx", ".gitattributes",
            "*.png", "*.jpg", "*.gif", "*.mp4", "original/*")  # fmt: skip


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What will be fetched and whether it fits. Bytes; `here` of them are in the partial directory already."""

    listing: Listing
    files: tuple[RemoteFile, ...]
    target: Path
    here: int
    free: int
    include: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        return max(self.nbytes - self.here, 0)

    def check_disk(self) -> None:
        """Refuse before the first byte what the disk cannot hold."""
        if self.missing + MARGIN > self.free:
            raise StorageError(
                f"{size(self.missing)} are still to come and {size(MARGIN)} stay free, but the disk of "
                f"{self.target.parent} has {size(self.free)}: free {size(self.missing + MARGIN - self.free)}, "
                "or choose another disk with --to"
            )


def plan_download(listing: Listing, target: Path, include: Sequence[str] = ()) -> DownloadPlan:
    files = select(listing, include)
    partial = partial_of(target)
    here = occupied(partial) if partial.is_dir() else 0
    here = min(here, sum(f.size for f in files))
    return DownloadPlan(listing, files, target, here, free_space(target), tuple(include))


def select(listing: Listing, include: Sequence[str]) -> tuple[RemoteFile, ...]:
    """The wanted files, weights last but for config.json: without it nothing opens the directory."""
    wanted = [f for f in listing.files if not _matches(f.path, UNWANTED) and (not include or _matches(f.path, include))]
    gguf = [f.path for f in wanted if f.path.endswith(".gguf")]
    if not include and len({Path(path).parent for path in gguf if "mmproj" not in path} or gguf) > 1:
        builds = sorted({str(Path(path).parent) for path in gguf} - {"."})
        raise DownloadError(f"{listing.repo} has {len(builds)} builds: choose one with --include '{builds[0]}/*'")
    if not any(f.path.endswith((".safetensors", ".gguf")) for f in wanted):
        raise DownloadError(f"{listing.repo} has no safetensors or GGUF files" + (" of that name" if include else ""))
    if gap := missing_part([f.path for f in wanted]):
        raise DownloadError(f"{listing.repo} is incomplete: it has no {gap}")
    return tuple(sorted(wanted, key=lambda f: (f.path == "config.json", f.sha256 is not None, f.path)))


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def missing_part(paths: Iterable[str]) -> str | None:
    """The first absent file of those numbered `-00002-of-00005`."""
    here = set(paths)
    for path in sorted(here):
        if found := re.search(r"-(\d{5})-of-(\d{5})(?=\.(?:safetensors|gguf)$)", path):
            for number in range(1, int(found[2]) + 1):
                name = f"{path[: found.start()]}-{number:05}-of-{found[2]}{path[found.end() :]}"
                if name not in here:
                    return name
    return None


def begun(target: Path, repo: str) -> str | None:
    """The commit that an unfinished download of `repo` is pinned to; raises if the place is another repository's."""
    try:
        state = json.loads((partial_of(target) / STATE).read_bytes())
        if state["repo"] != repo:
            raise StorageError(f"{partial_of(target)} holds a download of {state['repo']}: remove it, or use --to")
        return str(state["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def download(plan: DownloadPlan, meter: Meter, patience: Patience | None = None) -> Path:
    """Carry out a plan; returns the directory. Safe to kill at any instant, and to run again after."""
    with Workplace(plan.target) as place:
        plan.check_disk()
        place.claim(STATE, source_of(plan.listing))
        Fetcher(plan.listing, place.path, meter, patience).fetch_all(plan.files)
        place.publish(manifest_of(plan), (STATE,))
    return plan.target


def manifest_of(plan: DownloadPlan) -> Manifest:
    files = {f.path: Entry(f.size, "sha256" if f.sha256 else "blob", f.digest) for f in plan.files}
    return Manifest(files, source_of(plan.listing), made_by(plan.include))


def made_by(include: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of how these files were chosen."""
    return {"include": list(include)} if include else {}


def source_of(listing: Listing) -> dict[str, str]:
    return {
        "endpoint": listing.endpoint, "repo": listing.repo, "commit": listing.commit, "licence": listing.licence,
    }  # fmt: skip


def measure_rate(listing: Listing, file: RemoteFile, seconds: float = 2.0, most: int = 32 << 20) -> float | None:
    """Bytes a second of one connection's first moments, for a plan; None if it cannot be told."""
    client = Client(auth_headers(), 10.0)
    try:
        answer = client.get(listing.url(file.path), 0, min(file.size, most), file.size, file.path)
        with answer.body as body:
            start, received = time.monotonic(), 0
            while time.monotonic() - start < seconds and (data := body.read1(256 << 10)):
                received += len(data)
            return received / max(time.monotonic() - start, 1e-6) if received >= 1 << 16 else None
    except (Again, StartOver, DownloadError, OSError, http.client.HTTPException):
        return None

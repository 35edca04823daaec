"""The files of a listing, each whole and verified: one is hashed while the next arrives."""

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import DownloadError
from .http import Client
from .journal import discard, publish
from .place import on_disk
from .progress import Meter
from .remote import Listing, RemoteFile, auth_headers
from .transfer import PARTING, FileTransfer, Patience, Stopped

HASH_BLOCK = 4 << 20


class Fetcher:
    """Fetches and verifies the files of one listing into a directory. One call at a time."""

    def __init__(self, listing: Listing, directory: Path, meter: Meter, patience: Patience | None = None):
        self._listing, self._directory, self._meter = listing, directory, meter
        self._patience = patience or Patience()
        self._client = Client(auth_headers(), self._patience.stall)
        self.stop = threading.Event()

    def fetch(self, file: RemoteFile) -> Path:
        """One file, whole and verified."""
        target = self._directory / file.path
        if self._have(file, target):
            return target
        self._transfer(file)
        while not self._verified(file):
            self._again(file)
        return target

    def fetch_all(self, files: Sequence[RemoteFile]) -> None:
        """All files; one is verified while the next is fetched."""
        arrived: queue.SimpleQueue[RemoteFile | None] = queue.SimpleQueue()
        wrong: list[RemoteFile] = []
        failed: list[BaseException] = []

        def verify() -> None:
            while (file := arrived.get()) is not None and not self.stop.is_set():
                try:
                    if not self._verified(file):
                        wrong.append(file)
                except Stopped:
                    return
                except BaseException as error:
                    failed.append(error)
                    self.stop.set()

        checker = threading.Thread(target=verify, daemon=True)
        checker.start()
        try:
            for file in files:
                if self._have(file, self._directory / file.path):
                    continue
                self._transfer(file)
                arrived.put(file)
            arrived.put(None)
            while checker.is_alive():
                checker.join(0.2)
        except BaseException:
            self.stop.set()
            arrived.put(None)
            checker.join(PARTING)
            if failed:  # the checker stopped us: its reason is the real one
                raise failed[0] from None
            raise
        if failed:
            raise failed[0]
        for file in wrong:
            self._again(file)
            if not self._verified(file):
                raise AssertionError("_verified raises the second time")

    def _have(self, file: RemoteFile, target: Path) -> bool:
        """A file has its own name only after it was verified."""
        try:
            if target.stat().st_size != file.size:
                return False
        except OSError:
            return False
        self._meter.had(file.size)
        self._meter.file_done()
        return True

    def _part(self, file: RemoteFile) -> Path:
        return self._directory / (file.path + ".part")

    def _transfer(self, file: RemoteFile) -> None:
        part = self._part(file)
        with on_disk(part):
            part.parent.mkdir(parents=True, exist_ok=True)
        url, meter = self._listing.url(file.path), self._meter
        first = True

        def count(nbytes: int) -> None:
            nonlocal first
            meter.had(nbytes) if first else meter.add(nbytes)
            first = False

        FileTransfer(self._client, url, file, part, self._patience, self.stop, count, meter.notice).run()

    def _again(self, file: RemoteFile) -> None:
        self._suspect = file
        self._transfer(file)

    _suspect: RemoteFile | None = None

    def _verified(self, file: RemoteFile) -> bool:
        """Hash the part; publish it if it is right. Wrong the first time: drop it and say False; then: raise."""
        part = self._part(file)
        hasher = file.hasher()
        with on_disk(part):
            with part.open("rb") as bytes_:
                while block := bytes_.read(HASH_BLOCK):
                    hasher.update(block)
                    if self.stop.is_set():
                        raise Stopped
            if hasher.hexdigest() == file.digest:
                target = self._directory / file.path
                publish(part, target)
                self._meter.file_done()
                return True
            discard(part)
        kind = "SHA-256" if file.sha256 else "Git hash"
        reason = (
            f"{file.path} has the right length but the wrong bytes: its {kind} is {hasher.hexdigest()[:16]}…, "
            f"the hub lists {file.digest[:16]}…"
        )
        if self._suspect == file:
            raise DownloadError(f"{reason}, twice: the server or something on the way to it damages the file")
        self._meter.had(-file.size)
        self._meter.notice(f"{reason}; fetching it again")
        return False

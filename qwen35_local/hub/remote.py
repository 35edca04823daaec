"""What the Hub says of a repository: its files, their sizes and hashes, at one pinned commit. Through huggingface_hub,
so that tokens, endpoints and offline mode follow its own rules."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from ..errors import DownloadError

PUBLIC_HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository. `sha256` is the Git LFS oid; small files have only Git's own `blob` hash."""

    path: str
    size: int
    sha256: str | None
    blob: str

    def hasher(self) -> "hashlib._Hash":
        """A hash that ends equal to `digest` when it is fed the right bytes."""
        if self.sha256 is not None:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\x00" % self.size, usedforsecurity=False)

    @property
    def digest(self) -> str:
        return self.sha256 or self.blob


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    endpoint: str
    repo: str
    commit: str
    licence: str
    files: tuple[RemoteFile, ...]

    def url(self, path: str) -> str:
        return f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{quote(path)}"


def list_repository(repo: str, revision: str | None = None, endpoint: str | None = None) -> Listing:
    """Ask the Hub; raises DownloadError with the reason in words (no such repository, gated, offline, no network)."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint)
    with _in_words(repo, revision, api.endpoint):
        info = api.model_info(repo, revision=revision, timeout=30)
        if not info.sha:
            raise DownloadError(f"{api.endpoint} does not say which commit of {repo} it has: it is not a Hub")
        tree = list(api.list_repo_tree(repo, recursive=True, revision=info.sha))
    files = tuple(_file(entry) for entry in tree if isinstance(entry, RepoFile))
    card = info.card_data.to_dict() if info.card_data else {}
    licence = card.get("license_name") or card.get("license") or "not stated"
    return Listing(api.endpoint, repo, info.sha, str(licence), files)


def _file(entry) -> RemoteFile:
    """A listing is input like any other: a path that leaves the directory is refused here, once."""
    path = PurePosixPath(entry.path)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.path or "\x00" in entry.path:
        raise DownloadError(f"the repository lists {entry.path!r}, a file outside its own directory")
    return RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)


def auth_headers() -> dict[str, str]:
    """The token, where huggingface_hub finds one, and its user agent."""
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="qwen35-local")


@contextmanager
def _in_words(repo: str, revision: str | None, endpoint: str) -> Iterator[None]:
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise DownloadError(
            f"{repo} is gated: accept its terms at {endpoint}/{repo} and log in with `hf auth login`"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise DownloadError(f"{repo} has no revision {revision!r}") from error
    except hub.RepositoryNotFoundError as error:
        raise DownloadError(
            f"{endpoint} has no repository {repo}, or it is private: check the name, or log in with `hf auth login`"
        ) from error
    except hub.OfflineModeIsEnabled as error:
        raise DownloadError(f"HF_HUB_OFFLINE is set, and {repo} is not complete on this machine") from error
    except hub.HFValidationError as error:
        raise DownloadError(f"{repo!r} is not the name of a repository: it must be OWNER/NAME") from error
    except hub.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        raise DownloadError(http_reason(status, repo, endpoint)) from error
    except ValueError as error:  # JSON was expected
        raise DownloadError(not_the_hub(endpoint)) from error
    except DownloadError:
        raise
    except Exception as error:  # the transport's own errors: their class changed with every major of huggingface_hub
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        raise DownloadError(f"cannot reach {endpoint}: {reason}") from error


def http_reason(status: object, what: str, endpoint: str) -> str:
    match status:
        case 401:
            return f"{endpoint} wants a valid token for {what}: log in with `hf auth login`"
        case 403:
            return f"{endpoint} does not let this token read {what}: ask for access on its page"
        case 404:
            return f"{endpoint} has no {what}"
        case 429:
            return f"{endpoint} says there were too many requests: wait some minutes"
        case _:
            return f"{endpoint} answered {status} for {what}"


def not_the_hub(endpoint: str) -> str:
    return (
        f"what answered for {endpoint} is a web page, not the Hub: a login page of the network? "
        "Open it in a browser, then run the same line again"
    )

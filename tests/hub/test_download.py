"""Downloads from a fake Hub over real HTTP, with everything that goes wrong on real networks."""

import errno
import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hub.conftest import QUICK
from hub.fake_hub import COMMIT, TOKEN, FakeHub, Fault, Request
from qwen35_local.errors import DownloadError, StorageError
from qwen35_local.hub.download import begun, download, missing_part, plan_download
from qwen35_local.hub.manifest import Manifest
from qwen35_local.hub.place import partial_of
from qwen35_local.hub.progress import Meter
from qwen35_local.hub.remote import list_repository

BIG = "model-00001-of-00002.safetensors"


@pytest.fixture
def get(hub: FakeHub, tmp_path: Path) -> Callable[..., Path]:
    def get(name: str = "model", patience=QUICK, meter: Meter | None = None) -> Path:
        listing = list_repository("me/model", endpoint=hub.endpoint)
        plan = plan_download(listing, tmp_path / "models" / name)
        return download(plan, meter or Meter(plan.nbytes, len(plan.files), "fetched", quiet=True), patience)

    return get


def check(path: Path, hub: FakeHub) -> None:
    for name, data in hub.files.items():
        if name not in (".gitattributes", "pytorch_model.bin"):
            assert (path / name).read_bytes() == data, name
    assert {p.name for p in path.iterdir()} == set(hub.files) - {".gitattributes", "pytorch_model.bin"} | {
        "qwen35.json"
    }
    assert not partial_of(path).exists()


def on_big(fault: Fault, times: int = 1, kind: str = "cdn") -> Callable[[Request], Fault | None]:
    """This fault for the first so many requests for the big file."""
    left = [times]
    lock = threading.Lock()

    def choose(request: Request) -> Fault | None:
        with lock:
            if request.kind == kind and request.path.endswith(BIG) and left[0] > 0:
                left[0] -= 1
                return fault
        return None

    return choose


def test_whole_repository(hub, get):
    path = get()
    check(path, hub)
    manifest = Manifest.read(path)
    assert manifest is not None
    assert manifest.source == {
        "endpoint": hub.endpoint, "repo": "me/model", "commit": COMMIT, "licence": "apache-2.0",
    }  # fmt: skip
    assert manifest.files["config.json"].kind == "blob"
    assert manifest.files[BIG].kind == "sha256"
    assert hub.sent == 1_000_001


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "0"}),
        Fault(status=429, headers={"Retry-After": "0.1"}),
        Fault(cut=10_000),
        Fault(cut=0),
        Fault(stall=5_000),
        Fault(status=416),
    ],
    ids=["500", "503", "429", "cut", "cut at once", "stall", "416"],
)
def test_passing_troubles_cost_little(hub, get, fault):
    hub.fault = on_big(fault, 2 if fault.status != 416 else 1)
    check(get(), hub)
    assert hub.sent <= 1_000_001 + (0 if fault.status != 416 else 700_001)


def test_a_server_that_never_recovers_is_given_up_and_work_is_kept(hub, get):
    late = [False]
    hub.fault = lambda r: Fault(status=503) if late[0] and r.kind == "cdn" else None

    def after_a_while(request: Request) -> Fault | None:
        late[0] = late[0] or request.number >= 5
        return Fault(status=503) if late[0] and request.kind == "cdn" else None

    hub.fault = after_a_while
    with pytest.raises(DownloadError, match=r"4 times in a row: the server answered 503.*run the same line again"):
        get()
    hub.fault = lambda r: None
    check(get(), hub)
    assert hub.sent == 1_000_001


def test_one_trouble_of_all_connections_is_one_failure(hub, get):
    """All three connections fail together, three times: three failures in a row, where four are too many."""
    together, trouble = threading.Barrier(QUICK.connections, timeout=20), on_big(Fault(status=503), 9)

    def fault(request: Request) -> Fault | None:
        if found := trouble(request):
            together.wait()
        return found

    hub.fault = fault
    check(get(patience=replace(QUICK, stall=20.0)), hub)
    assert hub.sent == 1_000_001


def test_server_without_ranges(hub, get):
    hub.fault = lambda r: Fault(ignore_range=True) if r.kind == "cdn" else None
    check(get(), hub)


def test_server_without_ranges_that_breaks(hub, get):
    breaks = [3]

    def fault(request: Request) -> Fault | None:
        if request.kind != "cdn":
            return None
        breaks[0] -= request.path.endswith(BIG)
        return Fault(ignore_range=True, cut=400_000 if breaks[0] >= 0 and request.path.endswith(BIG) else None)

    hub.fault = fault
    check(get(), hub)


def test_wrong_bytes_are_fetched_again(hub, get):
    data = hub.files[BIG]
    hub.fault = on_big(Fault(data=data[:100] + b"X" + data[101:]))
    check(get(), hub)


def test_wrong_bytes_twice_are_refused(hub, get, tmp_path):
    data = hub.files[BIG]
    hub.fault = on_big(Fault(data=data[:-1] + bytes([data[-1] ^ 1])), 10**9)
    with pytest.raises(DownloadError, match=r"right length but the wrong bytes: its SHA-256 is .* twice"):
        get()
    assert not (tmp_path / "models" / "model").exists()


def test_small_files_are_verified_too(hub, get):
    hub.fault = lambda r: Fault(data=b'{"model_type": "qwen3_5_mof"}\n') if r.path.endswith("config.json") else None
    with pytest.raises(DownloadError, match=r"config\.json has the right length but the wrong bytes: its Git hash"):
        get()


def test_changed_etag_starts_over(hub, get):
    hub.fault = lambda r: Fault(etag="old") if r.kind == "resolve" and r.number < 4 and BIG in r.path else None
    check(get(), hub)


def test_etag_that_always_changes_is_refused(hub, get):
    hub.fault = lambda r: Fault(etag=str(r.number)) if r.kind == "resolve" else None
    with pytest.raises(DownloadError, match=r"changed on the server: run the same line again"):
        get()


def test_changed_length_is_refused(hub, get):
    hub.fault = lambda r: Fault(data=b"short" * 40_000) if BIG in r.path and r.kind == "cdn" else None
    with pytest.raises(DownloadError, match=r"has 200000 bytes now, 700001 were listed"):
        get()


def test_captive_portal(hub, get):
    page = Fault(status=200, body=b"<html>Welcome to the hotel</html>", headers={"Content-Type": "text/html"})
    hub.fault = lambda r: page if r.kind == "cdn" else None
    with pytest.raises(DownloadError, match="a web page, not the Hub: a login page"):
        get()
    hub.fault = lambda r: page
    with pytest.raises(DownloadError, match="a web page, not the Hub: a login page"):
        get()
    hub.fault = lambda r: None
    check(get(), hub)


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, "wants a valid token"),
        (403, {}, "does not let this token read"),
        (404, {}, "has no "),
        (403, {"X-Error-Code": "GatedRepo"}, "is gated: accept its terms"),
        (418, {}, "answered 418"),
    ],
)
def test_refusals_are_final_and_said(hub, get, status, headers, message):
    hub.fault = lambda r: Fault(status=status, headers=headers) if r.kind == "cdn" else None
    with pytest.raises(DownloadError, match=message):
        get()
    assert len(hub.seen("cdn")) <= QUICK.connections * 2


def test_an_end_closes_every_connection_and_waits_for_none(hub, get):
    """One connection is refused while the others hang, for longer than anybody waits."""
    begun, refused = threading.Barrier(QUICK.connections, timeout=5), on_big(Fault(status=404))

    def fault(request: Request) -> Fault | None:
        if request.kind != "cdn" or BIG not in request.path:
            return None
        begun.wait()
        return refused(request) or Fault(stall=1000)

    hub.fault = fault
    asked = time.monotonic()
    with pytest.raises(DownloadError, match="has no"):
        get(patience=replace(QUICK, stall=60.0))
    assert time.monotonic() - asked < 5
    assert not [thread.name for thread in threading.enumerate() if "_work" in thread.name or "verify" in thread.name]


def test_listing_refusals(hub):
    with pytest.raises(DownloadError, match="has no repository you/other"):
        list_repository("you/other", endpoint=hub.endpoint)
    with pytest.raises(DownloadError, match="has no revision 'nope'"):
        list_repository("me/model", "nope", hub.endpoint)
    with pytest.raises(DownloadError, match="must be OWNER/NAME"):
        list_repository("a/b/c", endpoint=hub.endpoint)
    hub.gated = True
    with pytest.raises(DownloadError, match="is gated: accept its terms"):
        list_repository("me/model", endpoint=hub.endpoint)
    with pytest.raises(DownloadError, match=r"cannot reach http://127\.0\.0\.1:9: Connection refused$"):
        list_repository("me/model", endpoint="http://127.0.0.1:9")


def test_paths_that_leave_the_directory_are_refused(hub):
    hub.files["../../.ssh/authorized_keys"] = b"x"
    with pytest.raises(DownloadError, match="outside its own directory"):
        list_repository("me/model", endpoint=hub.endpoint)


def test_the_token_stays_with_the_hub(hub, get, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.gated = True
    check(get(), hub)
    assert all(r.headers.get("Authorization") == f"Bearer {TOKEN}" for r in hub.seen("resolve"))
    assert hub.seen("cdn")
    assert not any("Authorization" in r.headers for r in hub.seen("cdn"))


def test_disk_full_at_the_start(hub, tmp_path):
    listing = list_repository("me/model", endpoint=hub.endpoint)
    plan = replace(plan_download(listing, tmp_path / "model"), free=1_000_000)
    with pytest.raises(StorageError, match=r"1\.0 MB are still to come .* has 1\.0 MB: free 1\.1 GB"):
        download(plan, Meter(1, 1, "fetched", quiet=True), QUICK)
    assert not hub.seen("cdn")


def test_disk_full_in_the_middle(hub, get, monkeypatch):
    written, real = [0], os.pwrite

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        written[0] += len(data)
        if written[0] > 400_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(StorageError, match="is full: what is there already is kept"):
            get()
    check(get(), hub)
    assert hub.sent < 1_600_000


@pytest.mark.parametrize("name", [BIG, "model.partial"])
def test_disk_full_at_the_rename(hub, get, monkeypatch, name):
    real = Path.replace

    def replace_(self: Path, target: Path) -> Path:
        if self.name in (name, f"{name}.part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_)
        with pytest.raises(StorageError, match="run the same line again"):
            get()
    check(get(), hub)
    assert hub.sent == 1_000_001


def test_a_place_that_cannot_be_written(hub, get, tmp_path):
    (tmp_path / "models").write_text("a file where a directory should be")
    with pytest.raises(StorageError, match="cannot be written"):
        get()


def test_two_downloads_at_once(hub, get):
    hub.rate = 300_000
    first = threading.Thread(target=get)
    first.start()
    while not hub.seen("cdn"):
        time.sleep(0.01)
    with pytest.raises(StorageError, match=rf"another process \(pid {os.getpid()}\) is already working on"):
        get()
    hub.rate = None
    first.join()


def test_clock_jumps_do_not_matter(hub, get, monkeypatch):
    clock = itertools.count(2e9, -1e6)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    check(get(), hub)


def test_another_repository_in_the_way(tmp_path):
    partial = partial_of(tmp_path / "model")
    partial.mkdir()
    (partial / "download.json").write_text(json.dumps({"repo": "you/other", "commit": COMMIT}))
    with pytest.raises(StorageError, match="holds a download of you/other"):
        begun(tmp_path / "model", "me/model")
    assert begun(tmp_path / "model", "you/other") == COMMIT


def test_files_of_another_commit_are_not_kept(hub, get, tmp_path):
    """Of the same name and length, verified then, and not what is wanted now."""
    partial = partial_of(tmp_path / "models" / "model")
    partial.mkdir(parents=True)
    (partial / "download.json").write_text(json.dumps({"repo": "me/model", "commit": "0" * 40}))
    (partial / "config.json").write_bytes(b"x" * len(hub.files["config.json"]))
    check(get(), hub)


def test_repository_with_a_missing_part(hub):
    del hub.files["model-00002-of-00002.safetensors"]
    listing = list_repository("me/model", endpoint=hub.endpoint)
    with pytest.raises(DownloadError, match=r"it has no model-00002-of-00002\.safetensors"):
        plan_download(listing, Path("x"))
    assert missing_part(["Q4/m-00001-of-00002.gguf", "Q4/m-00002-of-00002.gguf"]) is None


def test_many_builds_need_a_choice(hub):
    for quant in ("Q4", "Q8"):
        hub.files[f"{quant}/m.gguf"] = b"GGUF"
    listing = list_repository("me/model", endpoint=hub.endpoint)
    with pytest.raises(DownloadError, match=r"has 2 builds: choose one with --include 'Q4/\*'"):
        plan_download(listing, Path("x"))
    assert [f.path for f in plan_download(listing, Path("x"), ("Q8/*",)).files] == ["Q8/m.gguf"]

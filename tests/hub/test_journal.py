"""What survives a killed process and what survives a power cut."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen35_local.hub import journal as journal_module
from qwen35_local.hub.journal import Journal, journal_of, sync_directory


def test_a_killed_process_keeps_every_written_byte(tmp_path):
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        assert [journal.length(i) for i in range(journal.count)] == [40, 40, 20]
        journal.write(0, b"a" * 40)
        journal.write(2, b"c" * 7)
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        assert (journal.done, journal.unfinished) == (47, [1, 2])
        journal.write(2, b"c" * 13)
        journal.write(1, b"b" * 40)
        assert journal.unfinished == []
    assert (tmp_path / "a.part").read_bytes() == b"a" * 40 + b"b" * 40 + b"c" * 20


def test_a_restarted_machine_trusts_only_what_was_synced(tmp_path, monkeypatch):
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        journal.write(0, b"a" * 30)
        journal.settle()
        journal.write(0, b"a" * 10)
    monkeypatch.setattr(journal_module, "boot_id", lambda: "another boot")
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        assert journal.done == 30
    monkeypatch.setattr(journal_module, "boot_id", lambda: "")
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        assert journal.done == 30


@pytest.mark.parametrize("change", [(101, 40, "digest"), (100, 50, "digest"), (100, 40, "other")])
def test_another_file_begins_from_nothing(tmp_path, change):
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        journal.write(0, b"a" * 30)
    with Journal(tmp_path / "a.part", *change) as journal:
        assert journal.done == 0


@settings(deadline=None)
@given(cut=st.integers(0, 559), flip=st.integers(0, 559), mask=st.integers(1, 255))
def test_a_damaged_journal_never_claims_more_than_the_file(tmp_path_factory, cut, flip, mask):
    path = tmp_path_factory.mktemp("journal") / "a.part"
    with Journal(path, 100, 40, "digest") as journal:
        journal.write(1, b"b" * 40)
    text = bytearray(journal_of(path).read_bytes())
    assert len(text) == 560
    text[flip] ^= mask
    journal_of(path).write_bytes(text[:cut] if cut % 2 else text)
    with Journal(path, 100, 40, "digest") as journal:
        assert all(0 <= journal.written(i) <= journal.length(i) for i in range(journal.count))


def test_threads_cannot_write_after_close(tmp_path):
    with Journal(tmp_path / "a.part", 100, 40, "digest") as journal:
        pass
    with pytest.raises(OSError, match="closed"):
        journal.write(0, b"late")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_directories_that_cannot_be_synced(tmp_path, monkeypatch, number):
    """Those of network shares; a real error is one."""

    def fsync(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            sync_directory(tmp_path)
    else:
        sync_directory(tmp_path)

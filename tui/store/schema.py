"""The layout of the history file, and what to do with a file that cannot be used."""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

BUSY_MS = 250  # how long a write may wait for another window; the app retries later, so it must not freeze here
CHECKED = 64 << 20  # bytes: a larger file takes too long to check before the app can open

FIRST = """
CREATE TABLE chats(
    id INTEGER PRIMARY KEY, title TEXT NOT NULL, titled INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL,
    updated REAL NOT NULL, leaf INTEGER NOT NULL DEFAULT 0, draft TEXT NOT NULL DEFAULT '', deleted REAL);
CREATE TABLE turns(
    id INTEGER PRIMARY KEY, chat INTEGER NOT NULL REFERENCES chats(id) ON DELETE CASCADE, parent INTEGER NOT NULL,
    role TEXT NOT NULL, text TEXT NOT NULL, reasoning TEXT NOT NULL, tool_calls TEXT NOT NULL,
    tool_call_id TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, seconds REAL NOT NULL,
    stats TEXT NOT NULL, created REAL NOT NULL);
CREATE INDEX turns_of_chat ON turns(chat);
CREATE TABLE media(
    turn INTEGER NOT NULL REFERENCES turns(id) ON DELETE CASCADE, place INTEGER NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, data BLOB NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, max_pixels INTEGER,
    PRIMARY KEY(turn, place));
CREATE VIRTUAL TABLE found USING fts5(
    text, content='turns', content_rowid='id', tokenize='unicode61', prefix='1 2 3 4');
CREATE TRIGGER turns_added AFTER INSERT ON turns BEGIN
    INSERT INTO found(rowid, text) VALUES (new.id, new.text); END;
CREATE TRIGGER turns_gone AFTER DELETE ON turns BEGIN
    INSERT INTO found(found, rowid, text) VALUES ('delete', old.id, old.text); END;
CREATE TRIGGER turns_changed AFTER UPDATE OF text ON turns WHEN old.text <> new.text BEGIN
    INSERT INTO found(found, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO found(rowid, text) VALUES (new.id, new.text); END;
"""
# What leads from one version to the next; a file is taken through those that it lacks, all or none.
STEPS = (
    FIRST,
    "ALTER TABLE media ADD COLUMN seen TEXT NOT NULL DEFAULT '';",  # JSON of `Sight`
)
VERSION = len(STEPS)


@dataclass(frozen=True, slots=True)
class Opened:
    """A usable connection and, where it is not to the user's own file, a sentence that says why."""

    connection: sqlite3.Connection
    notice: str = ""


def open_history(path: Path | None) -> Opened:
    """The history at `path`; None keeps it in memory.

    A damaged file is set aside under another name. A file of a newer version, and one that cannot be opened, is left
    alone; the chats of this window are then kept in memory.
    """
    if path is None:
        return Opened(_prepared(sqlite3.connect(":memory:", isolation_level=None)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                connection.close()
                return _memory(
                    f"{path} was written by a newer version of this app ({version}, this one knows {VERSION})"
                )
            if version > 0 and path.stat().st_size < CHECKED:
                _check(connection)
            return Opened(_prepared(connection))
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError:
            connection.close()
            aside = _set_aside(path)
            fresh = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
            return Opened(_prepared(fresh), f"the history was damaged: it is kept as {aside}, and a new one was begun")
    except (OSError, sqlite3.Error) as error:
        return _memory(f"{path} cannot be used ({error})")


def _check(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("quick_check failed")


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    # IMMEDIATE, so that two windows that start at once do not both create the tables.
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for step in STEPS[version:]:
        for statement in _statements(step):
            connection.execute(statement)
    if version < VERSION:
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    return connection


def _statements(script: str) -> list[str]:
    statements, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _memory(why: str) -> Opened:
    memory = _prepared(sqlite3.connect(":memory:", isolation_level=None))
    return Opened(memory, f"{why}: the chats of this window are not saved")


def _set_aside(path: Path) -> Path:
    """Rename a damaged file and its log; never over another file."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    count = 0
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{count}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.rename(aside.with_name(aside.name + suffix))
    return aside

"""Reading and writing chats. Every call is one short transaction; `sqlite3.Error` goes to the caller."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen35_local.events import ToolCall

from ..chat.media import Media, Sight
from ..chat.turns import Tree, Turn
from ..safe import one_line
from .schema import open_history

TITLE_LENGTH = 60  # characters


@dataclass(frozen=True, slots=True)
class ChatEntry:
    """A line of the list of chats. `turns` counts them; `snippet` shows where a search matched; `draft`: something is
    typed there and not sent, which names a chat that has no title yet."""

    id: int
    title: str
    updated: float
    turns: int
    snippet: str = ""
    turn: int = 0
    draft: bool = False


class History:
    """The chats of one file. `notice` is a sentence for the user when it is not the file that was asked for."""

    def __init__(self, path: Path | None):
        opened = open_history(path)
        self._db = opened.connection
        self.notice = opened.notice

    def close(self) -> None:
        self._db.close()

    # --- chats

    def chats(self, limit: int = 500) -> list[ChatEntry]:
        """The newest chats that have a turn or a draft."""
        rows = self._db.execute(
            "SELECT c.id, c.title, c.updated, count(t.id), substr(c.draft, 1, 200) FROM chats c "
            "LEFT JOIN turns t ON t.chat = c.id WHERE c.deleted IS NULL GROUP BY c.id "
            "HAVING count(t.id) > 0 OR c.draft <> '' ORDER BY c.updated DESC, c.id DESC LIMIT ?",
            (limit,),
        )
        return [
            ChatEntry(id, title or one_line(draft, TITLE_LENGTH), updated, turns, draft=bool(draft))
            for id, title, updated, turns, draft in rows
        ]

    def rename(self, chat: int, title: str) -> None:
        with self._transaction():
            self._db.execute("UPDATE chats SET title = ?, titled = 1 WHERE id = ?", (one_line(title, 200), chat))

    def title(self, chat: int) -> str:
        row = self._db.execute("SELECT title FROM chats WHERE id = ?", (chat,)).fetchone()
        return row[0] if row else ""

    def delete(self, chat: int) -> None:
        """Hide a chat; `undelete` brings it back until `purge`."""
        with self._transaction():
            self._db.execute("UPDATE chats SET deleted = ? WHERE id = ?", (time.time(), chat))

    def undelete(self, chat: int) -> None:
        with self._transaction():
            self._db.execute("UPDATE chats SET deleted = NULL WHERE id = ?", (chat,))

    def purge(self, older: float = 30 * 86400) -> None:
        """Erase what was deleted more than `older` seconds ago, and chats in which nothing was said for a day."""
        now = time.time()
        with self._transaction():
            self._db.execute("DELETE FROM chats WHERE deleted < ?", (now - older,))
            self._db.execute(
                "DELETE FROM chats WHERE updated < ? AND draft = '' AND id NOT IN (SELECT chat FROM turns)",
                (now - 86400,),
            )

    def draft(self, chat: int) -> str:
        row = self._db.execute("SELECT draft FROM chats WHERE id = ?", (chat,)).fetchone()
        return row[0] if row else ""

    def set_draft(self, chat: int, text: str) -> None:
        """Keep what is typed and not sent."""
        now = time.time()
        with self._transaction():
            self._db.execute(
                "INSERT INTO chats(id, title, created, updated, draft) VALUES (?, '', ?, ?, ?) "
                "ON CONFLICT(id) DO UPDATE SET draft = excluded.draft",
                (chat, now, now, _storable(text)),
            )

    # --- turns

    def put(self, chat: int, turns: Sequence[Turn], leaf: int) -> None:
        """Store turns, new ones or new states of old ones; the first words of a user name the chat."""
        now = time.time()
        with self._transaction():
            self._db.execute(
                "INSERT INTO chats(id, title, created, updated, leaf) VALUES (?, '', ?, ?, ?) "
                "ON CONFLICT(id) DO UPDATE SET updated = excluded.updated, leaf = excluded.leaf",
                (chat, now, now, leaf),
            )
            for turn in turns:
                self._db.execute(
                    "INSERT INTO turns(id, chat, parent, role, created, text, reasoning, tool_calls, tool_call_id, "
                    "status, error, seconds, stats) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT(id) DO UPDATE SET text = excluded.text, reasoning = excluded.reasoning, "
                    "tool_calls = excluded.tool_calls, status = excluded.status, error = excluded.error, "
                    "seconds = excluded.seconds, stats = excluded.stats",
                    (turn.id, chat, turn.parent, turn.role, turn.created, *_values(turn)),
                )
                for place, media in enumerate(turn.media):
                    self._db.execute(
                        "INSERT OR IGNORE INTO media VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (turn.id, place, *_media_values(media)),
                    )
                if turn.role == "user":
                    name = turn.text if turn.text.strip() else " ".join(media.name for media in turn.media)
                    title = one_line(_storable(name), TITLE_LENGTH)
                    self._db.execute("UPDATE chats SET title = ? WHERE id = ? AND title = ''", (title, chat))

    def see(self, turn: int, media: Sequence[Media]) -> None:
        """Keep what the model saw of the pictures of a turn that is stored already."""
        with self._transaction():
            for place, one in enumerate(media):
                self._db.execute("UPDATE media SET seen = ? WHERE turn = ? AND place = ?", (_seen(one), turn, place))

    def set_leaf(self, chat: int, leaf: int) -> None:
        with self._transaction():
            self._db.execute("UPDATE chats SET leaf = ? WHERE id = ?", (leaf, chat))

    def load(self, chat: int) -> Tree:
        media: dict[int, list[Media]] = {}
        rows = self._db.execute(
            "SELECT m.turn, m.name, m.kind, m.data, m.width, m.height, m.max_pixels, m.seen FROM media m "
            "JOIN turns t ON t.id = m.turn WHERE t.chat = ? ORDER BY m.turn, m.place",
            (chat,),
        )
        for turn, name, kind, data, width, height, most, seen in rows:
            sight = Sight.from_json(json.loads(seen)) if seen else None
            media.setdefault(turn, []).append(Media(name, kind, data, (width, height), most, sight))
        rows = self._db.execute(
            "SELECT id, parent, role, text, reasoning, tool_calls, tool_call_id, status, error, seconds, stats, "
            "created FROM turns WHERE chat = ?",
            (chat,),
        )
        turns = [_turn(row, tuple(media.get(row[0], ()))) for row in rows]
        leaf = self._db.execute("SELECT leaf FROM chats WHERE id = ?", (chat,)).fetchone()
        return Tree(turns, leaf[0] if leaf else 0)

    def search(self, words: str, limit: int = 50) -> list[ChatEntry]:
        """Chats with a turn that holds every word (the last one may be its beginning), newest first."""
        query = fts_query(words)
        if not query:
            return self.chats(limit)
        rows = self._db.execute(
            "WITH hits AS (SELECT rowid AS id FROM found WHERE found MATCH ? ORDER BY rowid DESC LIMIT ?) "
            "SELECT c.id, c.title, c.updated, 0, t.text, t.id FROM hits JOIN turns t ON t.id = hits.id "
            "JOIN chats c ON c.id = t.chat WHERE c.deleted IS NULL ORDER BY hits.id DESC",
            (query, 4 * limit),
        )
        entries = {}
        for id, title, updated, turns, text, turn in rows:
            entries.setdefault(id, ChatEntry(id, title, updated, turns, snippet(text, words), turn))
        pattern = "%" + words.strip().replace("%", "").replace("_", "") + "%"
        titled = self._db.execute(
            "SELECT id, title, updated FROM chats WHERE deleted IS NULL AND title LIKE ? ORDER BY updated DESC LIMIT ?",
            (pattern, limit),
        )
        for id, title, updated in titled:
            entries.setdefault(id, ChatEntry(id, title, updated, 0))
        return list(entries.values())[:limit]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def new_id() -> int:
    """Grows with time and is not given out twice, even by two windows: milliseconds, then 20 random bits."""
    return (time.time_ns() // 1_000_000 << 20) | secrets.randbits(20)


def fts_query(words: str) -> str:
    """An FTS5 query in which nothing that a person types is an operator."""
    terms = ["".join(c if c.isalnum() else " " for c in word).split() for word in words.split()]
    flat = [term for group in terms for term in group]
    return " ".join(f'"{term}"' for term in flat[:-1]) + (f' "{flat[-1]}"*' if flat else "")


def snippet(text: str, words: str, width: int = 60) -> str:
    """The stretch of `text` around the first of `words`, on one line."""
    lower = text.lower()
    places = [lower.find(word.lower()) for word in words.split()]
    at = min((place for place in places if place >= 0), default=0)
    start = max(at - width // 3, 0)
    return ("…" if start else "") + one_line(text[start:], width)


def _values(turn: Turn) -> tuple[Any, ...]:
    calls = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in turn.tool_calls]
    return (
        *(_storable(turn.text), _storable(turn.reasoning), json.dumps(calls, ensure_ascii=True), turn.tool_call_id),
        *(turn.status, _storable(turn.error), turn.seconds, json.dumps(dict(turn.stats))),
    )


def _media_values(media: Media) -> tuple[Any, ...]:
    return (media.name, media.kind, media.data, *media.pixels, media.max_pixels, _seen(media))


def _seen(media: Media) -> str:
    return json.dumps(media.sight.to_json()) if media.sight else ""


def _storable(text: str) -> str:
    """SQLite takes UTF-8 only: a lone surrogate, which a paste can bring, becomes U+FFFD."""
    return text.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in text) else text


def _turn(row: tuple[Any, ...], media: tuple[Media, ...]) -> Turn:
    id, parent, role, text, reasoning, calls, call_id, status, error, seconds, stats, created = row
    tool_calls = tuple(ToolCall(call["name"], call["arguments"], call["id"]) for call in json.loads(calls))
    numbers: Mapping[str, Any] = json.loads(stats)
    return Turn(
        *(id, parent, role, text, reasoning, tool_calls, call_id, status, error, seconds, numbers, media, created)
    )

"""What every group of verbs needs."""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..chat.talk import Talk
from ..settings import Preferences

if TYPE_CHECKING:
    from ..app import ChatApp
    from ..screens.chat import ChatScreen


class Group:
    """Verbs of one chat screen; `slash_<name>` methods are commands, `on_<name>` ones act on a turn."""

    def __init__(self, screen: "ChatScreen"):
        self._screen = screen

    @property
    def _app(self) -> "ChatApp":
        return cast("ChatApp", self._screen.app)

    @property
    def _talk(self) -> Talk:
        return self._screen.talk

    @property
    def _preferences(self) -> Preferences:
        return self._app.preferences

    def _prefer(self, **changes: Any) -> None:
        self._app.prefer(**changes)

    def _busy(self) -> bool:
        """Whether the model still answers; says so, as nothing should seem to be ignored."""
        if self._talk.busy:
            self._screen.say("the model is still answering: Esc stops it")
        return self._talk.busy

    def _written(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except sqlite3.Error as error:
            self._screen.say(f"the history could not be changed ({error})")
            return False
        return True

"""The app: owns the engine's thread, the history and the user's choices, and shows the chat."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from textual.app import App
from textual.binding import Binding
from textual.filter import Monochrome, NoColor

from qwen35_local.bridge import OpenEngine

from .chat.host import EngineHost, Remember
from .chat.talk import Talk
from .models import FindModels
from .palette import Palette
from .palette_commands import SlashProvider
from .screens.chat import ChatScreen
from .settings import Preferences
from .store.history import History
from .themes import THEMES
from .vision.cells import depth_of
from .vision.painter import Graphics, Painter


class ChatApp(App[None]):
    """`data` is the folder of the history and the settings; None keeps nothing. `overrides` are the command line's.

    `find_models` lists what `/model` offers; `graphics` is how the terminal can draw pictures; `remember` keeps what
    was said in a session on disk.
    """

    TITLE = "qwen35"
    COMMANDS = {SlashProvider}  # noqa: RUF012
    BINDINGS = [  # noqa: RUF012
        Binding("ctrl+q", "quit", "Quit", id="quit", priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", id="suspend", show=False),
        Binding("ctrl+c", "copy_or_stop", "Copy, stop, quit", id="interrupt", priority=True, show=False),
    ]
    CSS = """
    ChatScreen { background: $background; }
    Transcript, Composer, Suggestions, Dialog OptionList, Dialog VerticalScroll {
        scrollbar-size-vertical: 1; scrollbar-color: $panel; scrollbar-color-hover: $border;
        scrollbar-color-active: $border; scrollbar-background: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background;
    }
    OptionList > .option-list--option-highlighted { background: $panel; color: $foreground; text-style: none; }
    OptionList:focus > .option-list--option-highlighted { background: $panel; color: $foreground; text-style: none; }
    OptionList:ansi > .option-list--option-highlighted { background: ansi_cyan; text-style: bold underline; }
    OptionList:ansi:focus > .option-list--option-highlighted { background: ansi_cyan; text-style: bold underline; }
    Dialog OptionList:focus { border: none; }
    Dialog TextArea:focus { border: round $border; }
    Dialog Input:focus { border: none; border-bottom: solid $border; }
    """

    def __init__(
        self,
        open_engine: OpenEngine,
        data: Path | None = None,
        overrides: dict | None = None,
        find_models: FindModels = list,
        graphics: Graphics = "cells",
        remember: Remember | None = None,
    ):
        super().__init__()
        if self.no_color:  # Textual would send greys, which are colours too
            self._filters = [one for one in self._filters if not isinstance(one, Monochrome)] + [NoColor()]
        self._data = data
        self._graphics: Graphics = graphics
        self.find_models = find_models
        self.preferences, notice = Preferences.load(self._settings_path)
        self.preferences = replace(self.preferences, **(overrides or {}))
        self.host = EngineHost(open_engine, remember)
        self.history = History(data / "history.sqlite3" if data else None)
        self.talk = Talk(self.host, self.history, lambda: self.preferences)
        self.talk.notice = " ".join(filter(None, [notice, self.talk.notice]))
        for theme in THEMES:
            self.register_theme(theme)

    @property
    def _settings_path(self) -> Path | None:
        return self._data / "settings.json" if self._data else None

    @property
    def palette(self) -> Palette:
        theme = self.current_theme
        return Palette.of(self.theme_variables, theme.dark, theme.ansi, self.painter)

    @cached_property
    def painter(self) -> Painter:
        """Made when the terminal is known; screenshots of the app have all colours."""
        if self.is_headless or self._driver is None:
            return Painter()
        if self.no_color:
            return Painter("none")
        graphics = self._graphics
        return Painter(depth_of(self.console.color_system), graphics, self._driver.write)

    def on_mount(self) -> None:
        self._show_theme()
        if self.preferences.keys:
            self.set_keymap(dict(self.preferences.keys))
        self.chat = ChatScreen(self.host, self.talk, self.palette)
        self.push_screen(self.chat)
        self.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self._recolour))
        self.call_after_refresh(self.host.start)

    def _recolour(self) -> None:
        self.chat.repaint(self.palette)

    def prefer(self, **changes) -> None:
        """Change and keep a choice."""
        self.preferences = replace(self.preferences, **changes)
        try:
            self.preferences.save(self._settings_path)
        except OSError as error:
            self.chat.say(f"the settings could not be saved ({error})")
        if "theme" in changes:
            self._show_theme()

    def _show_theme(self) -> None:
        """Without colours the terminal's own theme, which marks what is chosen by its attributes."""
        self.theme = "ansi-dark" if self.no_color else self.preferences.theme

    def action_copy_or_stop(self) -> None:
        """Ctrl+C: copies what is selected, else stops an answer, else clears the composer; twice, it leaves."""
        selected = self.screen.get_selected_text()
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
        elif self.screen is self.chat and self.chat.composer.has_focus:
            self.chat.composer.interrupt()  # after what was typed before
        else:
            self.interrupt()

    def interrupt(self) -> None:
        if self.talk.stop():
            pass
        elif self.chat.composer.text:
            self.chat.composer.put("")
        elif self._leaving:
            self.exit()
        else:
            self._leaving = True
            self.chat.say("Ctrl+C again, or Ctrl+Q, leaves")
            self.set_timer(2.0, self._stay)

    _leaving = False

    def _stay(self) -> None:
        self._leaving = False

    def on_unmount(self) -> None:
        self.painter.close()
        self.chat.verbs.keep_draft()
        self.talk.abandon()
        self.host.close()
        self.history.close()

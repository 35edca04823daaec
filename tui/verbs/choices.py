"""Verbs that change how the model answers and how the app looks, and that explain."""

from ..keys import Key, keys_of, why_not
from ..models import ModelChoice
from ..screens.dialog import TextDialog
from ..screens.help import HelpScreen
from ..screens.models import ModelScreen
from ..screens.numbers import NumbersScreen
from ..screens.settings import SettingsScreen
from ..settings import PRESETS, THEMES
from ..widgets.pictures import Pictures
from ..widgets.transcript import Transcript
from .group import Group


class ChoiceVerbs(Group):
    def slash_think(self, argument: str) -> None:
        """On, off, or the most tokens of it."""
        if argument.isdecimal():
            self._prefer(thinking=True, thinking_budget=int(argument))
            self._screen.say(f"thinking ends after {int(argument):,} tokens (/think on lifts that)")
            return
        if argument == "on":
            self._prefer(thinking_budget=None)
        self._switch("thinking", argument)

    def slash_tools(self, argument: str) -> None:
        self._switch("tools", argument)

    def _switch(self, name: str, argument: str) -> None:
        """on, off, or the other of the two."""
        if argument not in ("", "on", "off"):
            self._screen.say(f"{name} is on or off, not {argument!r}")
            return
        value = argument == "on" if argument else not getattr(self._preferences, name)
        self._prefer(**{name: value})
        self._screen.say(f"{name} is {'on' if value else 'off'}")

    def slash_preset(self, argument: str) -> None:
        self._choose("preset", argument, tuple(PRESETS))

    def slash_theme(self, argument: str) -> None:
        self._choose("theme", argument, THEMES)

    def _choose(self, name: str, argument: str, values: tuple[str, ...]) -> None:
        if argument not in values:
            said = (
                f"there is no {name} {argument!r}: " if argument else f"{name} is {getattr(self._preferences, name)}: "
            )
            self._screen.say(f"{said}one of {', '.join(values)}")
            return
        self._prefer(**{name: argument})
        self._screen.say(f"{name} is {argument}")

    def slash_system(self, argument: str) -> None:
        if argument:
            self._system(argument)
        else:
            dialog = TextDialog("System prompt", self._preferences.system, lines=8)
            self._app.push_screen(dialog, self._system)

    def _system(self, text: str | None) -> None:
        if text is not None:
            self._prefer(system=text)
            self._screen.say("the system prompt is set" if text else "there is no system prompt now")

    def slash_model(self, argument: str) -> None:
        """Another model: by name, or from the list."""
        choices = self._app.find_models()
        named = [choice for choice in choices if choice.name == argument]
        if argument and not named:
            names = ", ".join(choice.name for choice in choices) or "none"
            self._screen.say(f"there is no model {argument!r} here: {names}")
        elif named:
            self._change_model(named[0])
        elif choices:
            screen = ModelScreen(choices, self._app.palette, self._screen.host.info)
            self._app.push_screen(screen, self._change_model)
        else:
            self._screen.say("no other model is known here")

    def _change_model(self, choice: ModelChoice | None) -> None:
        if choice is not None:
            self._talk.abandon()
            self._screen.host.switch(choice.open)
            self._screen.pictures.warning = ""
            self._screen.redraw()
            self._screen.say(f"loading {choice.name}")

    def slash_settings(self, argument: str) -> None:
        self._app.push_screen(SettingsScreen())

    def slash_stats(self, argument: str) -> None:
        answers = [turn.stats for turn in self._talk.tree.path() if turn.stats]
        palette = self._app.palette
        host, last = self._screen.host, answers[-1] if answers else {}
        self._app.push_screen(NumbersScreen(palette, host.info, last, host.plan, self._talk.layers))

    @property
    def _keys(self) -> dict[str, list[Key]]:
        """By where they work."""
        chosen = self._preferences.keys
        return {
            "Everywhere": keys_of([*self._screen.BINDINGS, *self._app.BINDINGS], chosen),
            "In the conversation (Tab)": keys_of(Transcript.BINDINGS, chosen),
            "In the pane of pictures (Tab)": keys_of(Pictures.BINDINGS, chosen),
        }

    def slash_help(self, argument: str) -> None:
        self._app.push_screen(HelpScreen(self._app.palette, self._keys))

    def slash_keys(self, argument: str) -> None:
        """Another key for an action; a name alone gives it back its own."""
        if not argument:
            self.slash_help("")
            return
        name, _, key = argument.partition(" ")
        key = key.strip().lower()
        if refusal := why_not(name, key, [one for group in self._keys.values() for one in group]):
            self._screen.say(refusal)
            return
        others = {other: its for other, its in self._preferences.keys.items() if other != name}
        self._prefer(keys=others | ({name: key} if key else {}))
        self._app.set_keymap(dict(self._preferences.keys))
        self._screen.say(f"{name} has the key {key}" if key else f"{name} has its own key again")

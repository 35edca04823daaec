"""The main screen: the conversation, the composer, the pictures at the side, the status line."""

from textual import on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import Static

from ..chat.facts import Gauges
from ..chat.host import EngineHost
from ..chat.talk import Talk
from ..palette import Palette
from ..safe import one_line
from ..slash import parse
from ..verbs import Verbs
from ..widgets.composer import IMAGE_TOKEN, Composer
from ..widgets.entry import Entry
from ..widgets.pictures import Pictures
from ..widgets.status import Status
from ..widgets.transcript import Transcript
from ..widgets.welcome import Welcome
from .preview import PreviewScreen

DRAFTS = 1.0  # seconds between two looks at what is typed, to keep it
RATE = 12  # looks a second at what the engine said; more cannot be read, and each takes from its speed


class ChatScreen(Screen):
    BINDINGS = [  # noqa: RUF012
        Binding("escape", "stop", "Stop, or back to typing", id="stop"),
        Binding("ctrl+n", "slash('new')", "New chat", id="new"),
        Binding("ctrl+o,f2", "slash('history')", "Chats", id="history"),
        Binding("ctrl+t", "fold_all", "Unfold thinking", id="fold"),
        Binding("ctrl+r", "slash('regenerate')", "Regenerate", id="regenerate"),
        Binding("ctrl+e", "slash('edit')", "Edit last question", id="edit", priority=True),
        Binding("ctrl+y", "slash('copy')", "Copy last answer", id="copy", priority=True),
        Binding("f1", "slash('help')", "Help", id="help"),
        Binding("f3", "slash('settings')", "Settings", id="settings"),
        Binding("f4", "slash('stats')", "Numbers", id="stats"),
        Binding("f5", "slash('model')", "Models", id="model"),
        # With priority, so that what is typed next goes to what has the focus then, however busy the app is.
        Binding("tab", "leave(1)", "To the next part of the screen", show=False, priority=True),
        Binding("shift+tab", "leave(-1)", "To the part before", show=False, priority=True),
        Binding("pageup", "page(-1)", "Page up", show=False, priority=True, id="page_up"),
        Binding("pagedown", "page(1)", "Page down", show=False, priority=True, id="page_down"),
    ]
    CSS = """
    #title { height: 1; padding: 0 2; color: $text-muted; background: $surface; }
    #notice { height: auto; max-height: 3; padding: 0 2; color: $warning; display: none; }
    #notice.-shown { display: block; }
    #side { width: 1fr; }
    #transcript { display: none; }
    ChatScreen.-talking #transcript { display: block; }
    ChatScreen.-talking #welcome { display: none; }
    """

    def __init__(self, host: EngineHost, talk: Talk, palette: Palette):
        super().__init__()
        self.host, self.talk = host, talk
        self.verbs = Verbs(self)
        self._palette = palette
        self._tick = 0
        self._gauges = Gauges()
        self._entry = Entry(self.verbs.file, id="entry")
        self.editing = 0  # the question that the next send stands beside

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        with Horizontal():
            with Vertical(id="side"):
                yield Welcome(id="welcome")
                yield Transcript(self._palette, id="transcript")
                yield Static(id="notice", markup=False)
                yield self._entry
            yield Pictures(self._palette, id="pictures")
        yield Status(id="status")

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def composer(self) -> Composer:
        """There also while the app leaves, when nothing can be asked of the screen any more."""
        return self._entry.composer

    @property
    def pictures(self) -> Pictures:
        return self.query_one(Pictures)

    def on_mount(self) -> None:
        self.query_one(Status).palette = self._palette
        self.composer.focus()
        self.redraw()
        self._poll()
        self.set_interval(1 / RATE, self._poll)
        self.set_interval(DRAFTS, self.verbs.keep_draft)

    # --- drawing

    def redraw(self) -> None:
        """The whole conversation, after something other than growth."""
        path = self.talk.tree.path()
        self.set_class(bool(path), "-talking")
        self.transcript.show(self.talk.tree, self.talk.live)
        users = [turn.text for turn in path if turn.role == "user"]
        title = one_line(self.app.history.title(self.talk.chat) or (users[0] if users else "New chat"), 80)  # type: ignore[attr-defined]
        self.query_one("#title", Static).update(title)
        self._gauges.read(path)
        self.verbs.show_clips()

    def opened(self, turn: int = 0) -> None:
        """Another chat is shown; `turn` is the one that was looked for."""
        self.editing = 0
        self.say("")
        self.composer.put("")
        self.verbs.draft()
        self.composer.sent = [t.text for t in self.talk.tree.path() if t.role == "user"]
        self.transcript.action_to_end()
        self.redraw()
        if turn in self.talk.tree:
            if turn not in [t.id for t in self.talk.tree.path()]:
                self.talk.tree.leaf = turn
                self.redraw()
            self.transcript.reveal(turn)
        self.composer.focus()

    def repaint(self, palette: Palette) -> None:
        self._palette = palette
        self.query_one(Status).palette = palette
        self.transcript.repaint(palette)
        self.pictures.palette = palette
        self.pictures.refresh()
        self.query_one(Status).refresh()

    def say(self, text: str) -> None:
        """One sentence above the composer; empty hides it."""
        notice = self.query_one("#notice", Static)
        notice.update(text)
        notice.set_class(bool(text), "-shown")

    def _poll(self) -> None:
        self._tick += 1
        step = self.talk.poll()
        live = self.talk.live
        if step.ended:
            self.redraw()
            self.run_worker(self._remember(), exit_on_error=False)
        elif live is not None and (step.changed or live.reasoning):
            self.transcript.grow(live, step.text)
        if self.pictures.picked and not self.pictures.warning:
            self.warn_blind()
        if self.talk.notice:
            self.say(self.talk.notice)
            self.talk.notice = ""
        state = self.host.state
        self.query_one(Status).tell(self._gauges.facts(state, self.talk, self._tick))
        if not self.has_class("-talking"):
            self.query_one(Welcome).tell(state, self._palette)

    async def _remember(self) -> None:
        messages = [turn.message for turn in self.talk.tree.path() if turn.status != "error"]
        if not self.talk.busy and (trouble := await self.host.remember(messages)):
            self.say(trouble)

    # --- typing and pictures

    @on(Composer.Sent)
    def _sent(self, event: Composer.Sent) -> None:
        words = IMAGE_TOKEN.sub("", event.text).strip()
        command = parse(words)
        if command is not None:  # pictures that were attached stay
            self.composer.put("".join(f"{picked.token} " for picked in self.pictures.picked))
            self.composer.remember(words)
            self.verbs.run(*command)
            return
        self.verbs.send(event.text)

    @on(Composer.Interrupted)
    def _interrupted(self) -> None:
        self.app.interrupt()  # type: ignore[attr-defined]

    @on(Composer.Pasted)
    def _pasted(self, event: Composer.Pasted) -> None:
        self.verbs.pasted(event.composer, event.text)

    @on(Composer.Typed)
    def _typed(self, event: Composer.Typed) -> None:
        self.pictures.keep(event.text)

    @on(Pictures.Changed)
    def _pictures_changed(self, event: Pictures.Changed) -> None:
        if event.removed:
            text = self.composer.text.replace(f"{event.removed} ", "").replace(event.removed, "")
            self.composer.put(text)
        if not self.pictures.picked:
            self.composer.focus()

    @on(Pictures.Preview)
    def _preview(self, event: Pictures.Preview) -> None:
        self.app.push_screen(PreviewScreen(self.pictures.media, self._palette, event.at))

    def warn_blind(self) -> None:
        """Say in the pane that the model cannot see, once that is known."""
        info = self.host.info
        blind = info is not None and not info.vision
        self.pictures.warning = f"{info.model} cannot see pictures" if info and blind else ""
        if self.pictures.warning:
            self.pictures.refresh()

    # --- keys and messages

    def action_stop(self) -> None:
        if self.talk.stop():
            return
        if self.editing:
            self.editing = 0
            self.composer.put("")
            self.say("")
        self.composer.focus()

    def action_slash(self, name: str) -> None:
        self.verbs.run(name, "")

    def action_fold_all(self) -> None:
        self.transcript.fold_all()

    def action_leave(self, by: int) -> None:
        if by > 0 and self.composer.suggesting and self.composer.has_focus:
            raise SkipAction  # it takes the suggestion
        (self.focus_next if by > 0 else self.focus_previous)()

    def action_page(self, by: int) -> None:
        if by < 0:
            self.transcript.action_page_up()
        else:
            self.transcript.action_page_down()

    @on(Transcript.Acted)
    def _acted(self, event: Transcript.Acted) -> None:
        self.verbs.act(event.verb, event.turn, event.detail)

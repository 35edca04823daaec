"""The main screen: the conversation, the composer, the pictures at the side, the status line."""

from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import Static

from ..chat.host import EngineHost, Failed, Loading, Ready
from ..chat.talk import Talk
from ..palette import Palette
from ..safe import one_line
from ..slash import parse
from ..verbs import Verbs
from ..vision.cells import Depth
from ..widgets.composer import Composer
from ..widgets.pictures import Pictures
from ..widgets.status import Facts, Status
from ..widgets.suggest import Suggestions, suggestions
from ..widgets.transcript import Transcript
from .preview import PreviewScreen

RATE = 15  # looks a second at what the engine said; more cannot be read
WELCOME = "Ask anything. Enter sends, Ctrl+J starts a new line, / lists the commands, F1 is help."


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
        Binding("pageup", "page(-1)", "Page up", show=False, priority=True, id="page_up"),
        Binding("pagedown", "page(1)", "Page down", show=False, priority=True, id="page_down"),
    ]
    CSS = """
    #title { height: 1; padding: 0 2; color: $text-muted; }
    #notice { height: auto; max-height: 3; padding: 0 2; color: $warning; display: none; }
    #notice.-shown { display: block; }
    #side { width: 1fr; }
    """

    def __init__(self, host: EngineHost, talk: Talk, palette: Palette, depth: Depth):
        super().__init__()
        self._depth: Depth = depth
        self.host, self.talk = host, talk
        self.verbs = Verbs(self)
        self._palette = palette
        self._tick = 0
        self._rate = 0.0
        self._context_used = 0
        self._hit_rate: float | None = None
        self._disk: tuple[float, ...] = ()
        self.editing = 0  # the question that the next send stands beside

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        with Horizontal():
            with Vertical(id="side"):
                yield Transcript(self._palette, id="transcript")
                yield Static(id="notice", markup=False)
                yield Suggestions(id="suggestions")
                yield Composer(id="composer", placeholder=WELCOME)
            yield Pictures(self._palette, self._depth, id="pictures")
        yield Status(id="status")

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def composer(self) -> Composer:
        return self.query_one(Composer)

    @property
    def pictures(self) -> Pictures:
        return self.query_one(Pictures)

    def on_mount(self) -> None:
        self.query_one(Status).palette = self._palette
        self.composer.focus()
        self.redraw()
        self._poll()
        self.set_interval(1 / RATE, self._poll)

    # --- drawing

    def redraw(self) -> None:
        """The whole conversation, after something other than growth."""
        self.transcript.show(self.talk.tree, self.talk.live)
        users = [turn.text for turn in self.talk.tree.path() if turn.role == "user"]
        title = one_line(self.app.history.title(self.talk.chat) or (users[0] if users else "New chat"), 80)  # type: ignore[attr-defined]
        self.query_one("#title", Static).update(title)
        answered = [turn for turn in self.talk.tree.path() if turn.stats]
        last = answered[-1].stats if answered else {}
        self._context_used = last.get("prompt", 0) + last.get("tokens", 0)
        self._rate = last.get("speed", 0.0)
        experts = [turn.stats["extra"]["experts"] for turn in answered if turn.stats.get("extra", {}).get("experts")]
        self._hit_rate = experts[-1].get("hit_rate") if experts else None
        self._disk = tuple(float(found.get("read_gbps", 0.0)) for found in experts)

    def opened(self, turn: int = 0) -> None:
        """Another chat is shown; `turn` is the one that was looked for."""
        self.editing = 0
        self.say("")
        self.composer.put(self.app.history.draft(self.talk.chat))  # type: ignore[attr-defined]
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
        elif live is not None and (step.changed or live.reasoning):
            self.transcript.grow(live, step.text)
        if self.pictures.picked and not self.pictures.warning:
            self.warn_blind()
        if self.talk.notice:
            self.say(self.talk.notice)
            self.talk.notice = ""
        self.query_one(Status).tell(self._facts())

    def _facts(self) -> Facts:
        answer, state = self.talk.answer, self.host.state
        info = state.info if isinstance(state, Ready) else None
        model = f"{info.model} · {info.backend} {info.device}".strip() if info else ""
        common = {"model": model, "memory": info.memory if info else 0, "context": info.context if info else 0}
        common |= {"hit_rate": self._hit_rate, "disk": self._disk}
        if isinstance(state, Failed):
            return Facts("failed")
        if isinstance(state, Loading):
            return Facts("loading", state.done, state.total, tick=self._tick)
        if answer is None:
            return Facts("ready", rate=self._rate, context_used=self._context_used, **common)
        progress = answer.progress
        used = (progress.total if progress else 0) + answer.tokens
        common |= {"seconds": answer.elapsed, "tick": self._tick, "context_used": used, "rate": answer.rate}
        if answer.tokens == 0:
            done, total = (progress.done, progress.total) if progress else (0, 0)
            return Facts("prefill", done, total, **common)
        return Facts("thinking" if answer.thinking else "answering", **common)

    # --- typing

    @on(Composer.Sent)
    def _sent(self, event: Composer.Sent) -> None:
        command = parse(event.text.strip())
        if command is not None:
            self.composer.put("")
            self.composer.remember(event.text.strip())
            self.verbs.run(*command)
            return
        self.verbs.send(event.text)

    @on(Composer.Pasted)
    def _pasted(self, event: Composer.Pasted) -> None:
        self.verbs.pasted(event.composer, event.text)

    @on(Pictures.Changed)
    def _pictures_changed(self, event: Pictures.Changed) -> None:
        if event.removed:
            text = self.composer.text.replace(f"{event.removed} ", "").replace(event.removed, "")
            self.composer.put(text)
        if not self.pictures.picked:
            self.composer.focus()

    @on(Pictures.Preview)
    def _preview(self, event: Pictures.Preview) -> None:
        media = self.pictures.media
        self.app.push_screen(PreviewScreen(media, self._depth, media.index(event.media)))

    def warn_blind(self) -> None:
        """Say in the pane that the model cannot see, once that is known."""
        info = self.host.info
        blind = info is not None and not info.vision
        self.pictures.warning = f"{info.model} cannot see pictures" if info and blind else ""
        if self.pictures.warning:
            self.pictures.refresh()

    @on(Composer.Typed)
    def _typed(self, event: Composer.Typed) -> None:
        listing = self.query_one(Suggestions)
        self.pictures.keep(event.text)
        listing.offer(suggestions(event.before, Path.cwd()) if event.text else [])
        self.composer.suggesting = bool(listing.found)

    def on_key(self, event) -> None:
        listing = self.query_one(Suggestions)
        if not listing.found or self.focused is not self.composer:
            return
        match event.key:
            case "up":
                listing.action_cursor_up()
            case "down":
                listing.action_cursor_down()
            case "tab" | "enter":
                self._accept(listing, event.key == "enter")
            case "escape":
                listing.offer([])
                self.composer.suggesting = False
            case _:
                return
        event.stop()
        event.prevent_default()

    def _accept(self, listing: Suggestions, enter: bool) -> None:
        """Take the marked suggestion; Enter on a command that is typed out sends it."""
        picked = listing.picked
        composer = self.composer
        if picked is None:
            return
        typed = composer.text.strip()
        listing.offer([])
        composer.suggesting = False
        if enter and picked.text.strip() == typed:
            composer.post_message(Composer.Sent(typed))
            return
        row, column = composer.cursor_location
        start = (row, column - picked.replaces)
        if picked.text.startswith("@") and not picked.text.endswith("/"):
            composer.delete(start, (row, column))
            if self.verbs.file(Path(picked.text[1:]).expanduser()):
                return
            start = (row, column) = composer.cursor_location
        composer.replace(picked.text, start, (row, column))

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

    def action_page(self, by: int) -> None:
        if by < 0:
            self.transcript.action_page_up()
        else:
            self.transcript.action_page_down()

    @on(Transcript.Acted)
    def _acted(self, event: Transcript.Acted) -> None:
        self.verbs.act(event.verb, event.turn, event.detail)

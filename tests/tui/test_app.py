"""Every action of the app, by key, on a scripted engine."""

import json
from pathlib import Path

import pytest
from driven import CALL, run
from textual import events

from qwen35_local.errors import NumericError
from tui.store.history import History


@run
async def test_ask_and_answer(drive):
    async with drive(["Hello **you**."]) as d:
        await d.press(*"Hi", "enter")
        await d.until(lambda: "Hello you." in d.text)
        assert "▌ Hi" in d.text
        assert d.app.chat.composer.text == ""
        assert "tokens at" in d.text


@run
async def test_thinking_is_folded_and_unfolds(drive):
    async with drive(["deep thought\n</think>\n\nDone."], overrides={"thinking": True}) as d:
        await d.say("Hi")
        assert "▸ Thought for" in d.text
        assert "deep thought" not in d.text
        await d.press("ctrl+t")
        assert "│ deep thought" in d.text
        await d.press("ctrl+t")
        assert "deep thought" not in d.text


@run
async def test_an_answer_without_a_word_says_so(drive):
    async with drive(["</think>\n\n", "a word"]) as d:
        await d.say("Hi")
        assert "the model said nothing" in d.text
        await d.say("And now?")
        assert d.text.count("said nothing") == 1


@run
async def test_stop_keeps_what_was_said(drive):
    async with drive(["word " * 500], delay=0.01) as d:
        await d.say("Hi", wait=False)
        await d.until(lambda: "word" in d.text)
        await d.press("escape")
        await d.until(lambda: not d.app.talk.busy)
        assert "stopped" in d.text
        assert "word" in d.text


@run
async def test_regenerate_and_leaf_through_versions(drive):
    async with drive(["apple", "pear"]) as d:
        await d.say("Hi")
        await d.press("ctrl+r")
        await d.until(lambda: "pear" in d.text and not d.app.talk.busy)
        assert "2/2" in d.text
        assert "apple" not in d.text
        await d.press("shift+tab", "up", "left")
        await d.until(lambda: "apple" in d.text)
        assert "1/2" in d.text
        await d.press("right")
        await d.until(lambda: "pear" in d.text)


@run
async def test_edit_makes_a_branch_and_the_model_sees_only_it(drive):
    async with drive(["one", "two"]) as d:
        await d.say("Question A")
        await d.press("ctrl+e")
        assert d.app.chat.composer.text == "Question A"
        await d.press("backspace", "B", "enter")
        await d.until(lambda: "two" in d.text)
        assert "‹ 2/2 ›" in d.text
        assert [m.text for m in d.engine.requests[-1].messages] == ["Question B"]


@pytest.mark.parametrize("key", ["ctrl+e", "ctrl+r"])
@run
async def test_keys_that_must_wait_for_the_answer_say_so(drive, key: str):
    async with drive(["word " * 300], delay=0.01) as d:
        await d.say("Hi", wait=False)
        await d.until(lambda: "word" in d.text)
        await d.press(key)
        assert "still answering" in d.notice
        await d.press("escape")
        await d.until(lambda: not d.app.talk.busy)


@run
async def test_escape_leaves_an_edit(drive):
    async with drive(["one"]) as d:
        await d.say("A")
        await d.press("ctrl+e", "escape")
        assert d.app.chat.editing == 0
        assert d.app.chat.composer.text == ""


@run
async def test_tools_are_called_and_shown(drive):
    async with drive([CALL, "It is 42."], overrides={"tools": True}) as d:
        await d.say("6 times 7?")
        await d.until(lambda: "It is 42." in d.text)
        assert "⚙ calculate(a=6" in d.text
        assert "→ 42" in d.text
        assert d.engine.requests[-1].messages[-1].text == "42"


@run
async def test_copy_and_raw(drive):
    async with drive(["**bold** `x`"]) as d:
        await d.say("Hi")
        await d.press("ctrl+y")
        assert d.app.clipboard == "**bold** `x`"
        assert "**" not in d.text
        await d.say("/raw")
        assert "**bold** `x`" in d.text


@run
async def test_code_block_is_copied_whole(drive):
    code = "\n".join(f"line {n}" for n in range(100))
    async with drive([f"```py\n{code}\n```\n\nend"]) as d:
        await d.say("Hi")
        await d.press("shift+tab", "up", "b")
        assert d.app.clipboard == code


@run
async def test_export_markdown_and_json(drive, tmp_path: Path):
    async with drive(["Answer."]) as d:
        await d.say("Hi")
        await d.say("/export md out.md")
        await d.say("/export json out.json")
        assert "## You\n\nHi\n\n## Qwen\n\nAnswer." in (tmp_path / "out.md").read_text()
        messages = json.loads((tmp_path / "out.json").read_text())["messages"]
        assert [m["content"] for m in messages] == ["Hi", "Answer."]
        await d.say("/export md out.md")
        assert "exists already" in d.notice


@run
async def test_draft_is_kept(drive, tmp_path: Path):
    async with drive(["a"], data=tmp_path / "data") as d:
        await d.say("Hi")
        chat = d.app.talk.chat
        d.app.chat.composer.put("half a thou")
        await d.press("ctrl+n")
        assert d.app.chat.composer.text == ""
        d.app.chat.verbs._open(type("P", (), {"chat": chat, "turn": 0})())
        await d.pilot.pause()
        assert d.app.chat.composer.text == "half a thou"


@run
async def test_what_is_typed_outlives_the_app_and_a_kill(drive, tmp_path: Path):
    big = "many words " * 1000
    async with drive(data=tmp_path / "data") as d:
        d.app.chat.composer.take(big)
        await d.press(*"and more")
        reader = History(tmp_path / "data" / "history.sqlite3")  # what a kill would leave
        await d.until(lambda: any(entry.draft for entry in reader.chats()))
        reader.close()
        await d.press("!")
        kept = d.app.chat.composer.expanded
    async with drive(data=tmp_path / "data") as d:
        await d.press("f2")
        assert "not sent yet" in d.screen
        await d.press("enter")
        assert d.app.chat.composer.text.startswith("[Paste #1")
        assert d.app.chat.composer.expanded == kept == big + "and more!"
        await d.press("ctrl+u", *"/hel")
        d.app.chat.verbs.keep_draft()
        assert d.app.history.chats() == []


@run
async def test_composer_history_and_new_lines(drive):
    async with drive(["a", "b"]) as d:
        await d.say("one")
        await d.say("two")
        await d.press("up")
        assert d.app.chat.composer.text == "two"
        await d.press("up")
        assert d.app.chat.composer.text == "one"
        await d.press("down", "down")
        assert d.app.chat.composer.text == ""
        await d.press("a", "ctrl+j", "b")
        assert d.app.chat.composer.text == "a\nb"


@run
async def test_keys_typed_in_one_burst_keep_their_order(drive):
    """As they come after a moment in which the app was busy."""
    async with drive(["a"]) as d:
        d.app.chat.composer.put("6 times 78")
        for key in ("backspace", "backspace", "9", "left", "1", "enter"):
            d.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await d.until(lambda: len(d.app.talk.tree) == 2 and not d.app.talk.busy)
        assert d.app.talk.tree.path()[0].text == "6 times 19"
        for key in ("shift+tab", "up", "up"):
            d.app.post_message(events.Key(key, None))
        await d.until(lambda: d.app.chat.transcript.page.chosen == d.app.talk.tree.path()[0].id)
        assert d.app.chat.composer.text == ""


@run
async def test_ctrl_c_does_not_overtake_the_question(drive):
    async with drive(["word " * 500], delay=0.01) as d:
        for key in (*"why", "enter", "ctrl+c"):
            character = key if len(key) == 1 else "\r" if key == "enter" else None
            d.app.post_message(events.Key(key, character))
        await d.until(lambda: len(d.app.talk.tree) == 2 and not d.app.talk.busy)
        assert [turn.status for turn in d.app.talk.tree.path()] == ["done", "stopped"]


@run
async def test_slash_commands_are_suggested_and_completed(drive):
    async with drive() as d:
        await d.press("/", "t", "h")
        listing = d.app.chat.query_one("#suggestions")
        assert listing.has_class("-shown")
        await d.press("down", "tab")
        assert d.app.chat.composer.text == "/theme "


@run
async def test_enter_runs_the_command_that_is_typed_out_or_completes_it(drive):
    async with drive() as d:
        await d.press(*"/tools", "enter")
        assert d.app.preferences.tools is True
        assert d.app.chat.composer.text == ""
        await d.press(*"/too", "enter")
        assert d.app.chat.composer.text == "/tools "
        await d.press("enter")
        assert d.app.preferences.tools is False


@run
async def test_enter_attaches_the_picture_that_a_command_names(drive, picture: Path):
    (picture.parent / "more").mkdir()
    async with drive(vision=True) as d:
        await d.press(*f"/image {picture.name}", "enter")
        assert [media.name for media in d.app.chat.pictures.media] == [picture.name]
        assert d.app.chat.composer.text == "[Image #1] "
        await d.press("ctrl+u", *"/image mo", "enter")
        assert d.app.chat.composer.text == "/image more/"
        await d.press("ctrl+u", *"/image a s", "tab")
        assert d.app.chat.composer.text == f"/image {picture.name}"
        assert d.app.chat.pictures.media == ()
        await d.press("enter")
        assert len(d.app.chat.pictures.media) == 1


@run
async def test_paths_are_completed_and_files_put_in(drive, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("remember the milk")
    async with drive() as d:
        await d.press("@", "n", "o", "tab")
        assert "remember the milk" in d.app.chat.composer.expanded
        await d.press("ctrl+u", *"@notes.txt", "enter")  # typed out, it is a file all the same
        assert "remember the milk" in d.app.chat.composer.expanded
        assert len(d.app.talk.tree) == 0


@run
async def test_unknown_command_is_said(drive):
    async with drive() as d:
        await d.say("/nonsense")
        assert "no command /nonsense" in d.notice


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("/think on", "thinking", True),
        ("/think 64", "thinking_budget", 64),
        ("/tools on", "tools", True),
        ("/preset precise", "preset", "precise"),
        ("/theme qwen-light", "theme", "qwen-light"),
        ("/system Be brief.", "system", "Be brief."),
    ],
)
@run
async def test_choices_are_kept(drive, tmp_path: Path, command: str, name: str, value: object):
    async with drive(data=tmp_path / "data") as d:
        await d.say(command)
        assert getattr(d.app.preferences, name) == value
    stored = json.loads((tmp_path / "data" / "settings.json").read_text())
    assert stored[name] == value


@run
async def test_system_prompt_and_preset_reach_the_engine(drive):
    async with drive(["a"], overrides={"system": "Be brief.", "preset": "precise"}) as d:
        await d.say("Hi")
        request = d.engine.requests[-1]
        assert request.messages[0].text == "Be brief."
        assert request.sampling is not None
        assert request.sampling.temperature == 0


@run
async def test_errors_stay_in_place_and_the_chat_goes_on(drive):
    async with drive([["so far ", NumericError("the logits are not numbers")], "Better."]) as d:
        await d.say("Hi")
        assert "so far" in d.text
        assert "✗ the logits are not numbers" in d.text
        await d.say("Again")
        assert "Better." in d.text


@run
async def test_continue_goes_on_from_the_last_word(drive, tmp_path: Path):
    replies = [
        "thought\n</think>\n\none two three four five six seven eight nine ten",
        " and more",
        "more\n</think>\n\nAgain.",
    ]
    async with drive(replies, overrides={"max_tokens": 14, "thinking": True}, data=tmp_path / "data") as d:
        await d.say("Hi")
        assert "cut at the token limit" in d.text
        begun, seconds = d.app.talk.tree.path()[-1].text, d.app.talk.tree.path()[-1].seconds
        assert 0 < len(begun) < 45
        await d.say("/continue")
        await d.until(lambda: not d.app.talk.busy)
        assert (d.engine.requests[-1].prefill, len(d.engine.requests[-1].messages)) == (begun, 1)
        answer = d.app.talk.tree.path()[-1]
        assert (answer.text, answer.status) == (f"{begun} and more", "done")
        assert (len(d.app.talk.tree), answer.reasoning.strip(), answer.seconds) == (2, "thought", seconds)
        assert d.app.history.load(d.app.talk.chat).path()[-1].text == answer.text
        await d.say("/continue")  # a whole one is asked for more
        await d.until(lambda: "Again." in d.text)
        assert d.app.talk.tree.path()[2].text == "Continue."


@run
async def test_picture_by_pasted_path_blind_model_and_removal(drive, picture: Path):
    async with drive() as d:
        composer = d.app.chat.composer
        composer.post_message(events.Paste(str(picture).replace(" ", "\\ ")))
        await d.until(lambda: composer.text == "[Image #1] ")
        await d.until(lambda: "cannot see" in d.app.chat.pictures.warning)
        await d.press(*"what?", "enter")
        assert "cannot see pictures" in d.notice
        assert len(d.app.talk.tree) == 0
        composer.put("[Image #1]")
        await d.press("backspace")
        assert composer.text == ""
        await d.until(lambda: not d.app.chat.pictures.picked)


@run
async def test_picture_is_sent_shown_and_kept(drive, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from qwen35_local.engine import ImagePart

    async with drive(["A sun."], vision=True, data=tmp_path / "data", size=(100, 30)) as d:
        await d.say(f"/image {picture}")
        await d.say(d.app.chat.composer.text + "What is it?")
        content = d.engine.requests[-1].messages[-1].content
        assert isinstance(content[0], ImagePart)
        assert content[0].data == picture.read_bytes()
        assert d.app.talk.tree.path()[0].text == "What is it?"
        assert "▀" in d.text
        chat = d.app.talk.chat
        assert d.app.history.load(chat).path()[0].media[0].data == picture.read_bytes()
        await d.press("shift+tab", "up", "i")
        assert type(d.app.screen).__name__ == "PreviewScreen"


@run
async def test_browser_attaches(drive, picture: Path):
    async with drive() as d:
        await d.say("/browse")
        await d.press("down", "enter")
        await d.until(lambda: len(d.app.chat.pictures.picked) == 1)


@run
async def test_theme_switch_keeps_code(drive):
    async with drive(["```py\nx = 1\n```"]) as d:
        await d.say("Hi")
        await d.say("/theme qwen-light")
        await d.pilot.pause()
        assert "x = 1" in d.text


@run
async def test_ctrl_c_clears_then_leaves(drive):
    async with drive() as d:
        await d.press("x", "ctrl+c")
        assert d.app.chat.composer.text == ""
        await d.press("ctrl+c")
        assert "again" in d.notice
        await d.press("ctrl+c")
        await d.until(lambda: not d.app.is_running)


@run
async def test_lines_that_were_drawn_before_are_as_if_drawn_anew(drive):
    """The transcript keeps finished lines: scrolling, choosing, folding, colours and widths must all be seen."""
    async with drive(["# One\n\n```py\nx = 1\n```\n\n" + "words " * 300, "two"]) as d:
        transcript = d.app.chat.transcript

        async def compare() -> None:
            await d.pilot.pause()
            kept = [transcript.render_line(y) for y in range(transcript.size.height)]
            transcript._finished.clear()
            assert kept == [transcript.render_line(y) for y in range(transcript.size.height)]

        await d.say("Hi")
        await d.say("And?")
        await compare()
        for keys in (("pageup",), ("shift+tab", "up"), ("v",), ("v",), ("up", "enter"), ("tab",), ("pagedown",)):
            await d.press(*keys)
            await compare()
        d.app.prefer(theme="qwen-light")
        await compare()
        await d.pilot.resize_terminal(60, 20)
        await compare()

"""The slash commands: name, argument, help. `app.py` has a method `slash_<name>` for each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    argument: str
    help: str


COMMANDS = (
    Command("new", "", "start another chat"),
    Command("history", "[words]", "find and open an earlier chat"),
    Command("rename", "[title]", "give this chat a title"),
    Command("delete", "", "delete this chat; /undelete brings it back"),
    Command("undelete", "", "bring back the chat deleted last"),
    Command("image", "PATH", "attach a picture or a video"),
    Command("browse", "[folder]", "choose a picture from the disk"),
    Command("clipboard", "", "attach the picture on the clipboard"),
    Command("think", "on|off|N", "think first, for N tokens at most"),
    Command("tools", "on|off", "offer the built-in tools to the model"),
    Command("preset", "name", "how words are chosen: precise, card, …"),
    Command("system", "[text]", "set or edit the system prompt"),
    Command("theme", "[name]", "change the colours"),
    Command("model", "[name]", "change to another model"),
    Command("keys", "[name key]", "change a key; without a name: all keys"),
    Command("settings", "", "see and change all settings"),
    Command("regenerate", "", "another answer to the last question"),
    Command("continue", "", "go on with an answer that was cut"),
    Command("edit", "", "ask the last question in other words"),
    Command("copy", "", "copy the last answer"),
    Command("export", "md|json [path]", "write this chat to a file"),
    Command("raw", "", "show the answer as the model wrote it"),
    Command("stats", "", "numbers of the last answer"),
    Command("help", "", "keys and commands"),
    Command("quit", "", "leave"),
)
BY_NAME = {command.name: command for command in COMMANDS}


def matching(text: str) -> list[Command]:
    """Commands that begin with what is typed after the slash."""
    typed = text.removeprefix("/").lower()
    return [command for command in COMMANDS if command.name.startswith(typed)]


def parse(text: str) -> tuple[str, str] | None:
    """(name, argument) if `text` is a slash command; a path such as /tmp/x is not one."""
    if not text.startswith("/") or "\n" in text:
        return None
    name, _, argument = text[1:].partition(" ")
    return (name.lower(), argument.strip()) if name and name.replace("-", "").isalpha() else None

"""Text that a terminal cannot act on. What models, tools and files say passes through here before it is drawn."""

import re

# C0 (but newline and tab), DEL and C1 move cursors and set titles; bidirectional overrides reorder what is read.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TAB = 4  # cells, as code blocks show it


def printable(text: str) -> str:
    """`text` with controls turned into Unicode's pictures of them; "\\r\\n" becomes a newline, tabs become spaces."""
    text = text.replace("\r\n", "\n")
    if "\t" in text:
        text = text.expandtabs(TAB)
    return CONTROL.sub(_picture, text)


def one_line(text: str, limit: int) -> str:
    """The start of `text` on one line, at most `limit` characters, with an ellipsis where it was cut."""
    line = " ".join(printable(text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"

"""Inline Markdown tokens -> one styled text."""

from collections.abc import Sequence

from markdown_it.token import Token
from rich.style import Style
from rich.text import Text

from ..palette import Palette


def inline_text(tokens: Sequence[Token], palette: Palette, base: Style | None = None) -> Text:
    """The text of a paragraph, heading or cell; line breaks inside it are kept.

    A link shows where it leads when its label does not: nobody should have to trust a label.
    """
    text = Text(style=palette.base + base if base else palette.base, end="")
    styles: list[Style] = []
    links: list[tuple[str, int]] = []
    for token in tokens:
        match token.type:
            case "strong_open":
                styles.append(palette.strong)
            case "em_open":
                styles.append(palette.emphasis)
            case "s_open":
                styles.append(Style(strike=True))
            case "link_open":
                styles.append(palette.link)
                links.append((str(token.attrGet("href") or ""), len(text)))
            case "link_close":
                styles.pop()
                href, start = links.pop()
                if href and href not in (label := text.plain[start:]) and href != f"mailto:{label}":
                    text.append(f" ({href})", palette.dim)
            case "strong_close" | "em_close" | "s_close":
                styles.pop()
            case "code_inline":
                text.append(token.content, Style.combine([*styles, palette.code]))
            case "softbreak" | "hardbreak":
                text.append("\n")
            case "image":
                text.append(f"[{token.content or 'image'}]", palette.link)
                text.append(f" ({token.attrGet('src')})", palette.dim)
            case _:
                text.append(token.content, Style.combine(styles) if styles else None)
    return text

"""The colours of the transcript, as Rich styles, taken from the theme in use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.style import Style
from textual.color import Color, ColorParseError

from .vision.painter import Painter


@dataclass(frozen=True, slots=True)
class Palette:
    """One style for each role that text plays, and who draws pictures.

    `code_theme` is a Pygments style, or "" for no highlighting.
    """

    base: Style
    dim: Style
    strong: Style
    emphasis: Style
    heading: Style
    link: Style
    code: Style
    code_block: Style
    accent: Style
    user: Style
    error: Style
    warning: Style
    rule: Style
    selected: Style
    code_theme: str = ""
    painter: Painter = field(default_factory=Painter)

    @classmethod
    def of(cls, variables: Mapping[str, str], dark: bool, ansi: bool, painter: Painter | None = None) -> "Palette":
        """From a theme's CSS variables. With ANSI themes only attributes and the 16 colours are used."""

        def style(name: str, background: str = "", bold: bool | None = None, underline: bool | None = None) -> Style:
            ground = _rich(variables.get(background, "")) if background else None
            return Style(color=_rich(variables.get(name, "")), bgcolor=ground, bold=bold, underline=underline)

        if ansi and dark:  # the terminal's blue can hardly be read on black
            variables = {**variables, "primary": "ansi_bright_blue"}
        surface = "" if ansi else "surface"
        return cls(
            base=style("foreground"),
            dim=Style(dim=True) if ansi else style("text-muted") if "text-muted" in variables else Style(dim=True),
            strong=Style(bold=True),
            emphasis=Style(italic=True),
            heading=style("primary", bold=True),
            link=style("secondary", underline=True),
            code=style("accent"),
            code_block=style("foreground", surface),
            accent=style("primary"),
            user=style("secondary", bold=True),
            error=style("error"),
            warning=style("warning"),
            rule=Style(dim=True) if ansi else style("panel"),
            selected=Style(reverse=True) if ansi else Style(bgcolor=_rich(variables.get("chosen", ""))),
            painter=painter or Painter(),
            code_theme="ansi_dark" if ansi else ("monokai" if dark else "friendly"),
        )


_NONE = Style.null()
PLAIN = Palette(*(_NONE,) * 14)  # pyright: ignore[reportArgumentType]


def _rich(value: str):
    """A Rich colour, or None for "auto" and for what has no meaning outside CSS."""
    try:
        color = Color.parse(value)
    except ColorParseError:
        return None
    if color.ansi is None and color.a == 0:
        return None
    return color.rich_color

"""One HTML page that needs nothing else: pictures are part of it, and there is no script and no address to fetch."""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

Figure = float | int | None


class Table(NamedTuple):
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]  # of Markdown a cell may be **bold**, and nothing else
    left: int = 1  # so many columns are flush left, the others right
    caption: str = ""  # above it; in Markdown by default the section's title and what it says


class Section(NamedTuple):
    """A question, the law that answers it, what this run found, its picture and its table."""

    name: str  # of the picture's file and of the figures in the JSON
    title: str
    law: str = ""
    says: str = ""
    picture: bytes | None = None
    figures: Mapping[str, Figure] = {}  # "commutator, axial" -> number
    table: Table | None = None


def page(
    title: str, lead: str, settings: Mapping[str, object], sections: Sequence[Section], notes: Sequence[str] = ()
) -> str:
    """The page's HTML. Every text is escaped here, so none is given as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "unbroken": _unbroken,
        "base64": lambda content: base64.b64encode(content).decode(),
    }
    shown = " · ".join(f"{name.replace('_', ' ')} {_listed(value)}" for name, value in settings.items())
    return environment.get_template("page.html").render(
        title=title, lead=lead, settings=shown, sections=sections, notes=notes
    )


def _unbroken(cell: str) -> str:
    """A cell whose interval goes to a line of its own where columns are narrow, and is not cut there."""
    return re.sub(r"\[([^\[\]]+), ([^\[\]]+)\]", "[\\1,\u00a0\\2]", cell)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)


def number(value: Figure) -> str:
    """Four digits are enough to read; the JSON has them all."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

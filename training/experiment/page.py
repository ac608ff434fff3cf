"""One HTML page that needs nothing else: pictures are part of it, and there is no script and no address to fetch."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import NamedTuple

Figure = float | int | None


class Table(NamedTuple):
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A question, the law that answers it, what this run found, and its picture."""

    name: str  # of the picture's file and of the figures in the JSON
    title: str
    law: str
    says: str
    picture: bytes
    figures: Mapping[str, Figure] = {}  # "commutator, axial" -> number
    table: Table | None = None


PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #d8d8d8; --soft: #f4f4f2; --quiet: #5c5c5c; --ground: #fff; --ink: #1c1c1c }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d3d3d; --soft: #262626; --quiet: #a5a5a5; --ground: #181818; --ink: #e6e6e6 }
}
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 0 0 .3rem }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.4rem }
p { margin: .4rem 0; max-width: 48rem } .quiet { color: var(--quiet); font-size: .9rem }
code { background: var(--soft); border-radius: 4px; padding: .1rem .35rem; font-size: .92em; overflow-wrap: anywhere }
.picture { overflow-x: auto; margin: .9rem 0 }
img { display: block; width: 100%; min-width: 34rem; height: auto; background: #fff; border-radius: 6px }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2rem }
.row { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid var(--line);
  padding: .15rem 0; font-size: .88rem }
.row dd { margin: 0; font-variant-numeric: tabular-nums; white-space: nowrap }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .7rem .2rem 0; text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left }
dl { margin: 0 } nav a { margin-right: 1rem; color: inherit }
</style>
</head>
<body>
<h1>$title</h1>
<p>$lead</p>
<p class="quiet">$settings</p>
<nav>$contents</nav>
$sections
</body>
</html>
""")

SECTION = Template("""<section id="$name">
<h2>$title</h2>
<p><code>$law</code></p>
<p>$says</p>
<div class="picture"><img src="data:image/png;base64,$picture" alt="$title: $says"></div>
$figures
</section>""")


def page(title: str, lead: str, settings: Mapping[str, object], sections: Sequence[Section]) -> str:
    """The page's HTML. Every text is escaped here, so none is given as HTML."""
    return PAGE.substitute(
        title=escape(title),
        lead=escape(lead),
        settings=escape(" · ".join(f"{name} {value}" for name, value in settings.items())),
        contents="\n".join(f'<a href="#{escape(s.name)}">{escape(s.title)}</a>' for s in sections),
        sections="\n".join(map(_section, sections)),
    )


def _section(section: Section) -> str:
    rows = "\n".join(
        f'<div class="row"><dt>{escape(name)}</dt><dd>{number(value)}</dd></div>'
        for name, value in section.figures.items()
    )
    return SECTION.substitute(
        name=escape(section.name),
        title=escape(section.title),
        law=escape(section.law),
        says=escape(section.says),
        picture=base64.b64encode(section.picture).decode(),
        figures=f'<dl class="tables">\n{rows}\n</dl>' if section.figures else _table(section.table),
    )


def _table(table: Table | None) -> str:
    if table is None:
        return ""
    lines = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in [("th", table.heads), *(("td", row) for row in table.rows)]
    ]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def number(value: Figure) -> str:
    """Four digits are enough to read; the JSON has them all."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

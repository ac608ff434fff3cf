"""How an experiment ends: tables printed and kept as Markdown, CSV and JSON, pictures, and one page with all of it."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.experiment.page import Section, Table, page
from training.experiment.statistics import Estimate
from training.files.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    folder: Path,
    name: str,
    title: str,
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    *,
    lead: str,
    columns: Sequence[str] = (),
    rows: Iterable[Sequence[Any]] = (),
    json: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> str:
    """In `folder` report.html, a PNG of each section that has a picture and, of what is given, NAME.md with the
    sections' tables, NAME.csv with the rows, NAME.json. Returns the tables, and where the page is.

    lead: a line above all on the page. notes: lines on the data, below the tables. missing: a line for each cell that
    could not be made, named below them and in the JSON.
    """
    notes = [*notes, *(f"missing: {line}" for line in missing)]
    for section in sections:
        if section.picture is not None:
            write_bytes(folder / f"{section.name}.png", section.picture)
    parts = [
        *(_markdown(section, section.table) for section in sections if section.table),
        *(["\n".join(f"- {x}" for x in notes)] if notes else []),
    ]
    tables = "\n\n".join(parts) + "\n" if parts else ""
    if tables:
        write_bytes(folder / f"{name}.md", tables.encode())
    if columns:
        write_bytes(folder / f"{name}.csv", csv_text(columns, rows).encode())
    if json is not None:
        write_json(folder / f"{name}.json", {**json, **({"missing": list(missing)} if missing else {})})
    write_bytes(folder / "report.html", page(title, lead, settings, sections, notes).encode())
    return f"{tables}\n{folder / 'report.html'}: the same with pictures"


def _markdown(section: Section, table: Table) -> str:
    heading = table.caption or f"{section.title}\n{section.says}"
    return f"{heading}\n\n{markdown(table)}"


def markdown(table: Table) -> str:
    marks = ["---"] * table.left + ["---:"] * (len(table.heads) - table.left)
    return "\n".join("| " + " | ".join(line) + " |" for line in (table.heads, marks, *table.rows))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=130, format="png")
    return file.getvalue()


def seeds_told(runs: Iterable[Sized]) -> str:
    """How many seeds the rows of a table are of: "3 seed(s)", and "2 to 3 seeds" where some cells are missing."""
    counts = {len(one) for one in runs}
    return f"{max(counts)} seed(s)" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"


def decimals(value: Estimate | float | None, digits: int = 3) -> str:
    """A table's cell; "" where there is none."""
    if value is None:
        return ""
    return value.text(digits) if isinstance(value, Estimate) else f"{value:.{digits}f}"


def shown_settings(config: Any) -> dict[str, Any]:
    """A config's own fields, without those of its groups, as the page has them."""
    return {name: value for name, value in asdict(config).items() if not isinstance(value, dict)}

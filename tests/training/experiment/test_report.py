"""A report is of what is given: tables as Markdown and on the page, rows as CSV, figures as JSON,
pictures beside them."""

import json

from training.experiment.page import Section, Table, page
from training.experiment.report import seeds_told, write_report

SECTIONS = [
    Section("one", "A <title>", says="As it was.", picture=b"PNG",
            table=Table(["a", "b"], [["x", "**1.0**"], ["y", "<0>"]])),
    Section("two", "Another", table=Table(["a", "b"], [["x", "2"]], left=2, caption="Means\n\nOf all")),
]  # fmt: skip


def test_everything_is_written(tmp_path):
    told = write_report(
        tmp_path,
        "all",
        "Why?",
        SECTIONS,
        {"some_steps": 3, "names": ("a", "b")},
        lead="Two cells.",
        columns=("a", "b"),
        rows=[["x", 1.5], ["y", None]],
        json={"rows": [1]},
        notes=["of the data", "more"],
    )
    assert {path.name for path in tmp_path.iterdir()} == {"all.md", "all.csv", "all.json", "one.png", "report.html"}
    tables = (tmp_path / "all.md").read_text()
    assert tables == (
        "A <title>\nAs it was.\n\n| a | b |\n| --- | ---: |\n| x | **1.0** |\n| y | <0> |\n\n"
        "Means\n\nOf all\n\n| a | b |\n| --- | --- |\n| x | 2 |\n\n- of the data\n- more\n"
    )
    assert told == f"{tables}\n{tmp_path / 'report.html'}: the same with pictures"
    assert (tmp_path / "all.csv").read_text() == "a,b\nx,1.5\ny,\n"
    assert json.loads((tmp_path / "all.json").read_text()) == {"rows": [1]}
    html = (tmp_path / "report.html").read_text()
    for part in (
        "<h2>A &lt;title&gt;</h2>",
        '<tr><td class="left">x</td><td><b>1.0</b></td></tr>',
        "<td>&lt;0&gt;</td>",
        '<p class="quiet">Of all</p>',
        '<p class="quiet">some steps 3 · names a, b</p>',
        '<p class="quiet">more</p>',
    ):
        assert part in html
    assert html.count("<img") == 1 and html.count("<table>") == 2


def test_wide_tables_fold_between_a_mean_and_its_interval():
    html = page("", "", {}, [Section("one", "", table=Table(["a", "b"], [["x", "0.1 [0.0, 0.2]"]]))])
    assert "<td>0.1 [0.0,\u00a00.2]</td>" in html


def test_of_stars_alone_nothing_is_bold():
    """As a name of a file may be, which the first column has."""
    cells = ["**", "***", "****", "*****"]
    html = page("", "", {}, [Section("one", "", table=Table(["a"] * 4, [cells], left=0))])
    assert "<tr><td>**</td><td>***</td><td>****</td><td><b>*</b></td></tr>" in html


def test_what_is_missing_is_named_wherever_the_figures_are(tmp_path):
    missing = ["a-0: the loss is not a number", "b-1: out of memory"]
    write_report(tmp_path, "all", "Why?", SECTIONS, {}, lead="", json={"rows": []}, notes=["data"], missing=missing)
    lines = [f"missing: {line}" for line in missing]
    assert (tmp_path / "all.md").read_text().endswith("- data\n" + "".join(f"- {line}\n" for line in lines))
    assert all(f'<p class="quiet">{line}</p>' in (tmp_path / "report.html").read_text() for line in lines)
    assert json.loads((tmp_path / "all.json").read_text()) == {"rows": [], "missing": missing}
    assert seeds_told([[0, 1], [0, 1]]) == "2 seed(s)" and seeds_told([[0, 1, 2], [1]]) == "1 to 3 seeds"


def test_nothing_is_written_of_what_is_not_given(tmp_path):
    write_report(tmp_path, "all", "Why?", [Section("one", "A title")], {}, lead="No cells.")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

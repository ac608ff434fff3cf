"""The report on positions: one page that needs nothing else, whose figures are those of the functions."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from rope.positions import analysis
from rope.positions.angles import axial_frequencies, frequencies
from rope.positions.extension import Extension, extended_rotation
from rope.positions.sinusoidal import sinusoidal
from rope.report import extensions, images, laws, rows
from rope.report.report import SECTIONS, ReportConfig, position_report
from tests.listening import listening
from training.experiment.page import Section, number, page
from training.files.atomic import atomic_write

SMALL = ReportConfig(
    size=8,
    length=48,
    side=3,
    max_distance=20,
    buckets=8,
    extension=Extension(factor=4, trained=12, window=6),
)


class Elements(HTMLParser):
    """What the page is made of, with every tag closed."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with listening() as said:
        path = position_report(replace(SMALL, folder=str(folder)))
    return path, Elements(path.read_text()), json.loads((folder / "figures.json").read_text()), said


def test_page_fetches_nothing(made):
    path, elements, _, _ = made
    names = {attributes["id"] for tag, attributes in elements.found if tag == "section"}
    for tag, attributes in elements.found:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert not {"srcset", "style", "background", "onload"} & attributes.keys()
        if tag == "a":
            assert attributes["href"][0] == "#" and attributes["href"][1:] in names
        else:
            assert "href" not in attributes
        if tag != "img":
            assert "src" not in attributes
    assert not re.search(r"url\(|@import|https?:", path.read_text())


def test_pictures_are_in_the_page_and_beside_it(made):
    path, elements, figures, _ = made
    pictures = [attributes for tag, attributes in elements.found if tag == "img"]
    assert len(pictures) == len(SECTIONS) == len(figures["figures"])
    for name, attributes in zip(figures["figures"], pictures, strict=True):
        kind, _, data = attributes["src"].partition(",")
        picture = base64.b64decode(data, validate=True)
        assert kind == "data:image/png;base64" and picture.startswith(b"\x89PNG")
        assert picture == (path.parent / f"{name}.png").read_bytes()
        assert len(attributes["alt"]) > 40
    names = {"report.html", "figures.json", *(f"{name}.png" for name in figures["figures"])}
    assert {file.name for file in path.parent.iterdir()} == names


def test_factors_of_longrope_are_compared_where_they_are_given():
    given = replace(SMALL, extension=replace(SMALL.extension, long_factors=(1, 2, 2, 6)))
    assert {*extensions.methods(given)} - {*extensions.methods(SMALL)} == {"longrope"}
    figures = extensions.extensions(given).figures
    assert figures["last pair, longrope"] == pytest.approx(1 / 6) and figures["first pair, longrope"] == pytest.approx(
        1
    )


def test_figures_are_those_of_the_functions(made):
    figures, k, theta = made[2]["figures"], np.arange(1, 48), frequencies(8)
    code = analysis.gram(sinusoidal(jnp.arange(48), theta))
    found = analysis.toeplitz_error(code, np.arange(48))
    assert figures["sinusoidal-scores"]["Toeplitz error of the code, largest"] == found.largest
    assert figures["sinusoidal-scores"]["Toeplitz error of the code, RMS"] == found.rms
    apart = np.abs(analysis.decay(k, theta) - analysis.decay_limit(k, 8, "10000^-t")).max() / 4
    assert figures["decay"]["sum against integral, largest"] == apart
    assert figures["decay"]["largest share of what is allowed"] <= 1
    for name in SMALL.compare:
        crossed = analysis.crossings(k, analysis.decay_limit(k, 2, name))
        assert figures["schedules"][f"{name}: crossings"] == len(crossed)
        assert figures["schedules"][f"{name}: first at"] == (crossed[0] if len(crossed) else None)
    linear = analysis.decay_bound(np.arange(48) / 4, theta)
    assert figures["rotary-bound"]["linear: mean beyond"] == pytest.approx(linear[13:].mean(), rel=1e-6)
    assert figures["rotary-bound"]["at distance 0"] == 2.5
    assert figures["extensions"]["farthest distance, rerope"] == 6
    assert figures["extensions"]["farthest distance, leaky"] == 6 + 41 / 4
    axial = analysis.decay([[1, -1]], axial_frequencies(8, 2))[0] / 4
    assert figures["images"]["axial: at (1, -1)"] == pytest.approx(axial)
    assert figures["groups"]["quaternion: commutator"] == 2
    assert figures["groups"]["flattened x + y: share of cells recovered"] == pytest.approx(2 / 9)
    assert figures["buckets"]["Toeplitz error of the bias, largest"] == 0


def test_what_is_said_and_shown_is_in_the_page(made):
    path, elements, figures, said = made
    text = "".join(elements.words)
    assert said[-1] == str(path) and len(said) == len(SECTIONS) + 1
    for line in said[:-1]:
        assert line.split("?: ")[1].strip() in text
    for section in figures["figures"].values():
        for name, value in section.items():
            assert name in text and number(value) in text
    assert figures["config"]["extension"] == {
        "method": "none",
        "factor": 4,
        "trained": 12,
        "window": 6,
        "long_factors": [],
        "short_factors": [],
    }


def test_only_what_is_asked_for_is_reported(tmp_path):
    c = replace(SMALL, encodings=("buckets",), size=6, folder=str(tmp_path / "new" / "folder"))
    position_report(c)
    figures = json.loads((tmp_path / "new" / "folder" / "figures.json").read_text())["figures"]
    assert list(figures) == ["buckets"]


@pytest.mark.parametrize("method", ["linear", "ntk", "dynamic", "yarn", "dynamic-yarn", "longrope", "rerope", "leaky"])
def test_the_code_of_every_extension_follows_its_formula(method, monkeypatch):
    monkeypatch.setattr(rows, "png", lambda figure: b"")
    c = replace(SMALL, extension=replace(SMALL.extension, method=method, long_factors=(1, 2, 2, 6)))
    figures = rows.rotary_scores(c).figures
    assert figures["code against formula, largest"] < 1e-5 * figures["largest score"]
    theta, factor = extensions.turning(c.extension, c)
    by = extended_rotation(c.extension, jnp.arange(2), 8, 48)
    if method not in ("rerope", "leaky"):
        np.testing.assert_allclose(by.sin[1, 0], np.sin(theta) * factor, rtol=1e-5)


@pytest.mark.parametrize("change", [{"size": 2, "length": 2}, {"theta": "t", "compare": ("t^2",)}])
def test_smallest_and_other_schedules(change, monkeypatch):
    for sections in (rows, extensions, images, laws):
        monkeypatch.setattr(sections, "png", lambda figure: b"")
    c = replace(SMALL, encodings=("sinusoidal", "rotary", "buckets"), **change)
    for section, encodings in SECTIONS.items():
        if encodings & set(c.encodings):
            made = section(c)
            assert all(value is None or np.isfinite(value) for value in made.figures.values()), made.figures
            assert "nan" not in made.says


def test_who_keeps_the_law_of_differences(made):
    figures = made[2]["figures"]["laws"]
    for name in ("axial", "mixed", "golden", "sections"):
        assert all(figures[f"{name}, {way}"] < 1e-5 for way in laws.SHIFTS)
    assert figures["spherical, down"] < 1e-5
    assert all(figures[x] > 0.1 for x in ("spherical, across", "spherical, both", "lie, down", "lie, across"))
    assert all(figures[f"{name}: nearest cells"] > 0.05 for name in ("axial", "golden", "spherical", "lie"))


def test_texts_are_escaped():
    section = Section("a", "<b> & 'c'", 'x < y "z"', "1 > 0 & $title", b"", {"<i>": 1.0, "none": None})
    elements = Elements(page("<t>", "&", {"<s>": "</style>"}, [section]))
    assert not {"b", "i", "t", "s"} & {tag for tag, _ in elements.found}
    words = "".join(elements.words)
    for text in ("<b> & 'c'", 'x < y "z"', "1 > 0 & $title", "<i>", "<s> </style>"):
        assert text in words
    (picture,) = (attributes for tag, attributes in elements.found if tag == "img")
    assert picture["alt"] == "<b> & 'c': 1 > 0 & $title"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 6}, "size is 6: it must be a multiple of 4 for axial and mixed positions"),
        ({"size": 7, "encodings": ("rotary",)}, "size is 7: it must be even"),
        ({"theta": "10000^t"}, "theta is '10000^t': it must be like"),
        ({"compare": ("t", "sin")}, "theta is 'sin'"),
        ({"mixed_theta": ""}, "theta is ''"),
        ({"size": 2, "encodings": ("spherical",)}, "size is 2: it must be 4 or more for sections and spherical"),
        ({"length": 1}, "length is 1: it must be at least 2"),
        ({"side": 1}, "side is 1"),
        ({"encodings": ()}, "encodings and compare must name one or more"),
        ({"buckets": 30}, "buckets must be a multiple of 4"),
        ({"max_distance": 4}, "the distance more than half of them"),
        ({"theta": "t", "extension": Extension(method="ntk")}, "a larger base needs frequencies like"),
        ({"extension": Extension(long_factors=(1, 2))}, "long_factors are 2: a head of 8 has 4 pairs"),
    ],
)
def test_what_cannot_be_is_one_line(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as found:
        replace(SMALL, **change)
    assert "\n" not in str(found.value)


def test_a_folder_that_cannot_be_is_one_line_before_any_work(tmp_path, monkeypatch, said):
    with atomic_write(tmp_path / "file") as file:
        file.write_text("")
    for folder in ("file", "file/below"):
        with pytest.raises(ValueError, match="cannot be written to") as found:
            position_report(replace(SMALL, folder=str(tmp_path / folder)))
        assert "\n" not in str(found.value)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="Permission denied"):
        position_report(replace(SMALL, folder=str(tmp_path)))
    assert not said and (tmp_path / "file").read_text() == ""


def test_command_line():
    args = [
        "--encodings",
        "axial",
        "mixed",
        "--theta",
        "100^-t",
        "--extension.method",
        "yarn",
        "--extension.trained",
        "64",
    ]
    c = tyro.cli(ReportConfig, args=args)
    assert c.encodings == ("axial", "mixed") and c.theta == "100^-t"
    assert (c.extension.method, c.extension.trained, c.extension.factor) == ("yarn", 64, 4)

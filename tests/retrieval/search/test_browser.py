"""The page in a real browser, narrow and wide. `make browser` says what that needs; without it these are skipped."""

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from retrieval.search.commands import open_searcher
from retrieval.search.page.routes import LONGEST, application
from retrieval.search.page.writer import Writer
from tests.retrieval.search.small_index import TEXTS, write_index
from training.files.errors import DataError

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make browser installs it")
expect = playwright.expect
expect.set_options(timeout=60_000)  # what is asked first is compiled

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
SIZES = {"narrow": {"width": 360, "height": 740}, "wide": {"width": 1280, "height": 800}}
LONG = "今天 https://www.example.com/" + "a" * 200 + "?x=" + "b" * 100 + "\n" + "我们去公园散步吧，" * 40
MARKUP = "<img src=x onerror=alert(1)>今天"

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    return open_searcher(write_index(tmp_path_factory.mktemp("browser")))


class Writes:
    """What writes, as slowly and as badly as a test wants it."""

    def __init__(self) -> None:
        self.go_on, self.asked = threading.Event(), []
        self.go_on.set()

    def __call__(self, text: str, k: int) -> list[tuple[str, float]]:
        self.asked.append((text, k))
        assert self.go_on.wait(120)
        if text == "好":
            raise DataError("'好' has nothing that can be written")
        if text == "气":
            raise RuntimeError("a fault of ours")
        return [(text[::-1], 0.75), (MARKUP, 0.5), (LONG, -0.25)][:k]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Its address, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def writes() -> Writes:
    return Writes()


@pytest.fixture(scope="module")
def address(searcher, writes) -> Iterator[str]:
    with served(application(searcher, "questions-of-" + "a" * 60, Writer(writes))) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path  # where `playwright install chromium` puts one
        found = next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)
        if not found:
            pytest.skip("no Chromium: as root, apt-get install --no-install-recommends chromium")
        opened = driver.chromium.launch(executable_path=found)
        yield opened
        opened.close()


@pytest.fixture(params=SIZES)
def page(request, browser, address):
    """The page at its start, at each size; nothing of its script fails."""
    with opened(browser, address, SIZES[request.param]) as page:
        yield page


@contextmanager
def opened(browser, address: str, size: dict[str, int] = SIZES["wide"]):
    page = browser.new_page(viewport=size, locale="en")
    page.set_default_timeout(60_000)
    faults: list[object] = []
    page.on("pageerror", lambda fault: faults.append(fault))
    page.goto(address)
    try:
        yield page
    finally:
        page.close()
    assert not faults


def field(page, label: str):
    """The one with this label in the open tab."""
    return page.locator("section:visible").get_by_label(label)


def ready(page) -> None:
    page.wait_for_function("!document.querySelector('[aria-busy]')")


def said(page) -> str:
    """The line of the open tab, after what was asked is answered."""
    ready(page)
    return page.locator("section:visible .said").inner_text()


def fits(page) -> None:
    """Nothing is wider than the window, nor cut off at its side."""
    wide = """() => {
        const right = document.documentElement.clientWidth;
        const out = x => x.getBoundingClientRect().right > right + .5;
        const over = x => x.localName !== 'input' && x.scrollWidth > right;  // those scroll within
        const all = [document.documentElement, ...document.body.querySelectorAll('*')];
        return all.filter(x => x.checkVisibility() && (out(x) || over(x))).map(x => x.outerHTML.slice(0, 80));
    }"""
    assert page.evaluate(wide) == []


def test_a_search_finds_texts(page) -> None:
    expect(field(page, "Question")).to_be_focused()
    page.keyboard.type(TEXTS[4])
    field(page, "How many").fill("3")
    page.get_by_role("button", name="Search").click()
    assert said(page).startswith("3 found")
    expect(page.locator("section:visible li")).to_have_count(3)
    expect(page.locator("section:visible li").first).to_have_text(f"1.000{TEXTS[4]}")


def test_similar_sentences_have_scores_and_are_text_not_markup(page) -> None:
    page.get_by_role("link", name="Similar").click()
    field(page, "Sentence").fill("今天天气")
    page.keyboard.press("Enter")
    assert said(page).startswith("3 written")
    lines = page.locator("section:visible li")
    expect(lines.nth(0)).to_have_text("0.750气天天今")
    expect(lines.nth(1)).to_have_text(f"0.500{MARKUP}")
    assert page.locator("img").count() == 0
    fits(page)


def test_two_texts_have_a_cosine(page, searcher) -> None:
    page.get_by_role("link", name="Compare").click()
    field(page, "First text").fill("今天天气")
    field(page, "Second text").fill("公园")
    page.get_by_role("button", name="Compare").click()
    assert said(page).startswith("Cosine")
    first, second = searcher.vectors(["今天天气", "公园"])
    assert float(page.locator(".cosine").inner_text()) == pytest.approx(first @ second, abs=6e-4)
    expect(page.locator(".cosine")).to_be_in_viewport()


@pytest.mark.parametrize(
    ("tab", "labels"), [("Search", ["Question"]), ("Similar", ["Sentence"]), ("Compare", ["First text", "Second text"])]
)
def test_long_texts_and_addresses_do_not_widen_the_page(page, tab: str, labels: list[str]) -> None:
    fits(page)
    page.get_by_role("link", name=tab).click()
    for label in labels:
        field(page, label).fill(LONG)
    page.get_by_role("button", name=tab.replace("Similar", "Write")).click()
    assert "wrong" not in page.locator("section:visible .said").get_attribute("class") and said(page)
    fits(page)
    expect(page.locator("section:visible .said")).to_be_in_viewport()


def test_the_tab_is_in_the_address(page, address: str) -> None:
    tabs = page.get_by_role("navigation").get_by_role("link")
    title = page.title()
    for name in ("Similar", "Compare", "Search"):
        page.get_by_role("link", name=name).click()
        assert page.url == f"{address}#{name.lower()}"
        expect(page.get_by_role("region")).to_have_count(1)
        expect(page.get_by_role("region", name=name)).to_be_visible()
        assert [one.get_attribute("aria-current") for one in tabs.all()].count("page") == 1
        expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
        assert page.title() == (title if name == "Search" else f"{name} – {title}")
    page.go_back()
    expect(page.get_by_role("region", name="Compare")).to_be_visible()
    page.reload()
    expect(page.get_by_role("region", name="Compare")).to_be_visible()
    page.goto(f"{address}#constructor")
    expect(page.get_by_role("region", name="Search")).to_be_visible()


def test_what_was_typed_and_found_stays_while_another_tab_is_open(page) -> None:
    page.keyboard.type(TEXTS[4])
    page.keyboard.press("Enter")
    line = said(page)
    page.get_by_role("link", name="Compare").click()
    page.get_by_role("link", name="Search").click()
    assert field(page, "Question").input_value() == TEXTS[4] and said(page) == line


def test_all_of_it_goes_by_keyboard(page, writes: Writes) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("Shift+Tab", "Shift+Tab", "Enter")  # from the question back to Compare, Similar
    expect(field(page, "Sentence")).to_be_focused()
    page.keyboard.type("今天")
    press("Shift+Enter")
    page.keyboard.type("天气")
    press("Tab")
    expect(field(page, "How many")).to_be_focused()
    page.keyboard.type("2")
    press("Tab")
    expect(page.get_by_role("button", name="Write")).to_be_focused()
    press("Enter")
    assert said(page).startswith("2 written") and writes.asked[-1] == ("今天\n天气", 2)
    expect(page.get_by_role("button", name="Write")).to_be_focused()
    press("Shift+Tab", "Shift+Tab", "End")
    page.keyboard.type("好")
    press("Enter")
    assert said(page) and writes.asked[-1] == ("今天\n天气好", 2)


def test_the_end_of_a_word_of_an_input_method_asks_nothing(page, writes: Writes) -> None:
    page.get_by_role("link", name="Similar").click()
    field(page, "Sentence").fill("今天")
    before = len(writes.asked)
    for composing in (True, False):
        event = {"key": "Enter", "bubbles": True, "cancelable": True, "isComposing": composing}
        field(page, "Sentence").dispatch_event("keydown", event)
        ready(page)
        assert len(writes.asked) == before + (not composing)


def test_every_field_has_a_name_and_is_large_enough_for_a_finger(page) -> None:
    for tab in ("Search", "Similar", "Compare"):
        page.get_by_role("link", name=tab).click()
        for field in page.locator(":is(input, textarea):visible").all():
            assert field.evaluate("x => x.labels[0].firstChild.textContent.trim()")
        for field in page.locator(":is(input, textarea, button, nav a):visible").all():
            assert field.bounding_box()["height"] >= 40


def test_what_is_wrong_is_one_line_and_the_next_is_answered(page) -> None:
    def asked(text: str) -> str:
        field(page, "Sentence").fill(text)
        page.get_by_role("button", name="Write").click()
        return said(page)

    page.get_by_role("link", name="Similar").click()
    line = page.locator("section:visible .said")
    for text, told in (
        ("😀🎉", "Sentence: none of its characters is in the model's vocabulary"),
        (" \n ", "Sentence: no text"),
        ("今" * 12_345, f"Sentence: 12,345 characters; give at most {LONGEST:,}."),
        ("好", "'好' has nothing that can be written"),
        ("气", "The server failed; where it was started it says how."),
    ):
        assert asked(text) == told
        expect(line).to_have_class("said wrong")
        expect(page.locator("section:visible li")).to_have_count(0)
        fits(page)
    assert asked("今" * LONGEST).startswith("3 written")
    expect(line).to_have_class("said")


def test_nothing_is_asked_of_an_empty_field_or_a_number_that_cannot_be(page, writes: Writes) -> None:
    page.get_by_role("link", name="Similar").click()
    before = len(writes.asked)
    page.keyboard.press("Enter")
    field(page, "Sentence").fill("今天")
    for number in ("0", "101", "", "1.5"):
        field(page, "How many").fill(number)
        page.get_by_role("button", name="Write").click()
        expect(field(page, "How many")).to_be_focused()  # where the browser says what is wrong
    ready(page)
    assert len(writes.asked) == before


def test_it_says_that_it_is_busy_and_asks_once(page, writes: Writes) -> None:
    page.clock.install()
    page.get_by_role("link", name="Similar").click()
    field(page, "Sentence").fill("今天")
    writes.go_on.clear()
    before = len(writes.asked)
    try:
        page.keyboard.press("Enter")
        expect(page.get_by_role("region")).to_have_attribute("aria-busy", "true")
        expect(page.get_by_role("status")).to_have_text("Writing …")
        expect(page.get_by_role("button")).to_have_attribute("aria-disabled", "true")
        page.keyboard.press("Enter")
        page.get_by_role("button").click(force=True)
        page.clock.fast_forward(5000)
        expect(page.get_by_role("status")).to_contain_text("being compiled")
        fits(page)
        page.get_by_role("link", name="Search").click()
        field(page, "Question").fill(TEXTS[4])
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("10 found")
    finally:
        writes.go_on.set()
    page.get_by_role("link", name="Similar").click()
    assert said(page).startswith("3 written") and len(writes.asked) == before + 1
    expect(page.get_by_role("button")).not_to_have_attribute("aria-disabled", "true")


def test_a_server_that_is_gone_is_said(browser, searcher) -> None:
    with ExitStack() as stack:
        with served(application(searcher, "index", Writer(Writes()))) as url:
            page = stack.enter_context(opened(browser, url))
        field(page, "Question").fill("今天")
        page.keyboard.press("Enter")
        assert said(page) == "The server does not answer. Is it still running?"


@pytest.mark.parametrize("size", SIZES)
def test_a_model_that_cannot_write_says_so_in_its_tab(browser, searcher, size: str) -> None:
    why = f"/{'models/' * 20}m: no masked language model's head, so it cannot write"
    with served(application(searcher, "index", Writer(says=why))) as url, opened(browser, url, SIZES[size]) as page:
        page.get_by_role("link", name="Similar").click()
        expect(page.get_by_text(why)).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(0)
        fits(page)
        page.get_by_role("link", name="Search").click()
        expect(page.get_by_text(why)).to_be_hidden()

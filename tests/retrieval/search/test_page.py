"""The page's routes: what they give, and that what is wrong is one line. No browser is in it."""

import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from retrieval.search.commands import open_searcher
from retrieval.search.page.routes import LONGEST, MOST, application, routes
from retrieval.search.page.writer import Writer, questions_of, writer_for
from retrieval.vectors.source import SentenceEncoder
from tests.retrieval.search.small_index import TEXTS, write_index
from tests.retrieval.vectors.test_encoding import source
from tests.rope.encoder.random_encoder import ROFORMER
from training.files.errors import DataError

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    return open_searcher(write_index(tmp_path_factory.mktemp("page")))


def reversed_text(text: str, k: int) -> list[tuple[str, float]]:
    return [(text[::-1], 0.5), (text[1:], -0.25)][:k]


@pytest.fixture(scope="module")
def client(searcher) -> TestClient:
    return TestClient(application(searcher, "<index>", Writer(reversed_text)))


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "&lt;index&gt;" in page.text and "30 texts" in page.text
    assert page.text.count("<form") == 3 and "wrong" not in page.text
    for file, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        assert f'"{file}"' in page.text
        found = client.get(f"/{file}")
        assert found.headers["content-type"].startswith(kind) and found.headers["cache-control"] == "no-cache"
    assert client.get("/routes.py").status_code == 404


def test_every_form_asks_a_route_for_what_it_takes(client: TestClient, searcher) -> None:
    described = client.get("/openapi.json").json()["paths"]
    assert list(described) == [route.path for route in routes(searcher, Writer(reversed_text))]
    forms = client.get("/").text.split("<form ")[1:]
    for (path, about), form in zip(described.items(), forms, strict=True):
        assert form.startswith(f'action="{path[1:]}"')
        assert re.findall(' name="(.*?)"', form) == [one["name"] for one in about["get"]["parameters"]]


def test_a_question_finds_texts(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": TEXTS[7], "k": 2}).json()
    assert answer["question"] == TEXTS[7] and len(answer["hits"]) == 2
    assert answer["hits"][0] == {"text": TEXTS[7], "score": pytest.approx(1, abs=1e-4), "place": 7}
    assert len(client.get("/api/search", params={"q": TEXTS[7]}).json()["hits"]) == 10


def test_similar_texts_are_those_that_were_written(client: TestClient) -> None:
    answer = client.get("/api/similar", params={"text": "今天好", "k": 2}).json()
    similar = [{"text": "好天今", "score": 0.5}, {"text": "天好", "score": -0.25}]
    assert answer == {"text": "今天好", "similar": similar}
    assert client.get("/api/similar", params={"text": "今天好", "k": 1}).json()["similar"] == similar[:1]


def test_similarity_is_the_cosine_that_a_search_has(client: TestClient, searcher) -> None:
    hits = client.get("/api/search", params={"q": TEXTS[4], "k": 30}).json()["hits"]
    for hit in hits[::7]:
        answer = client.get("/api/similarity", params={"a": TEXTS[4], "b": hit["text"]}).json()
        assert answer == {"a": TEXTS[4], "b": hit["text"], "cosine": pytest.approx(hit["score"], abs=1e-5)}
    vectors = searcher.vectors(["我们去公园", "天气"])
    answer = client.get("/api/similarity", params={"a": "我们去公园", "b": "天气"}).json()
    np.testing.assert_allclose(answer["cosine"], vectors[0] @ vectors[1], atol=1e-5)


@pytest.mark.parametrize(
    ("path", "texts", "names"),
    [
        ("/api/search", {"q": "好", "k": 3}, {"q": "Question"}),
        ("/api/similar", {"text": "好", "k": 3}, {"text": "Sentence"}),
        ("/api/similarity", {"a": "好", "b": "天"}, {"a": "First text", "b": "Second text"}),
    ],
)
def test_what_is_wrong_is_one_line(client: TestClient, path: str, texts: dict, names: dict[str, str]) -> None:
    def refused(asked: dict) -> str:
        answer = client.get(path, params=asked)
        line = answer.json()["detail"]
        assert answer.status_code == 422 and list(answer.json()) == ["detail"] and "\n" not in line
        return line

    assert client.get(path, params=texts).status_code == 200
    for name, told in names.items():
        assert refused({key: text for key, text in texts.items() if key != name}) == f"{name}: Field required"
        assert refused(texts | {name: ""}) == f"{name}: String should have at least 1 character"
        assert f"{name}: String should have at most {LONGEST} " in refused(texts | {name: "好" * (LONGEST + 1)})
        assert refused(texts | {name: " \u3000\u200b"}) == f"{told}: no text"
        assert refused(texts | {name: "😀🎉"}) == f"{told}: none of its characters is in the model's vocabulary"
        assert client.get(path, params=texts | {name: "好" * LONGEST}).status_code == 200
    if "k" in texts:
        assert refused(texts | {"k": 0}) == "k: Input should be greater than or equal to 1"
        assert refused(texts | {"k": MOST + 1}) == f"k: Input should be less than or equal to {MOST}"
        for k in ("", "x", "1.5"):
            assert refused(texts | {"k": k}).startswith("k: Input should be a valid integer")
        assert client.get(path, params=texts | {"k": MOST}).status_code == 200


def test_a_model_that_cannot_write_says_so(searcher) -> None:
    client = TestClient(application(searcher, "index", Writer(says="runs/<m>: no head")))
    page = client.get("/").text
    assert '<p class="wrong">runs/&lt;m&gt;: no head</p>' in page and page.count("<form") == 2
    answer = client.get("/api/similar", params={"text": "好"})
    assert (answer.status_code, answer.json()) == (501, {"detail": "runs/<m>: no head"})
    assert client.get("/api/search", params={"q": "好"}).status_code == 200
    page = TestClient(application(searcher, "index", Writer(reversed_text, "It may be noise."))).get("/").text
    assert '<p class="wrong">It may be noise.</p>' in page and page.count("<form") == 3


def test_what_the_writer_refuses_and_what_fails_are_one_line_each(searcher) -> None:
    def refuses(text: str, k: int):
        raise DataError("too long") if text == "好" else RuntimeError("of ours")

    client = TestClient(application(searcher, "index", Writer(refuses)), raise_server_exceptions=False)
    answer = client.get("/api/similar", params={"text": "好"})
    assert (answer.status_code, answer.json()) == (422, {"detail": "too long"})
    answer = client.get("/api/similar", params={"text": "天"})
    assert answer.status_code == 500 and "it says how" in answer.json()["detail"]


def test_a_search_does_not_wait_for_what_is_being_written(searcher) -> None:
    begun, go_on, inside = threading.Event(), threading.Event(), []

    def slowly(text: str, k: int) -> list[tuple[str, float]]:
        inside.append(text)
        assert len(inside) == 1
        begun.set()
        assert go_on.wait(60)
        inside.remove(text)
        return []

    found = []
    with TestClient(application(searcher, "index", Writer(slowly))) as client:  # with it all are of one server
        # More of them than a server has threads.
        asked = [threading.Thread(target=client.get, args=(f"/api/similar?text={text}",)) for text in "好天" * 25]
        for thread in asked:
            thread.start()
        assert begun.wait(60)
        time.sleep(0.5)  # until all have come
        search = threading.Thread(target=lambda: found.append(client.get("/api/search?q=好").status_code))
        search.start()
        search.join(20)
        first, writing = [*found], [*inside]
        go_on.set()
        for thread in asked:
            thread.join(60)
    assert first == [200] and writing and not inside


def test_what_writes_is_a_model_that_was_trained_to(searcher) -> None:
    assert "give serve --writer FOLDER" in writer_for("", searcher.source).says
    config = replace(ROFORMER, pooler="linear", types=2)
    writer = writer_for("", SentenceEncoder(source(config), "m", "pooler"))
    client = TestClient(application(searcher, "index", writer))
    found = client.get("/api/similar", params={"text": "今天天气", "k": 3}).json()["similar"]
    assert len(found) == 3 and all(-1 <= one["score"] <= 1 and one["text"] != "今天天气" for one in found)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    headless = SentenceEncoder(source(replace(config, head=False)), "m", "pooler")
    assert writer_for("", headless).write is None
    with pytest.raises(DataError, match="no masked language model's head"):
        questions_of(headless)

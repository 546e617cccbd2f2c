from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

import deepcnn
from deepcnn.data.formats import decoding
from deepcnn.inference.as_json import as_json
from deepcnn.inference.calibration import Floats
from deepcnn.inference.classifier import Classifier, Pixels
from deepcnn.serving.app import Access, make_app
from deepcnn.serving.limits import Limits
from deepcnn.serving.page import Page
from deepcnn.serving.service import Service

TOKEN = "a-token-of-some-length"
# What is computed together with other pictures may differ in the last digits.
CLOSE = 2e-5

MakeApp = Callable[..., Starlette]


@pytest.fixture
def app_with(classifier: Classifier) -> Iterator[MakeApp]:
    services: list[Service] = []

    def make(
        access: Access | None = None, network: Classifier = classifier, **limits: Any
    ) -> Starlette:
        services.append(Service(network, Limits(**limits), "a run"))
        return make_app(services[-1], Page.upload("a test"), access or Access())

    yield make
    for service in services:
        service.close()


@pytest.fixture
def app(app_with: MakeApp) -> Starlette:
    return app_with()


def ask(app: Starlette, method: str, path: str, **about: Any) -> httpx.Response:
    return together(app, [(method, path, about)])[0]


def together(
    app: Starlette, requests: list[tuple[str, str, dict[str, Any]]]
) -> list[httpx.Response]:
    """Return the answers to requests that are sent at once."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asked = [client.request(method, path, **about) for method, path, about in requests]
            return list(await asyncio.gather(*asked))

    return asyncio.run(asyncio.wait_for(all_of_them(), 60))


def check_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key in ("path", "label", "unsure"):
        assert found[key] == expected[key]
    assert found["probability"] == pytest.approx(expected["probability"], abs=CLOSE)
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=CLOSE)
    assert list(found["probabilities"]) == list(expected["probabilities"])


def test_each_way_of_sending_is_answered_as_predict_does(
    app: Starlette, classifier: Classifier, pictures: list[bytes]
) -> None:
    expected = [as_json(each, classifier.classes) for each in classifier.predict(pictures)]
    for picture, answer in zip(pictures, expected, strict=True):
        raw = ask(app, "POST", "/predict", content=picture)
        assert raw.status_code == 200
        check_equal(raw.json(), answer | {"path": "0"})
    texts = [base64.b64encode(picture).decode() for picture in pictures]
    as_texts = ask(app, "POST", "/predict", json={"images": texts})
    files = [("x", (f"{i}.png", picture)) for i, picture in enumerate(pictures)]
    as_files = ask(app, "POST", "/predict", files=files)
    assert as_texts.status_code == as_files.status_code == 200
    for i, answer in enumerate(expected):
        check_equal(as_texts.json()[i], answer)
        check_equal(as_files.json()[i], answer | {"path": f"{i}.png"})
    assert len(as_texts.json()) == len(as_files.json()) == len(pictures)


def test_requests_at_once_each_get_their_own_answer(
    app: Starlette, classifier: Classifier, pictures: list[bytes]
) -> None:
    expected = [as_json(each, classifier.classes) for each in classifier.predict(pictures)]
    requests = [("POST", "/predict", {"content": picture}) for picture in pictures * 10]
    for i, response in enumerate(together(app, requests)):
        check_equal(response.json(), expected[i % len(pictures)] | {"path": "0"})


def test_pictures_that_cannot_be_read_are_said_beside_the_others(
    app: Starlette, pictures: list[bytes]
) -> None:
    files = [("x", ("good.png", pictures[0])), ("x", ("bad.png", b"no picture"))]
    some = ask(app, "POST", "/predict", files=files)
    assert some.status_code == 200
    assert some.json()[0]["path"] == "good.png"
    assert some.json()[1].keys() == {"path", "error"}
    assert some.json()[1]["path"] == "bad.png"
    none = ask(app, "POST", "/predict", files=files[1:])
    assert none.status_code == 422
    assert [each["path"] for each in none.json()] == ["bad.png"]
    raw = ask(app, "POST", "/predict", content=pictures[0][:500])
    assert raw.status_code == 422
    assert "decoded" in raw.json()["error"]
    text = ask(app, "POST", "/predict", json={"images": ["!"]})
    assert text.status_code == 422
    assert "base64" in text.json()[0]["error"]


def test_a_picture_of_too_many_pixels_is_refused(
    app: Starlette, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 24 * 24)
    assert ask(app, "POST", "/predict", content=pictures[0]).status_code == 200
    large = ask(app, "POST", "/predict", content=pictures[1])
    assert large.status_code == 422
    assert "at most 576 pixels, found 1,024" in large.json()["error"]


def test_health_says_what_answers(app: Starlette, classifier: Classifier) -> None:
    told = ask(app, "GET", "/health")
    assert told.status_code == 200
    assert told.json() == {
        "status": "ok",
        "run": "a run",
        "version": deepcnn.__version__,
        "classes": list(classifier.classes),
        "image_shape": list(classifier.image_shape),
    }


def test_what_is_not_there_is_an_error_in_json(app: Starlette) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/predict", 405)):
        response = ask(app, method, path)
        assert response.status_code == status
        assert response.json().keys() == {"error"}


# Limits


def test_a_body_of_too_many_bytes_is_refused_whether_or_not_it_says_so(
    app_with: MakeApp, pictures: list[bytes]
) -> None:
    app = app_with(bytes=len(pictures[0]))
    assert ask(app, "POST", "/predict", content=pictures[0]).status_code == 200

    async def pieces() -> AsyncIterator[bytes]:
        for byte in pictures[0] + b"x":
            yield bytes([byte])

    for content in (pictures[0] + b"x", pieces()):
        response = ask(app, "POST", "/predict", content=content)
        assert response.status_code == 413
        assert f"{len(pictures[0]):,} bytes" in response.json()["error"]


def test_too_many_pictures_are_refused(app_with: MakeApp, pictures: list[bytes]) -> None:
    app = app_with(pictures=2)
    text = base64.b64encode(pictures[0]).decode()
    assert ask(app, "POST", "/predict", json={"images": [text] * 2}).status_code == 200
    assert ask(app, "POST", "/predict", json={"images": [text] * 3}).status_code == 413


@pytest.mark.parametrize("first", [b"", b"x"])
def test_a_slow_sender_is_told_so(app_with: MakeApp, first: bytes) -> None:
    app = app_with(seconds=0.2)

    async def silent() -> AsyncIterator[bytes]:
        if first:
            yield first
        await asyncio.sleep(60)
        yield b"x"

    response = ask(app, "POST", "/predict", content=silent())
    assert response.status_code == 408
    assert response.headers["connection"] == "close"


def test_a_steady_sender_may_take_longer(app_with: MakeApp, pictures: list[bytes]) -> None:
    app = app_with(seconds=0.2)
    whole = pictures[0] + bytes(100_000)  # what follows a picture's end is not read

    async def steady() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 10_000):
            yield whole[start : start + 10_000]
            await asyncio.sleep(0.05)  # twelve times what the slowest may take in all

    assert ask(app, "POST", "/predict", content=steady()).status_code == 200


class Stuck:
    """A network that answers when it may, or cannot."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_broken = False

    def logits(self, images: Pixels) -> Floats:
        assert self.may_go.wait(60)
        if self.is_broken:
            raise RuntimeError("no memory")
        return np.zeros((len(images), 2), np.float32)


@pytest.fixture
def stuck() -> Stuck:
    return Stuck()


@pytest.fixture
def stuck_classifier(stuck: Stuck) -> Classifier:
    return Classifier(stuck, ("no", "yes"), (8, 8, 3))


def test_more_requests_than_may_wait_are_told_to_try_again(
    app_with: MakeApp, stuck: Stuck, stuck_classifier: Classifier, pictures: list[bytes]
) -> None:
    app, large = app_with(network=stuck_classifier, waiting=3, bytes=10_000), bytes(10_001)
    stuck.may_go.clear()

    async def scene() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            waiting = [
                asyncio.create_task(client.post("/predict", content=pictures[0])) for _ in range(3)
            ]
            # What is too large never waits itself, so it takes no place from the others.
            while (refused := await client.post("/predict", content=large)).status_code != 503:
                assert refused.status_code == 413
                await asyncio.sleep(0.01)
            assert (await client.get("/health")).status_code == 200  # which is no burden
            stuck.may_go.set()
            done = list(await asyncio.gather(*waiting))
            return [refused, *done, await client.post("/predict", content=pictures[0])]

    refused, *answered = asyncio.run(asyncio.wait_for(scene(), 60))
    assert refused.headers["retry-after"] == "1"
    assert "waiting" in refused.json()["error"]
    assert [response.status_code for response in answered] == [200] * 4


def test_bodies_that_are_sent_at_once_are_bounded_in_sum(
    app_with: MakeApp, pictures: list[bytes]
) -> None:
    app = app_with(held=150_000)
    go_on = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield pictures[0] + bytes(100_000)
        await go_on.wait()
        yield b"x"

    async def scene() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.create_task(client.post("/predict", content=half()))
            await asyncio.sleep(0.1)
            refused = await client.post("/predict", content=bytes(100_000))
            go_on.set()
            done = await first
            again = await client.post("/predict", content=pictures[0] + bytes(100_000))
            return [refused, done, again]

    refused, done, again = asyncio.run(asyncio.wait_for(scene(), 60))
    assert (refused.status_code, done.status_code, again.status_code) == (503, 200, 200)
    assert refused.headers["retry-after"] == "1"


def test_an_error_of_the_network_is_a_failure_of_the_server(
    app_with: MakeApp, stuck: Stuck, stuck_classifier: Classifier, pictures: list[bytes]
) -> None:
    app = app_with(network=stuck_classifier)

    stuck.is_broken = True
    assert ask(app, "POST", "/predict", content=pictures[0]).status_code == 500
    stuck.is_broken = False
    assert ask(app, "POST", "/predict", content=pictures[0]).status_code == 200


# Who may ask


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "may"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN}", True),
        (basic(TOKEN), True),
        (None, False),
        ("Bearer", False),
        ("Bearer " + TOKEN[:-1], False),
        ("Bearer " + TOKEN + "x", False),
        ("Bearer é", False),
        (basic("x"), False),
        ("Basic !", False),
        ("Basic 4pyTIGE=", False),
        (f"Digest {TOKEN}", False),
    ],
)
def test_a_token_is_needed_where_there_is_one(
    app_with: MakeApp, pictures: list[bytes], given: str | None, may: bool
) -> None:
    app = app_with(Access(token=TOKEN))
    headers = {"host": "elsewhere.example"}  # which a token makes unimportant
    encoded = headers | ({"authorization": given} if given is not None else {})
    raw = {name: value.encode("latin-1") for name, value in encoded.items()}
    for method, path in (("GET", "/"), ("POST", "/predict")):
        response = ask(app, method, path, headers=raw, content=pictures[0])
        assert response.status_code == (200 if may else 401)
        if not may:
            challenges = response.headers.get_list("www-authenticate")
            assert [each.split()[0] for each in challenges] == ["Basic", "Bearer"]
    told = ask(app, "GET", "/health", headers=raw)
    assert told.status_code == 200  # for what looks after servers has no token
    assert ("classes" in told.json()) == may


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("myself:8000", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 421),
    ],
)
def test_without_a_token_pages_from_elsewhere_cannot_reach_it_by_their_own_name(
    app_with: MakeApp, host: str, status: int
) -> None:
    app = app_with(Access(host="myself"))
    assert ask(app, "GET", "/health", headers={"host": host}).status_code == status


def test_other_sites_may_ask_only_where_it_is_wished(
    app_with: MakeApp, pictures: list[bytes]
) -> None:
    site, other = "https://site.example", "https://other.example"
    preflight = {
        "origin": site,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    closed = app_with()
    response = ask(closed, "POST", "/predict", content=pictures[0], headers={"origin": site})
    assert "access-control-allow-origin" not in response.headers
    assert ask(closed, "OPTIONS", "/predict", headers=preflight).status_code == 405
    opened = app_with(Access(token=TOKEN, origins=(site,)))
    allowed = ask(opened, "OPTIONS", "/predict", headers=preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == site
    for origin, answer in ((site, site), (other, None)):
        headers = {"origin": origin, "authorization": f"Bearer {TOKEN}"}
        response = ask(opened, "POST", "/predict", content=pictures[0], headers=headers)
        assert response.headers.get("access-control-allow-origin") == answer
    refused = ask(opened, "POST", "/predict", headers={"origin": site})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == site  # so that its page can say why


def test_answers_are_json_that_browsers_take_for_nothing_else(
    app: Starlette, pictures: list[bytes]
) -> None:
    files = [("x", ('<script>alert("x")</script>.png', pictures[0]))]
    response = ask(app, "POST", "/predict", files=files)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert json.loads(response.text)[0]["path"].startswith("<script>")

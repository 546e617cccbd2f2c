from __future__ import annotations

import base64
import json

import httpx
import pytest

from deepcnn.serving.limits import RefusedError
from deepcnn.serving.pictures import Sent, sent_in

CUT = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nhalf a pic'


def form(*files: tuple[str, bytes], fields: int = 0) -> tuple[str, bytes]:
    """Return the type and the body of a form as a client sends it."""
    parts = [(f"picture{i}", file) for i, file in enumerate(files)]
    words = {f"word{i}": "text" for i in range(fields)}
    request = httpx.Request("POST", "http://localhost/", data=words, files=parts)
    return request.headers["content-type"], request.read()


def in_json(*images: object) -> bytes:
    return json.dumps({"images": images}).encode()


@pytest.mark.parametrize(
    "kind", ["", "image/png", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"]
)
def test_a_body_of_any_other_type_is_the_picture(kind: str) -> None:
    assert sent_in(kind, b"\x89PNG...", 1) == ([Sent("0", b"\x89PNG...")], False)


def test_a_form_gives_its_files_by_name_and_in_order() -> None:
    contents = [b"first\r\n--", b"", b"\r\nthird" * 1000]
    kind, body = form(("cat.png", contents[0]), ("chien é.png", contents[1]), ("c", contents[2]))
    found, several = sent_in(kind, body, 3)
    assert several
    assert [each.content for each in found] == contents
    assert [each.name for each in found] == ["cat.png", "chien é.png", "c"]
    kind, body = form(("only.png", b"one"), fields=5)
    assert sent_in(kind, body, 1) == ([Sent("only.png", b"one")], True)


def test_json_gives_what_its_base64_says() -> None:
    contents = [b"first", bytes(range(256)), b""]
    texts = [base64.b64encode(content).decode() for content in contents]
    texts[1] = f"data:image/png;base64,{texts[1]}"
    found, several = sent_in("application/json; charset=utf-8", in_json(*texts), 3)
    assert several
    assert found == [Sent(str(i), content) for i, content in enumerate(contents)]
    (damaged,), _ = sent_in("application/json", in_json("not base64!"), 1)
    assert damaged.error is not None
    assert "base64" in damaged.error


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("image/png", b""),
        ("application/json", b"{"),
        ("application/json", b"[1, 2]"),
        ("application/json", b'{"images": "abc"}'),
        ("application/json", b'{"images": [1]}'),
        ("application/json", b'{"images": []}'),
        ("application/json", b"\xff\xfe\x00"),
        ("application/json", b'{"images": ' + b"9" * 100_000 + b"}"),
        ("application/json", b'{"images": ' + b"[" * 1_000_000),
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"no form at all"),
        ("multipart/form-data; boundary=" + "x" * 1000, b"--x--"),
        ("multipart/form-data; boundary=x", CUT),
    ],
    ids=repr,
)
def test_what_is_no_request_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        sent_in(kind, body, 8)
    assert refused.value.status == 400


@pytest.mark.parametrize("count", [3, 100, 5000])
def test_more_pictures_than_allowed_are_refused_before_they_are_parsed(count: int) -> None:
    bodies = [
        form(*[(f"{i}.png", b"x") for i in range(count)]),
        ("application/json", in_json(*["eA=="] * count)),
    ]
    for kind, body in bodies:
        with pytest.raises(RefusedError) as refused:
            sent_in(kind, body, 2)
        assert refused.value.status == 413
        assert "at most 2 pictures" in refused.value.reason


def test_fields_without_files_are_bounded_too() -> None:
    kind, body = form(("cat.png", b"x"), fields=1000)
    with pytest.raises(RefusedError) as refused:
        sent_in(kind, body, 2)
    assert refused.value.status == 413
    no_file = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--'
    with pytest.raises(RefusedError) as refused:
        sent_in("multipart/form-data; boundary=x", no_file, 2)
    assert refused.value.status == 400

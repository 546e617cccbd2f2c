"""The pictures in the body of a request: raw, several as a form sends them, or JSON.

Everything here is treated as hostile until it is read. The caller limits the body's size. This
module limits the number of values that a parser makes of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deepcnn.serving.limits import RefusedError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_OTHER_SIGNS = 16  # of JSON's structure, beyond what the pictures need
_OTHER_FIELDS = 16  # of a form, that hold no file


class Sent(NamedTuple):
    """A picture as it was sent: its name, else its number; and its bytes, or why there are none."""

    name: str
    content: bytes
    error: str | None = None


def sent_in(content_type: str, body: bytes, most: int) -> tuple[list[Sent], bool]:
    """Return the pictures of a body, at most `most`, and whether it may hold several.

    multipart/form-data: its files. application/json: `{"images": [base64, …]}`. With any other
    content type, the body is the picture. Raises RefusedError.
    """
    kind, options = parse_options_header(content_type)
    if not body:
        raise RefusedError(400, "expected a picture, found an empty body")
    if kind == b"multipart/form-data":
        found = _in_form(options.get(b"boundary", b""), body, most)
    elif kind == b"application/json":
        found = _in_json(body, most)
    else:
        return [Sent("0", body)], False
    if not found:
        raise RefusedError(400, "expected at least one picture, found none")
    return found, True


def _too_many(most: int) -> RefusedError:
    return RefusedError(413, f"expected at most {most:,} pictures in a request, found more")


def _in_json(body: bytes, most: int) -> list[Sent]:
    expected = RefusedError(400, 'expected JSON {"images": [base64, …]}')
    # So that no parser makes millions of values: neither sign occurs in base64.
    if body.count(b"[") + body.count(b"{") > _OTHER_SIGNS:
        raise expected
    if body.count(b'"') > 2 * most + _OTHER_SIGNS or body.count(b",") > 2 * most + _OTHER_SIGNS:
        raise _too_many(most)
    try:
        images = json.loads(body)["images"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise expected from error
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise expected
    if len(images) > most:
        raise _too_many(most)
    return [_from_base64(str(number), image) for number, image in enumerate(images)]


def _from_base64(name: str, text: str) -> Sent:
    if text.startswith("data:"):  # as browsers write what they have read
        text = text.partition(",")[2]
    try:
        return Sent(name, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return Sent(name, b"", "expected the bytes of a picture in base64, found something else")


def _in_form(boundary: bytes, body: bytes, most: int) -> list[Sent]:
    form = _Form(most)
    damaged = RefusedError(400, "expected multipart/form-data, found damaged data")
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise damaged from error
    if not boundary or not form.is_whole:
        raise damaged
    return form.files


class _Form:
    """Collects the files of a form while it is parsed."""

    def __init__(self, most: int) -> None:
        self.files: list[Sent] = []
        self.is_whole = False
        self._most = most
        self._parts = 0
        self._begin()

    def callbacks(self) -> MultipartCallbacks:
        """Return the functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._field = self._value = b""
        self._disposition = b""
        self._content = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _on_end(self) -> None:
        self.is_whole = True

    def _on_part_end(self) -> None:
        self._parts += 1
        if self._parts > self._most + _OTHER_FIELDS:
            raise _too_many(self._most)
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            return
        if len(self.files) == self._most:
            raise _too_many(self._most)
        name = options[b"filename"].decode(errors="backslashreplace")
        self.files.append(Sent(name or str(len(self.files)), bytes(self._content)))

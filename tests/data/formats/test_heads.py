"""Heads of pictures that are read without Pillow, which says the same of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepcnn.data.formats import decoding, heads
from tests.helpers.shards import damaged

PIXELS = np.random.default_rng(3).integers(0, 256, (9, 14, 3), np.uint8)


def encoded(form: str, mode: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


COMMON = {
    "PNG": encoded("PNG", "RGB"),
    "gray PNG": encoded("PNG", "L", dpi=(72, 72)),
    "JPEG": encoded("JPEG", "RGB"),
    "gray JPEG": encoded("JPEG", "L"),
    "JPEG with all": encoded("JPEG", "RGB", comment=b"x" * 9, restart_marker_blocks=1, dpi=(9, 9)),
    "JPEG of a table each": encoded("JPEG", "RGB", qtables=[[7] * 64] * 3, subsampling=0),
}
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter
OTHERS = {
    "palette": encoded("PNG", "P"),
    "transparent": encoded("PNG", "RGBA"),
    "transparent colour": encoded("PNG", "RGB", transparency=(0, 0, 0)),
    "turned PNG": encoded("PNG", "RGB", exif=EXIF),
    "turned": encoded("JPEG", "RGB", exif=EXIF),
    "progressive": encoded("JPEG", "RGB", progressive=True),
    "inks": encoded("JPEG", "CMYK"),
    "profile": encoded("JPEG", "RGB", icc_profile=b"x" * 99),
    "GIF": encoded("GIF", "P"),
}


def asked(content: bytes) -> heads.Header:
    """Return what Pillow says; raises BadPictureError."""
    with decoding.opened(content) as picture:
        return decoding.header_of(picture)


@pytest.mark.parametrize("kind", COMMON)
def test_common_heads_say_what_pillow_says(kind: str) -> None:
    head = COMMON[kind][: heads.HEAD]
    assert heads.common(head) == asked(COMMON[kind]) == (9, 14, kind.startswith("gray"), False)


@pytest.mark.parametrize("kind", OTHERS)
def test_uncommon_heads_are_left_to_pillow(kind: str) -> None:
    assert heads.common(OTHERS[kind][: heads.HEAD]) is None
    assert decoding.header(OTHERS[kind]) == asked(OTHERS[kind])


def test_a_turned_jpeg_has_the_size_that_it_has_upright() -> None:
    assert decoding.header(OTHERS["turned"])[:2] == (14, 9)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*COMMON.values()]).flatmap(lambda c: damaged(c[: heads.HEAD])))
def test_damaged_heads_say_what_pillow_says_or_nothing(head: bytes) -> None:
    assert said(decoding.header, head) == said(asked, head)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x43\x10"),  # a table of 16 bits is not whole
        (b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x03\x00"),
        (b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),  # 12 bits
        (b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x02\x08"),
        (b"\x00\x09\x00\x0e\x03", b"\x00\x09\x00\x0e\x01"),  # components
        (b"\x00\x09\x00\x0e\x03", b"\x00\x09\x00\x00\x03"),
        (b"\x00\x09\x00\x0e\x03", b"\xff\xff\xff\xff\x03"),
        (b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0", b"\xff\xe0\x00\x06JFIF"),
        (b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x0c\x03"),
        (b"\xff\xda", b"\xff\xd9"),
    ],
)
def test_an_odd_or_cut_jpeg_is_what_pillow_says(old: bytes, new: bytes) -> None:
    place = COMMON["JPEG"].index(old)
    content = COMMON["JPEG"].replace(old, new, 1)
    for end in (*range(place, place + len(new) + 1), len(content)):
        assert said(decoding.header, content[:end]) == said(asked, content[:end])


def said(ask: Callable[[bytes], heads.Header], content: bytes) -> heads.Header | str:
    try:
        return ask(content)
    except decoding.BadPictureError as error:
        return str(error)

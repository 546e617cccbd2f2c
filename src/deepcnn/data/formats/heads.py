"""Reads the first bytes of common pictures without Pillow, which takes many times as long.

Only pictures that Pillow is sure to open are read here, and with the same answer. For all others
there is no answer, and Pillow is asked. Formats: https://www.w3.org/TR/png-3/#5DataRep and
https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

HEAD = 1024  # bytes, in which the pixels of a common picture begin
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_PLAIN_CHUNKS = frozenset((b"IHDR", b"gAMA", b"sRGB", b"cHRM", b"pHYs", b"tEXt", b"tIME", b"bKGD"))
_JPEG = b"\xff\xd8\xff"
_APP0, _DQT, _SOF0, _SOS = 0xE0, 0xDB, 0xC0, 0xDA  # the second bytes of JPEG's markers
_PASSED_OVER = frozenset((0xC4, 0xDD, 0xFE))  # codes, restarts, comments
_TABLE = 65  # bytes of a quantization table of 8 bits and its number


class Header(NamedTuple):
    """What the header of a file says: its size when upright, whether it is gray, transparent."""

    height: int
    width: int
    gray: bool
    transparent: bool = False


def common(head: bytes) -> Header | None:
    """Return what the first bytes of a file say, if it is a common PNG or JPEG, else None.

    Height and width may be any number, also 0.
    """
    if head.startswith(_PNG):
        return _png(head)
    return _jpeg(head) if head.startswith(_JPEG) else None


def _png(head: bytes) -> Header | None:
    if len(head) < 33:
        return None
    width, height, depth, colour, *methods = struct.unpack_from(">IIBBBBB", head, 16)
    if depth != 8 or colour not in (0, 2) or any(methods):
        return None
    place = 8
    while place + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, place)
        end = place + 8 + length
        if kind == b"IDAT":
            return Header(height, width, colour == 0)
        if kind not in _PLAIN_CHUNKS or head[end : end + 4] != struct.pack(
            ">I", zlib.crc32(head[place + 4 : end])
        ):
            return None
        place = end + 4
    return None


def _jpeg(head: bytes) -> Header | None:
    """Return the size of a baseline JPEG without EXIF, gray or with three components, else None."""
    found: Header | None = None
    place = 2
    while place + 4 <= len(head):
        mark, kind, length = struct.unpack_from(">BBH", head, place)
        start, place = place + 4, place + 2 + length
        if mark != 0xFF or length < 2 or place > len(head):
            return None
        if kind == _SOS:
            return found
        if kind == _SOF0:
            if found or length < 8:
                return None
            bits, height, width, layers = struct.unpack_from(">BHHB", head, start)
            if bits != 8 or layers not in (1, 3) or length != 8 + 3 * layers:
                return None
            found = Header(height, width, layers == 1)
        elif kind == _DQT:
            tables = head[start:place]
            if len(tables) % _TABLE or any(number > 15 for number in tables[::_TABLE]):
                return None
        elif kind not in _PASSED_OVER and not (kind == _APP0 and length >= 16):
            return None
    return None

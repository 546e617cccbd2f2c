"""The protocol buffer `tf.train.Example`: a map of features by name; values are read in place.

Wire format: https://protobuf.dev/programming-guides/encoding. A feature is a list of strings of
bytes, of floats or of integers. The functions raise ValueError; the caller adds file and record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of a protocol buffer
OTHERS = 8  # names of features that an error lists

Sort = Literal["string of bytes", "integer"]
Places = dict[str, tuple[int, int]]


def varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """Return the unsigned integer at `position`, seven bits a byte, and where it ends."""
    value = shift = 0
    for i in range(position, min(stop, position + 10)):
        value |= (data[i] & 0x7F) << shift
        if data[i] < 0x80:
            if value >= 2**64:
                break
            return value, i + 1
        shift += 7
    raise ValueError(f"expected an integer at byte {position:,}, found one without an end")


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, start and stop of each field of the message in data[start:stop]."""
    position = start
    while position < stop:
        tag, begin = data[position], position + 1
        if tag >= 0x80:  # most are of one byte, for which a call would take as long as all else
            tag, begin = varint(data, position, stop)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:
            if begin < stop and data[begin] < 0x80:
                end = begin + 1 + data[begin]
                begin += 1
            else:
                length, begin = varint(data, begin, stop)
                end = begin + length
        elif kind == VARINT:
            _, end = varint(data, begin, stop)
        elif kind in (FIXED64, FIXED32):
            end = begin + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError(f"expected a field at byte {position:,}, found wire type {kind}")
        if not number or end > stop:
            raise ValueError(
                f"expected a field that ends by byte {stop:,}, found field {number} from byte "
                f"{position:,} to {end:,}"
            )
        yield number, kind, begin, end
        position = end


def _children(data: bytes, start: int, stop: int, number: int) -> list[tuple[int, int]]:
    """Return start and stop of the strings or messages in the fields of this number."""
    return [(b, e) for n, kind, b, e in _fields(data, start, stop) if (n, kind) == (number, BYTES)]


def _integers(data: bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """Return where the values of an Int64List stand, packed or not."""
    found = []
    for number, kind, begin, end in _fields(data, start, stop):
        position = begin if number == 1 and kind in (VARINT, BYTES) else end
        while position < end:
            _, after = varint(data, position, end)
            found.append((position, after))
            position = after
    return found


def find(data: bytes, sorts: Mapping[str, Sort]) -> tuple[Places, list[str]]:
    """Return the place of the single value of each of these features, and names of a few others.

    Of several features with the same name, the last one counts. Raises ValueError if one of them
    does not hold exactly one value of its type.
    """
    names = {name.encode(): name for name in sorts}
    found: Places = {}
    others: list[str] = []
    for features in _children(data, 0, len(data), 1):
        for entry in _children(data, *features, 1):
            start = stop = 0
            feature = 0, 0
            for number, kind, begin, end in _fields(data, *entry):
                if kind == BYTES and number == 1:
                    start, stop = begin, end
                elif kind == BYTES and number == 2:
                    feature = begin, end
            key = data[start : min(stop, start + 40)]
            name = names.get(key)
            if name is None:
                if len(others) < OTHERS:
                    others.append(repr(key.decode(errors="replace")))
                continue
            sort = sorts[name]
            if sort == "integer":
                lists = _children(data, *feature, 3)
                values = [value for each in lists for value in _integers(data, *each)]
            else:
                lists = _children(data, *feature, 1)
                values = [value for each in lists for value in _children(data, *each, 1)]
            if len(values) != 1:
                raise ValueError(f"expected one {sort} in {name!r}, found {len(values):,}")
            found[name] = values[0]
    return found, others


def label_at(data: bytes, place: tuple[int, int]) -> int:
    """Return the label at a place; raises ValueError for a negative one."""
    label, _ = varint(data, *place)
    if label >= 2**63:  # negative numbers are written as their two's complement
        raise ValueError(f"expected a label of at least 0, found {label - 2**64}")
    return label

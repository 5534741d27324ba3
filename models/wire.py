"""The fields of a protobuf message, read from its bytes: https://protobuf.dev/programming-guides/encoding/.

Stricter than protobuf: a group, which ONNX has none of, is refused.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
# A varint field, or consecutive ones of one number, as int64 values; everything of a length as its bytes.
Value = Int64 | memoryview

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES_MAX = 10
_VARINT_PATTERN = rb"[\x80-\xff]*+[\x00-\x7f]"


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of each field, those of a fixed width left out; ModelError where `data` is no message.

    Numbers that follow each other under one field number come together, for a tree model has millions of them.
    """
    at = 0
    while at < len(data):
        key, begin = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT or wire in _FIXED_WIDTHS:
            run = _run(bytes(data[at:begin]), wire).match(data, at)
            if run is None:
                raise ModelError(f"the model file is not valid ONNX: it ends within a field at byte {at}")
            if wire == _VARINT:
                yield number, varints(data[at : run.end()])[1::2]
            at = run.end()
        elif wire == _BYTES:
            size, begin = _varint(data, begin)
            if size > len(data) - begin:
                raise ModelError(f"the model file is not valid ONNX: it ends within a field at byte {begin}")
            at = begin + size
            yield number, data[begin:at]
        else:
            raise ModelError(f"the model file is not valid ONNX: wire type {wire} at byte {at}")


def varints(data: memoryview) -> Int64:
    """Consecutive varints as int64; ModelError for one that does not end or is too long."""
    octets: UInt8 = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80) + 1
    if not len(octets):
        return np.zeros(0, np.int64)
    if not len(ends) or ends[-1] != len(octets):
        raise ModelError("the model file is not valid ONNX: a number does not end")
    begins = np.concatenate([[0], ends[:-1]])
    widths = ends - begins
    if widths.max() > _VARINT_BYTES_MAX:
        raise ModelError("the model file is not valid ONNX: a number does not end")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(widths.max())):
        longer = np.flatnonzero(widths > place)
        values[longer] |= (octets[begins[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


@lru_cache(maxsize=64)
def _run(key: bytes, wire: int) -> re.Pattern[bytes]:
    """One field or more with the same key."""
    value = _VARINT_PATTERN if wire == _VARINT else b".{%d}" % _FIXED_WIDTHS[wire]
    return re.compile(b"(?:%s%s)++" % (re.escape(key), value), re.DOTALL)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """One varint, and where it ends."""
    value = 0
    for place in range(min(_VARINT_BYTES_MAX, len(data) - at)):
        octet = data[at + place]
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return value, at + place + 1
    raise ModelError("the model file is not valid ONNX: a number does not end")

"""Bytes of topics as the control plane's records; those of engine/telemetry.py are read there.

What is none raises msgspec.DecodeError or ValueError.
"""

import msgspec

from engine.control.records import Alert, CaseSaid, Label
from engine.labels import label_value, labelled_at_ms


class _WrittenLabel(msgspec.Struct, gc=False):
    """As people and their systems write them: engine/labels.py reads the same from files."""

    event_id: str | int
    label: bool | int | float | str
    labelled_at: int | float | str
    label_source: str = ""
    author: str = ""


class _Schema(msgspec.Struct, gc=False):
    schema: str = ""


read_alert = msgspec.json.Decoder(Alert).decode
read_said = msgspec.json.Decoder(CaseSaid).decode
_read_written = msgspec.json.Decoder(_WrittenLabel).decode
_read_schema = msgspec.json.Decoder(_Schema).decode


def read_label(value: bytes) -> Label:
    """A label, whether its time is written in milliseconds or in ISO 8601."""
    written = _read_written(value)
    return Label(
        event_id=str(written.event_id),
        label=1 if label_value(written.label) else 0,
        labelled_at=labelled_at_ms(written.labelled_at),
        label_source=written.label_source,
        author=written.author,
    )


def schema_of(value: bytes) -> str:
    """What a record says it is."""
    return _read_schema(value).schema

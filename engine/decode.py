"""From the bytes of one poll to the columns of one batch: the only place where input is validated.

A batch is parsed message by message (one typed decode each), then checked and converted column by column.
Numbers go through binary floating point where that surely gives the decimal result; only the other rows pay
for exact decimals. Whatever a record has wrong, it becomes a dead letter and the batch goes on.
"""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from engine.columns import FLOAT_MAX, ColumnReader, Refused, needed_fields, number_invalid
from engine.config import Config
from engine.errors import ConfigError, PoisonError
from engine.events import Batch, Bool, DeadLetter, Int64, Records
from engine.mapping import Mapping
from engine.policy.program import NO_FIELDS, Fields
from engine.rates import (
    EXACT,
    Converter,
    Number,
    RateTable,
    amount_invalid,
    amount_range,
    epoch_ms,
    exact_decimal,
)
from features.spec import FeatureSpec
from features.words import key_hashes

EVENT_ID_CHARS_MAX = 256
TIME_MS_MAX = epoch_ms("2100-12-31T23:59:59.999")

_IdText = Annotated[str, Meta(min_length=1, max_length=EVENT_ID_CHARS_MAX)]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MS_PER_UNIT = {"ms": 1, "s": 1_000}


class Decoder:
    """Turns records into a batch and dead letters, by the mapping of one configuration."""

    def __init__(self, config: Config, spec: FeatureSpec, rates: RateTable | None, ruled: Fields = NO_FIELDS) -> None:
        """Raises ConfigError where mapping, entities, rates and what rules read cannot work together."""
        mapping = config.mapping
        self._mapping = mapping
        self._horizon_past_ms = min(mapping.horizon_past_ms, TIME_MS_MAX)
        self._horizon_future_ms = min(mapping.horizon_future_ms, TIME_MS_MAX)
        needed = needed_fields(config, spec)
        texts, numbers = (
            {config.source(name): key for name, key in named.items()} for named in (needed.texts, needed.numbers)
        )
        seen = {config.source(name): "policy" for name in sorted(ruled.texts | ruled.numbers)}
        event_type, attributes = _event_type(mapping, texts, numbers, seen)
        self.event_type = event_type
        self._read = msgspec.json.Decoder(event_type).decode
        self._blank = event_type(event_id="-", time=0, amount=0)
        self._number_fields = list(numbers)
        currency = [] if mapping.currency.field is None else [mapping.currency.field]
        self._text_fields = list(dict.fromkeys((mapping.event_id, *currency, *texts)))
        self._converter = Converter(mapping, config.rates.base_currency, rates)
        self._columns = ColumnReader(config, spec, needed, ruled, attributes, 10**self._converter.base_digits)

    def decode(self, records: Records) -> tuple[Batch, list[DeadLetter]]:
        """The events among the records and a dead letter for every other one, both in the records' order.

        Nothing that a record holds raises.
        """
        refused: Refused = {}
        events = self._parse(records.values, refused)
        times_ms = self._times_ms([event.time for event in events], refused)
        self._check_horizons(times_ms, records.record_times_ms, refused)
        amounts_minor = self._amounts_minor(events, times_ms, refused)
        event_ids = _id_texts([event.event_id for event in events], self._mapping.event_id, refused)
        columns = self._columns.read(events, amounts_minor, refused)
        batch = Batch(
            topic=records.topic,
            event_ids=event_ids,
            event_id_hashes=key_hashes(event_ids, 0),
            times_ms=times_ms,
            amounts_minor=amounts_minor,
            currency=self._converter.base_currency,
            keys=columns.keys,
            words=columns.words,
            flags=columns.flags,
            partition_keys=columns.keys[self._mapping.partition_key],
            partitions=records.partitions,
            offsets=records.offsets,
            record_times_ms=records.record_times_ms,
            numbers=columns.numbers,
            categories=columns.categories,
            values=records.values,
        )
        if not refused:
            return batch, []
        kept = np.array([row for row in range(len(records)) if row not in refused], np.intp)
        return batch.take(kept), _dead_letters(records, refused)

    def _parse(self, values: list[bytes | None], refused: Refused) -> list[Any]:
        """One struct per value: a blank one, and the reason in `refused`, where the value is unfit.

        Each value is parsed alone: in one joined document the halves of two crafted ones could pair up.
        """
        read, event_bytes_max = self._read, self._mapping.event_bytes_max
        events = []
        for row, value in enumerate(values):
            try:
                if value and len(value) <= event_bytes_max:
                    events.append(read(value))
                    continue
                refused[row] = _unfit(value, event_bytes_max)
            except UNREADABLE as error:
                refused[row] = self._explain(value or b"", error)
            events.append(self._blank)
        return events

    def _explain(self, value: bytes, error: Exception) -> PoisonError:
        """Why the typed decoder refused a value, found the slow way: by looking at it as untyped JSON."""
        document = _untyped(value)
        if isinstance(document, PoisonError):
            return document
        if not isinstance(document, dict):
            return PoisonError("wrong_type", "the value must be a JSON object")
        mapping = self._mapping
        event_id, time, amount = mapping.event_id, mapping.event_time.field, mapping.amount.field
        for field in (event_id, time, amount):
            if document.get(field) is None:
                return PoisonError("missing_field", f"{field}: is missing or null")
        for field in self._text_fields:
            if type(document.get(field)) not in (str, int, type(None)):
                return PoisonError("wrong_type", f"{field}: must be text or a whole number")
        for field in self._number_fields:
            if not _is_finite(document.get(field)):
                return number_invalid(field)
        if not 1 <= len(str(document[event_id])) <= EVENT_ID_CHARS_MAX:
            return _id_invalid(event_id)
        if not _is_number(document[time]):
            return _time_invalid(time)
        if type(document[amount]) not in (int, float, str):
            return PoisonError("wrong_type", f"{amount}: must be a number or a decimal string")
        if not _is_number(document[amount]):
            return amount_range(amount) if type(document[amount]) is int else amount_invalid(amount)
        return PoisonError("malformed_json", f"not strict JSON: {error}")

    def _times_ms(self, values: list[Number], refused: Refused) -> Int64:
        """Event times in ms since 1970."""
        field, unit = self._mapping.event_time.field, self._mapping.event_time.unit
        if unit == "iso8601":
            times_ms, sure = np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_)
        else:
            times_ms, sure = rounded(values, _MS_PER_UNIT[unit])
            sure &= (times_ms >= 0) & (times_ms <= TIME_MS_MAX)

        def exact(row: int) -> int:
            return _exact_time_ms(values[row], field, unit)

        _settle(times_ms, sure, exact, refused)
        return times_ms

    def _check_horizons(self, times_ms: Int64, record_times_ms: Int64, refused: Refused) -> None:
        """Refuses what is too far from the record timestamp (never from a clock); -1 there means unknown."""
        mapping = self._mapping
        known = record_times_ms >= 0
        past = known & (times_ms < record_times_ms - self._horizon_past_ms)
        future = known & (times_ms > record_times_ms + self._horizon_future_ms)
        for row in np.flatnonzero(past | future).tolist():
            apart_ms = abs(int(times_ms[row]) - int(record_times_ms[row]))
            detail = (
                f"{mapping.event_time.field}: {apart_ms} ms from the record's timestamp; "
                f"horizon_past is {mapping.horizon_past}, horizon_future is {mapping.horizon_future}"
            )
            reason = "event_time_past" if past[row] else "event_time_future"
            refused.setdefault(row, PoisonError(reason, detail))

    def _amounts_minor(self, events: list[Any], times_ms: Int64, refused: Refused) -> Int64:
        """Amounts in minor units of the base currency, converted and then rounded half to even, once."""
        values = [event.amount for event in events]
        if self._mapping.currency.field is None:
            currencies = [None] * len(events)
        else:
            currencies = [event.currency for event in events]
        converter = self._converter
        if self._mapping.amount.unit == "minor":
            amounts_minor, sure = rounded(values, 1)
            sure &= np.array([type(value) is int for value in values], np.bool_)
        else:
            amounts_minor, sure = rounded(values, 10**converter.base_digits)
        if not converter.base_spellings.issuperset(currencies):
            sure &= np.array([currency in converter.base_spellings for currency in currencies], np.bool_)

        def exact(row: int) -> int:
            return converter.minor(values[row], currencies[row], int(times_ms[row]))

        _settle(amounts_minor, sure, exact, refused)
        return amounts_minor


def rounded(values: list[Number], scale: int) -> tuple[Int64, Bool]:
    """`value * scale` rounded half to even: int64[n]; and whether that surely is the decimal result: bool[n].

    A double is its shortest decimal text with a relative error of at most 2^-53; the product adds as much.
    Below 2^42 that is less than 2^-10 in all, so only what comes so near to a half can round the other way.
    Text is never sure. What is not sure is 0.
    """
    numbers = np.array([math.nan if type(value) is str else value for value in values], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        products = numbers * scale
        nearest = np.rint(products)
        sure = (np.abs(products) < 2.0**42) & (np.abs(products - nearest) < 0.5 - 2.0**-10)
    return np.where(sure, nearest, 0.0).astype(np.int64), sure


def _event_type(
    mapping: Mapping, texts: dict[str, str], numbers: dict[str, str], seen: dict[str, str]
) -> tuple[type[Any], dict[str, str]]:
    """The struct of only the needed fields, and the attribute that holds each foreign field.

    `texts` and `numbers`: by foreign field, which key of the configuration asks for it; `seen`: those that may hold
    anything, and stay as they came. Raises ConfigError where one field would have to be two things.
    """
    core = [mapping.event_id, mapping.event_time.field, mapping.amount.field]
    fields: list[Any] = [
        ("event_id", _IdText | int),
        ("time", _Int64 | float | str),
        ("amount", _Int64 | float | str),
    ]
    if mapping.currency.field is not None:
        core.append(mapping.currency.field)
        fields.append(("currency", str | int | None, None))
    attributes = {source: field[0] for source, field in zip(core, fields, strict=True)}
    if len(attributes) < len(core):
        raise ConfigError(f"mapping: event_id, event_time, amount and currency must differ, not {', '.join(core)}")
    for source, key in (*texts.items(), *numbers.items()):
        if attributes.get(source) in ("time", "amount"):
            raise ConfigError(f"{key}: {source!r} is the event time or the amount: not a key, nor any other field")
        if source in attributes and source in numbers:
            raise ConfigError(f"{key}: {source!r} is read as text already; it cannot be a number as well")
        if source not in attributes:
            attributes[source] = f"field_{len(fields)}"
            fields.append((attributes[source], float | str | None if source in numbers else str | int | None, None))
    for source, key in seen.items():
        if attributes.get(source) in ("time", "amount"):
            raise ConfigError(f"{key}: {source!r} is the event time or the amount, and no other field")
        if source not in attributes:
            attributes[source] = f"field_{len(fields)}"
            fields.append((attributes[source], msgspec.Raw, msgspec.Raw(b"null")))
    rename = {attribute: source for source, attribute in attributes.items()}
    return msgspec.defstruct("Event", fields, rename=rename, gc=False), attributes


def _unfit(value: bytes | None, event_bytes_max: int) -> PoisonError:
    if not value:
        return PoisonError("empty_value", "the record has no value")
    return PoisonError("oversize", f"{len(value)} bytes; event_bytes_max is {event_bytes_max}")


def _untyped(value: bytes) -> Any:
    """The JSON value, or the PoisonError that says why there is none."""
    try:
        return json.loads(value.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return PoisonError("malformed_json", f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return PoisonError("malformed_json", f"not JSON at character {error.pos}: {error.msg}")
    except PoisonError as error:
        return error.alone()
    except (ValueError, RecursionError):
        return PoisonError("malformed_json", "not readable as JSON: nested too deep, or a number too long")


def _refuse_constant(name: str) -> None:
    raise PoisonError("malformed_json", f"not JSON: {name} stands for a number")


def _is_number(value: Any) -> bool:
    """Whether the typed decoder takes it for a time or an amount: text, finite, an integer of 64 bits."""
    if type(value) is int:
        return -(2**63) <= value < 2**63
    return type(value) is str or (type(value) is float and math.isfinite(value))


def _is_finite(value: Any) -> bool:
    """Whether the typed decoder takes it for a number field: absent, text, or a number that a float64 can hold."""
    if type(value) is int or type(value) is float:
        return -FLOAT_MAX <= value <= FLOAT_MAX
    return value is None or type(value) is str


def _settle(column: Int64, sure: Bool, exact: Callable[[int], int], refused: Refused) -> None:
    """Puts the exact value into each row that is not sure; where there is none, `refused` gets the reason."""
    for row in np.flatnonzero(~sure).tolist():
        try:
            column[row] = exact(row)
        except PoisonError as error:
            refused.setdefault(row, error.alone())


def _exact_time_ms(value: Number, field: str, unit: str) -> int:
    """One event time in ms since 1970; raises PoisonError."""
    time_ms: int | Decimal | None
    if unit == "iso8601":
        time_ms = _iso8601_ms(value)
    else:
        number = exact_decimal(value)
        scale = Decimal(_MS_PER_UNIT[unit])
        time_ms = None if number is None else EXACT.to_integral_value(EXACT.multiply(number, scale))
    if time_ms is None or not 0 <= time_ms <= TIME_MS_MAX:
        raise _time_invalid(field)
    return int(time_ms)


def _iso8601_ms(value: Number) -> int | None:
    try:
        return epoch_ms(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _id_texts(values: list[str | int], field: str, refused: Refused) -> list[str]:
    """Event ids as text. Long text was refused when it was parsed, a long integer is refused here."""
    texts = list(map(str, values))
    if max(map(len, texts), default=0) > EVENT_ID_CHARS_MAX:
        for row, text in enumerate(texts):
            if len(text) > EVENT_ID_CHARS_MAX:
                refused.setdefault(row, _id_invalid(field))
    return texts


def _id_invalid(field: str) -> PoisonError:
    return PoisonError("event_id_invalid", f"{field}: must have 1 to {EVENT_ID_CHARS_MAX} characters")


def _time_invalid(field: str) -> PoisonError:
    return PoisonError("event_time_invalid", f"{field}: must be a time from 1970 to 2100, in the mapping's unit")


def _dead_letters(records: Records, refused: Refused) -> list[DeadLetter]:
    return [
        DeadLetter(
            value=records.values[row],
            reason=refused[row].reason,
            detail=str(refused[row]),
            topic=records.topic,
            partition=int(records.partitions[row]),
            offset=int(records.offsets[row]),
            record_time_ms=int(records.record_times_ms[row]),
            key=records.keys[row] if records.keys else None,
        )
        for row in sorted(refused)
    ]

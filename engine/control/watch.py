"""Telemetry in its table, looked at once a stretch of time is over.

buckets     | 09:00:00 | 09:00:10 | 09:00:20 |
telemetry                            ^ the first record beyond: look at what ends at 09:00:20

What a look finds depends on the buckets up to it, and each stretch is looked at once: alarms are the same however often
the telemetry is read.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import NamedTuple

from engine.control.alarms import Alarms, after_look, decode_alarms, encode_alarms, usual_scores
from engine.control.buckets import (
    Bucket,
    bucket_start_ms,
    decode_bucket,
    encode_bucket,
    summed,
    with_telemetry,
)
from engine.control.drift import Expected, Reading, freshness, readings
from engine.control.records import RetrainRequest
from engine.control.retraining import asked_for
from engine.control.settings import Control
from engine.telemetry import Histogram, Telemetry
from features.durations import duration_ms


class Looked(NamedTuple):
    """What a look changes: kept by `Watch.keep` once the request, if there is one, is written for good."""

    application_id: str
    alarms: Alarms
    request: RetrainRequest | None


class Watch:
    """Drift of every application and model that sends telemetry."""

    def __init__(
        self,
        settings: Control,
        buckets: MutableMapping[bytes, bytes],
        alarms: MutableMapping[bytes, bytes],
        expected: Callable[[str], Expected | None],
        of_quality: Callable[[str, int], Iterable[Reading]] = lambda model, now_ms: (),
    ) -> None:
        """`expected`: what the manifest of a model says, None if there is none; `of_quality`: readings of quality."""
        self._settings = settings
        self._bucket_table = buckets
        self._alarm_table = alarms
        self._expected = expected
        self._of_quality = of_quality
        self._longest_ms = max(settings.drift.windows_ms.values())
        # application -> start -> model -> bucket
        self.buckets: dict[str, dict[int, dict[str, Bucket]]] = {}
        self.alarms: dict[str, Alarms] = {}
        self.readings: dict[str, list[Reading]] = {}
        # Keys of buckets that the configuration once had otherwise: they add up to nothing any more.
        self._of_other_width: list[bytes] = []

    def rebuild(self, buckets: Iterable[tuple[bytes, bytes]], alarms: Iterable[tuple[bytes, bytes]]) -> None:
        """As the tables have it."""
        self.buckets, self.readings, self._of_other_width = {}, {}, []
        for key, value in buckets:
            bucket = decode_bucket(value)
            if bucket.wide_ms == self._settings.drift.bucket_ms:
                self._remember(bucket)
            else:
                self._of_other_width.append(key)
        self.alarms = {key.decode(): decode_alarms(value) for key, value in alarms}
        for application_id, known in self.alarms.items():
            if known.looked_at_ms - self._settings.drift.bucket_ms in self.buckets.get(application_id, {}):
                self.readings[application_id] = list(self._read(application_id, known.looked_at_ms, known)[1])

    def take(self, telemetry: Telemetry) -> None:
        """Adds a record to its bucket; one that is older than every window is too late."""
        settings, application_id = self._settings.drift, telemetry.application_id
        start_ms = bucket_start_ms(telemetry, settings.bucket_ms)
        of_application = self.buckets.get(application_id, {})
        if start_ms <= max(of_application, default=0) - self._longest_ms - settings.bucket_ms:
            return
        before = of_application.get(start_ms, {}).get(telemetry.versions.model)
        after = with_telemetry(before, telemetry, settings.bucket_ms)
        if after is not before:
            self._bucket_table[after.key] = encode_bucket(after)
            self._remember(after)

    def looks(self, telemetry: Telemetry) -> Iterator[Looked]:
        """A look at each stretch that is over with this record; each is to be kept before the next one is asked for."""
        settings, application_id = self._settings, telemetry.application_id
        start_ms = bucket_start_ms(telemetry, settings.drift.bucket_ms)
        for at in sorted(self.buckets.get(application_id, {})):
            end_ms = at + settings.drift.bucket_ms
            alarms = decode_alarms(self._alarm_table.get(application_id.encode()))
            if at >= start_ms or end_ms <= alarms.looked_at_ms:
                continue
            model, found = self._read(application_id, end_ms, alarms)
            self.readings[application_id] = [*found, *self._of_quality(model, end_ms)]
            wanted = (reading for reading in self.readings[application_id] if not self._ignored(reading))
            scores, drift = self.buckets[application_id][at][model].score, settings.drift
            alarms = after_look(alarms, model, wanted, end_ms, drift.raise_after, drift.clear_after, scores)
            yield Looked(application_id, *asked_for(alarms, application_id, settings.retraining))

    def keep(self, looked: Looked) -> None:
        """From now on this stretch has been looked at; what lies before every window is dropped."""
        self._alarm_table[looked.application_id.encode()] = encode_alarms(looked.alarms)
        self.alarms[looked.application_id] = looked.alarms
        of_application = self.buckets[looked.application_id]
        for start_ms in [at for at in of_application if at < looked.alarms.looked_at_ms - self._longest_ms]:
            for bucket in of_application.pop(start_ms).values():
                del self._bucket_table[bucket.key]
        self._drop_others()

    def _drop_others(self) -> None:
        """Those of another width, unless they were written anew since."""
        for key in self._of_other_width:
            value = self._bucket_table.get(key)
            if value is not None and decode_bucket(value).wide_ms != self._settings.drift.bucket_ms:
                del self._bucket_table[key]
        self._of_other_width = []

    def last_ms(self) -> dict[str, int]:
        """When each application was last heard of, by its worker's clock."""
        return {
            application_id: max(bucket.last_ms for bucket in starts[max(starts)].values())
            for application_id, starts in self.buckets.items()
            if starts
        }

    def _remember(self, bucket: Bucket) -> None:
        of_application = self.buckets.setdefault(bucket.application_id, {})
        of_application.setdefault(bucket.start_ms, {})[bucket.model] = bucket

    def _read(self, application_id: str, end_ms: int, alarms: Alarms) -> tuple[str, Iterator[Reading]]:
        """The model that decided most of the stretch that ends then, and what its windows up to it say."""
        of_application = self.buckets[application_id]
        last = of_application[end_ms - self._settings.drift.bucket_ms]
        model = max(last.values(), key=lambda bucket: (bucket.events, bucket.model)).model
        return model, self._windows(of_application, model, end_ms, usual_scores(alarms, model))

    def _windows(
        self, of_application: dict[int, dict[str, Bucket]], model: str, end_ms: int, baseline: Histogram | None
    ) -> Iterator[Reading]:
        drift, expected = self._settings.drift, self._expected(model)
        past = sorted(at for at, models in of_application.items() if at < end_ms and model in models)
        buckets = {at: of_application[at][model] for at in past}
        windows = {
            name: summed([bucket for at, bucket in buckets.items() if at >= end_ms - wide_ms])
            for name, wide_ms in drift.windows_ms.items()
        }
        longest = windows[max(drift.windows, key=duration_ms)]
        for name, window in windows.items():
            yield from readings(name, window, longest, expected, drift, baseline)
        age = freshness(summed([buckets[past[-1]]]), drift)
        if age is not None:
            yield age

    def _ignored(self, reading: Reading) -> bool:
        return self._settings.drift.ignores(reading.signal.partition(":")[2] or reading.signal)

"""Facts in their table, and the figures that follow from them.

The table alone is kept: figures are made of it again after each recovery, so that no crash can part the two.
"""

from collections.abc import Iterable, Iterator, MutableMapping

from engine.control.drift import Reading
from engine.control.facts import NOTHING, Fact, decode_fact, encode_fact, is_over, with_label, with_sample
from engine.control.quality import DAY_MS, Estimate, Figures, Quality
from engine.control.records import Label
from engine.control.settings import Quality as Settings
from engine.telemetry import Sample
from features.durations import duration_ms

# Fewer labels say nothing about quality that has been lost.
LABELLED_MIN = 30


class Joined:
    """Labels and sampled decisions, joined."""

    def __init__(self, settings: Settings, table: MutableMapping[bytes, bytes]) -> None:
        self._settings = settings
        self._table = table
        self.quality = Quality()

    def rebuild(self, facts: Iterable[tuple[bytes, bytes]]) -> None:
        """The figures of everything that the table has."""
        self.quality = Quality()
        for event, value in facts:
            self.quality.change(event, NOTHING, decode_fact(value))

    def take_sample(self, sample: Sample) -> None:
        """A decision that was sampled."""
        event, before = self._of(sample.event_id)
        self._put(event, before, with_sample(before, sample))

    def take_label(self, label: Label) -> None:
        """Something became known."""
        event, before = self._of(label.event_id)
        self._put(event, before, with_label(before, label))

    def forget(self, event: bytes, now_ms: int) -> None:
        """Drops a fact that nobody waits for any longer; one that is, stays."""
        before = decode_fact(self._table.get(event))
        if before != NOTHING and self._is_over(before, now_ms):
            self.quality.change(event, before, NOTHING)
            del self._table[event]

    def over(self, facts: Iterable[tuple[bytes, bytes]], now_ms: int) -> Iterator[bytes]:
        """The events of those that nobody waits for any longer."""
        return (event for event, value in facts if self._is_over(decode_fact(value), now_ms))

    def figures(self, now_ms: int, **wanted: str) -> Figures:
        """Over the window that ends now, of one model, channel or country if wanted."""
        first_day = self.first_day(now_ms)
        return self.quality.figures(
            lambda group: group.day >= first_day and all(getattr(group, key) == value for key, value in wanted.items())
        )

    def card_precision(self, now_ms: int) -> float | None:
        """Over the same window, of as many cards a day as the configuration says."""
        return self.quality.card_precision(self._settings.cards, self.first_day(now_ms))

    def readings(self, model: str, now_ms: int) -> Iterator[Reading]:
        """Whether quality is lost, as far as anything is asked of it: over where the whole interval lies below."""
        limits = {"precision": self._settings.precision_min, "recall": self._settings.recall_min}
        if not any(limits.values()):
            return
        figures = self.figures(now_ms, model=model)
        if figures.labelled < LABELLED_MIN:
            return
        for signal, limit in limits.items():
            estimate: Estimate = getattr(figures, signal)
            if limit and estimate.value is not None and estimate.high is not None:
                yield Reading(signal, "", estimate.value, limit, estimate.high < limit, figures.labelled)

    def first_day(self, now_ms: int) -> int:
        """Of the window that ends now, in days since 1970."""
        return (now_ms - duration_ms(self._settings.window)) // DAY_MS

    def _of(self, event_id: str) -> tuple[bytes, Fact]:
        event = event_id.encode()
        return event, decode_fact(self._table.get(event))

    def _put(self, event: bytes, before: Fact, after: Fact) -> None:
        if after != before:
            self._table[event] = encode_fact(after)
            self.quality.change(event, before, after)

    def _is_over(self, fact: Fact, now_ms: int) -> bool:
        return is_over(fact, now_ms, duration_ms(self._settings.keep), duration_ms(self._settings.label_wait))

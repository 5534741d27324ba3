"""What the engine counts. The pipeline adds to plain numbers and arrays; a scrape turns them into Prometheus families.

Nothing here takes a lock: each number is written by one thread, the pipeline's or a challenger's, and a scrape that
reads between two additions is off by one micro-batch at most.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from engine.decide import Decisions
from engine.events import Batch, DeadLetter
from engine.policy.precedence import DECISIONS
from engine.policy.settings import Policy
from engine.state.local import FeatureMatrix, LocalState
from features.spec import FeatureSpec
from models.calibration import RISK_SCORE_MAX

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
STAGE_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
BATCH_BOUNDS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
SCORE_BOUNDS = tuple(range(50, RISK_SCORE_MAX + 1, 50))
ROLES = ("starting", "standby", "replaying", "active", "stopping")


class Histogram:
    """Counts per bucket; `bounds` are upper bounds, inclusive, and a last bucket takes the rest."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Adds one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def observe_all(self, values: NDArray[Any]) -> None:
        """Adds every value of an array."""
        places = np.searchsorted(self._bounds, values, side="left")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self.total += float(values.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts as Prometheus wants them."""
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).astype(float).tolist(), strict=True))

    @property
    def count(self) -> int:
        """How many values were added."""
        return int(self._counts.sum())


class Challenger:
    """What became of the events that one challenger was to score; `facts` once it is loaded."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.facts: dict[str, str] | None = None
        self.scored = 0
        self.failed = 0
        self.dropped = 0
        self.undelivered = 0
        self.failures = 0


class StageClock:
    """Times the stages of one micro-batch one after another."""

    def __init__(self, seconds: dict[str, Histogram]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Begins the next stage now; what went on since the last one is in none."""
        self._last = time.perf_counter()

    def done(self, stage: str) -> None:
        """Ends a stage; the next one begins."""
        now = time.perf_counter()
        if stage not in self._seconds:
            self._seconds[stage] = Histogram(STAGE_BOUNDS_S)
        self._seconds[stage].observe(now - self._last)
        self._last = now


class Metrics:
    """Every number of one worker."""

    def __init__(self, spec: FeatureSpec, model: dict[str, str], policy: Policy) -> None:
        self._entities = [entity.name for entity in spec.entities]
        self._windows = np.array([len(entity.windows) for entity in spec.entities], np.int64)
        self.model = model
        self.model_loads_failed = 0
        self.model_swaps = 0
        self.policy_swaps = 0
        self.policy_loads_failed = 0
        self.rule_hits: Counter[str] = Counter()
        self.note_policy(policy)
        # Facts of the model that decides for a share of the entities, and that share.
        self.canary: tuple[dict[str, str], float] | None = None
        self.canary_failures = 0
        self.challengers: list[Challenger] = []
        self.outcomes: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        # By the model that made them, as name/version.
        self.decisions = {f"{model['name']}/{model['version']}": np.zeros(len(DECISIONS), np.int64)}
        self.inexact = np.zeros(len(spec.entities), np.int64)
        self.late_events = 0
        self.rules_only = 0
        self.commits = 0
        self.aborts = 0
        self.doubts = 0
        self.replayed_events = 0
        self.replay_remaining = 0
        self.samples = 0
        self.telemetry_sent = 0
        self.telemetry_lost = 0
        self.role = "starting"
        self.broker_up = True
        self.lag_events: dict[int, int] = {}
        self.lag_seconds = 0.0
        self.state_entities: dict[str, int] = {}
        self.cache_hits = 0
        self.cache_misses = 0
        self.dirty_bytes = 0
        self.flushes = 0
        self.checkpoint_age_s: float | None = None
        self.event_to_decision = Histogram(LATENCY_BOUNDS_S)
        self.batch_events = Histogram(BATCH_BOUNDS)
        self.inference_rows = Histogram(BATCH_BOUNDS)
        self.score = Histogram(SCORE_BOUNDS)
        self.stage_seconds: dict[str, Histogram] = {}

    def stage_clock(self) -> StageClock:
        """A clock that starts now."""
        return StageClock(self.stage_seconds)

    def count_batch(self, events: int, accepted: int, duplicates: int, dead_letters: list[DeadLetter]) -> None:
        """What became of the records of one micro-batch."""
        self.batch_events.observe(events)
        self.outcomes["decided"] += accepted
        self.outcomes["duplicate"] += duplicates
        self.outcomes["dead_letter"] += len(dead_letters)
        self.dead_letters.update(letter.reason for letter in dead_letters)

    def count_decisions(self, batch: Batch, matrix: FeatureMatrix, decisions: Decisions, model: str) -> None:
        """What was decided by `model`, and on what kind of features."""
        self.inference_rows.observe(len(batch))
        unscored = np.isnan(decisions.probabilities)
        self.rules_only += int(np.count_nonzero(unscored))
        self.score.observe_all(decisions.risk_scores[~unscored])
        counts = np.bincount(decisions.codes, minlength=len(DECISIONS))
        self.decisions[model] = self.decisions.get(model, 0) + counts
        self.rule_hits.update(decisions.rule_counts())
        self.late_events += int(batch.late.sum())
        self.inexact += self._windows * len(batch) - matrix.exact_windows.sum(axis=0, dtype=np.int64)

    def note_policy(self, policy: Policy) -> None:
        """Which policy decides from now on; its rules count from 0, as others went on counting."""
        self.policy = policy.facts
        self.rule_hits.update(dict.fromkeys((rule.id for rule in policy.rules), 0))

    def note_state(self, state: LocalState) -> None:
        """How large the state is, and how often it was found in memory."""
        self.state_entities = state.entities()
        self.dirty_bytes = state.dirty_bytes()
        self.cache_hits, self.cache_misses = state.cache_hits, state.cache_misses

    def note_broker(self, up: bool) -> None:
        """Whether a broker is there."""
        self.broker_up = up

    @property
    def events(self) -> int:
        """Records that were taken from the input."""
        return self.outcomes.total()


class MetricsCollector(Collector):
    """Turns `Metrics` into families at a scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Every family of docs/metrics.md."""
        yield from self._counts()
        yield from self._gauges()
        yield from self._histograms()

    def _counts(self) -> Iterator[Metric]:
        m = self._metrics
        yield _counter("events", "Input records by what became of them.", "outcome", m.outcomes)
        decisions = CounterMetricFamily(
            "tidegate_decisions", "Decisions by kind and model version.", labels=["decision", "model_version"]
        )
        for version, counts in m.decisions.copy().items():
            for kind, count in zip(DECISIONS, counts.tolist(), strict=True):
                decisions.add_metric([kind, version], count)
        yield decisions
        yield _counter("rule_hits", "Events for which a rule held, or a list had them.", "rule", m.rule_hits)
        yield _counter("dead_letters", "Records that could not become events, by reason.", "reason", m.dead_letters)
        inexact = dict(zip(m._entities, m.inexact.tolist(), strict=True))
        yield _counter("inexact_features", "Windows whose values were not exact, by entity.", "entity", inexact)
        plain = {
            "late_events": ("Events older than their partition's newest by more than late_after.", m.late_events),
            "rules_only_events": ("Events that were decided without a model.", m.rules_only),
            "duplicate_events": ("Events whose id was accepted before.", m.outcomes["duplicate"]),
            "transaction_commits": ("Commits of outputs and input offsets.", m.commits),
            "transaction_aborts": ("Times that the worker went back to what is committed.", m.aborts),
            "transaction_doubts": ("Commits of which it had to be found out how they ended.", m.doubts),
            "state_cache_hits": ("Entity look-ups found in memory.", m.cache_hits),
            "state_cache_misses": ("Entity look-ups not found in memory.", m.cache_misses),
            "state_flushes": ("Flushes of state to disk.", m.flushes),
            "model_swaps": ("Times that another model took over.", m.model_swaps),
            "model_load_failures": ("Models that were to decide and could not be loaded.", m.model_loads_failed),
            "policy_swaps": ("Times that another policy took over.", m.policy_swaps),
            "policy_load_failures": ("Policy files that could not be used.", m.policy_loads_failed),
            "canary_failures": ("Canaries that failed to score and were given up.", m.canary_failures),
            "decision_samples": ("Decisions that were put on the topic of samples too.", m.samples),
            "replayed_events": ("Events taken into the state without deciding.", m.replayed_events),
        }
        for name, (text, value) in plain.items():
            yield CounterMetricFamily(f"tidegate_{name}", text, value=value)
        records = {"sent": m.telemetry_sent, "lost": m.telemetry_lost}
        yield _counter("telemetry_records", "Records of telemetry by what became of them.", "outcome", records)
        yield from self._challengers()

    def _challengers(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            "tidegate_shadow_events", "Events by what a challenger did with them.", labels=["model", "outcome"]
        )
        failures = CounterMetricFamily("tidegate_shadow_failures", "Times that a challenger failed.", labels=["model"])
        up = GaugeMetricFamily("tidegate_shadow_up", "Whether a challenger is loaded and scores.", labels=["model"])
        for challenger in self._metrics.challengers:
            for outcome in ("scored", "failed", "dropped", "undelivered"):
                events.add_metric([challenger.label, outcome], getattr(challenger, outcome))
            failures.add_metric([challenger.label], challenger.failures)
            up.add_metric([challenger.label], challenger.facts is not None)
        yield from (events, failures, up)

    def _gauges(self) -> Iterator[Metric]:
        m = self._metrics
        yield _gauge("worker_role", "1 for the role that the worker has.", "role", {r: int(r == m.role) for r in ROLES})
        yield GaugeMetricFamily("tidegate_broker_up", "Whether a Kafka broker answers.", int(m.broker_up))
        lag = {str(partition): events for partition, events in m.lag_events.items()}
        yield _gauge("consumer_lag_events", "Input records not yet read.", "partition", lag)
        yield _gauge("state_entities", "Entities that the state has seen.", "entity", m.state_entities)
        yield GaugeMetricFamily("tidegate_consumer_lag_seconds", "Age of the newest read record.", m.lag_seconds)
        yield GaugeMetricFamily("tidegate_state_dirty_bytes", "Entity state not yet on disk.", m.dirty_bytes)
        age_s = nan if m.checkpoint_age_s is None else m.checkpoint_age_s
        yield GaugeMetricFamily("tidegate_checkpoint_age_seconds", "Age of the newest checkpoint.", age_s)
        yield GaugeMetricFamily("tidegate_replay_remaining_events", "Records left to replay.", m.replay_remaining)
        models = InfoMetricFamily("tidegate_model", "The models in use.", labels=())
        models.add_metric((), {**m.model, "role": "champion"})
        share = GaugeMetricFamily("tidegate_canary_share", "Share of the entities that it decides.", labels=["model"])
        if (canary := m.canary) is not None:
            models.add_metric((), {**canary[0], "role": "canary"})
            share.add_metric([f"{canary[0]['name']}/{canary[0]['version']}"], canary[1])
        for challenger in m.challengers:
            if (facts := challenger.facts) is not None:
                models.add_metric((), {**facts, "role": "challenger"})
        policy = InfoMetricFamily("tidegate_policy", "The policy in use.", labels=())
        policy.add_metric((), m.policy)
        yield from (models, share, policy)

    def _histograms(self) -> Iterator[Metric]:
        m = self._metrics
        yield _histogram(
            "event_to_decision_seconds", "Kafka record timestamp to committed decision.", m.event_to_decision
        )
        yield _histogram("batch_events", "Records per micro-batch.", m.batch_events)
        yield _histogram("inference_batch_rows", "Rows per inference.", m.inference_rows)
        yield _histogram("score", "Risk score of decided events.", m.score)
        stages = HistogramMetricFamily("tidegate_stage_seconds", "Seconds per micro-batch and stage.", labels=["stage"])
        for stage, histogram in m.stage_seconds.copy().items():
            stages.add_metric([stage], histogram.buckets(), histogram.total)
        yield stages


def _counter(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"tidegate_{name}", text, labels=[label])
    for value, count in counts.copy().items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, label: str, numbers: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"tidegate_{name}", text, labels=[label])
    for value, number in numbers.copy().items():
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(f"tidegate_{name}", text, histogram.buckets(), histogram.total)


def latencies_s(record_times_ms: NDArray[np.int64], now_ms: int) -> NDArray[np.float64]:
    """Seconds since each record's timestamp; records without one (-1) are left out."""
    return (now_ms - record_times_ms[record_times_ms >= 0]) / 1000.0

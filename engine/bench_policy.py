"""What rules, lists and reasons cost per event, beside the same decisions without them.

The configuration is the one that ships, fed with the reference stream. Rules are made of its features by five patterns,
with limits that one event in a thousand exceeds, and add to the risk score; the list has as many cards as asked for, a
few of them of the stream. Each micro-batch is decided in turn by thresholds that no score reaches, by these with rules
and lists, and by a threshold that one event in a hundred reaches: the price of reasons. `reasons_cpu_share` is of the
whole way from bytes to bytes, without Kafka, and so more than of all that a worker does.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.assemble import assemble, policy_program
from engine.config import Config, default_profile, parse_config
from engine.decide import Decider
from engine.events import Batch, Records
from engine.pipeline import Pipeline
from engine.policy.lists import FOREVER_MS, Lists, Note
from engine.policy.settings import NEVER_REACHED, Policy, Rule
from models.calibration import risk_scores

RARE = 0.999
ALERTS = 0.01
WARM_UP_BATCHES = 200
TIMED_BATCHES = 200
REPETITIONS = 5
LISTED_AT_ONCE = 10_000
# One in so many cards of the stream is on the list.
CARDS_PER_BLOCKED = 2_000
_PATTERNS = (
    "{a} > {x} and amount > {m}",
    "{a} > {x} and {b} <= {y} and score < 1000",
    "{a} / max({b}, 1) > {x} and known({b})",
    "({a} > {x} or {b} > {y}) and merchant not in ('m-1', 'm-2', 'm-3')",
    "{a} - {b} > {x} + {y} or amount in (0.01, 0.02)",
)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One micro-batch as the decider gets it."""

    batch: Batch
    values: NDArray[np.float64]
    probabilities: NDArray[np.float32]


def bench_policy(events: Iterable[Records], rules: int, listed: int, say: Callable[[str], None]) -> dict[str, object]:
    """Measures on these micro-batches; returns the figures under the keys that `--json` prints."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, ExitStack() as resources_open:
        config = parse_config(f'{default_profile()}\n[state]\ndir = "state"\n', Path(folder), {})
        pipeline = assemble(config, resources_open)
        say("taking a part of the stream into the state")
        batches = iter(events)
        for _ in range(WARM_UP_BATCHES):
            pipeline.process(next(batches))
        timed = [next(batches) for _ in range(TIMED_BATCHES)]
        before = time.thread_time()
        for records in timed:
            pipeline.process(records)
        whole_us = (time.thread_time() - before) / sum(map(len, timed)) * 1e6
        say("scoring what is to be decided")
        seen = list(_seen(pipeline, batches))
        say(f"deciding by {rules} rules and {listed:,} listed cards")
        figures = _figures(config, pipeline, seen, rules, listed)
    reasons_us = figures["reasons_us_per_event"]
    return {**figures, "pipeline_us_per_event": whole_us, "reasons_cpu_share": reasons_us / (whole_us + reasons_us)}


def _seen(pipeline: Pipeline, batches: Iterator[Records]) -> Iterator[_Seen]:
    for _ in range(TIMED_BATCHES):
        batch = pipeline.state.accept(pipeline.decoder.decode(next(batches))[0])
        matrix = pipeline.state.features(batch)
        yield _Seen(batch, matrix.values.copy(), pipeline.model.score(matrix.values).copy())


def _figures(config: Config, pipeline: Pipeline, seen: list[_Seen], rules: int, listed: int) -> dict[str, float]:
    values = np.concatenate([one.values for one in seen])
    scores = risk_scores(pipeline.model.calibration, np.concatenate([one.probabilities for one in seen]))
    challenge = int(np.quantile(scores, 1 - ALERTS, method="higher"))
    silent = Policy(challenge=NEVER_REACHED, review=NEVER_REACHED, decline=NEVER_REACHED)
    ruled = msgspec.structs.replace(silent, rules=make_rules(pipeline.state.spec.names, values, rules))
    alerting = msgspec.structs.replace(silent, challenge=max(1, challenge))
    entities = tuple(entity.name for entity in pipeline.state.spec.entities)
    lists = make_lists(entities, listed, [card for one in seen for card in one.batch.keys["card"] if card])
    nobody = Lists(entities)

    def decider(policy: Policy, listed_by: Lists) -> Decider:
        own = msgspec.structs.replace(config, policy=policy)
        return Decider(policy_program(own, pipeline.state.spec), pipeline.model, listed_by)

    deciders = {"plain": decider(silent, nobody), "ruled": decider(ruled, lists), "alerting": decider(alerting, nobody)}
    spent = dict.fromkeys(deciders, 0.0)
    for _ in range(REPETITIONS):
        for one in seen:
            for name, made in deciders.items():
                before = time.thread_time()
                made.decide(one.batch, one.values, one.probabilities)
                spent[name] += time.thread_time() - before
    ruled_by, alerted_by = (
        [deciders[name].decide(one.batch, one.values, one.probabilities) for one in seen]
        for name in ("ruled", "alerting")
    )
    events = sum(len(one.batch) for one in seen)
    us = {name: seconds / (events * REPETITIONS) * 1e6 for name, seconds in spent.items()}
    return {
        "events": events,
        "batch_events": events / len(seen),
        "rules": rules,
        "listed": len(lists),
        "plain_us_per_event": us["plain"],
        "rules_and_lists_us_per_event": us["ruled"] - us["plain"],
        "hit_share": sum(len(decisions.rules) for decisions in ruled_by) / events,
        "blocked_share": sum(len(decisions.flagged) for decisions in ruled_by) / events,
        "reasons_us_per_event": us["alerting"] - us["plain"],
        "alert_share": sum(len(decisions.flagged) for decisions in alerted_by) / events,
    }


def make_rules(names: tuple[str, ...], values: NDArray[np.float64], count: int) -> list[Rule]:
    """So many rules over these features, each with other ones, that rarely hold."""
    made = []
    for number in range(count):
        a, b = number % len(names), (7 * number + 3) % len(names)
        x, y = (float(np.nan_to_num(np.nanquantile(values[:, at], RARE))) for at in (a, b))
        when = _PATTERNS[number % len(_PATTERNS)].format(a=names[a], b=names[b], x=x, y=y, m=number)
        made.append(Rule(id=f"r{number}", when=when, weight=number + 1))
    return made


def make_lists(entities: tuple[str, ...], count: int, cards: list[str]) -> Lists:
    """So many blocked cards, of which a few are of these."""
    lists = Lists(entities)
    known = list(dict.fromkeys(cards))[::CARDS_PER_BLOCKED]
    keys = known + [f"9{number:015d}" for number in range(count - len(known))]
    for start in range(0, len(keys), LISTED_AT_ONCE):
        lists.put("block", "card", keys[start : start + LISTED_AT_ONCE], FOREVER_MS, Note("bench", "bench"))
    return lists

"""`tidegate dlq`: looks at dead letters, and sends them again once what refused them is mended."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from engine.config import Config
from engine.dlq_plan import Left, Plan, Request, plan
from engine.errors import ConfigError
from engine.kafka.client import KAFKA, Clients, admin_settings
from engine.kafka.letters import LetterTopic
from engine.kafka.resend import Resender, Resent
from engine.kafka.topics import kept_ms
from engine.letters import Filter, Letter, Survey, Values

# A transaction keeps readers of the input waiting, so it is small.
TRANSACTION_LETTERS_MAX = 500
TRANSACTION_BYTES_MAX = 8 * 1024 * 1024
# A record must be readable for a while, even by a worker that is stopped at the moment.
LEFT_TO_LIVE_MS_MIN = 86_400_000


def survey(config: Config, wanted: Filter) -> Survey:
    """The letters that the topic holds now."""
    with LetterTopic(config) as topic:
        return topic.survey(wanted)


def survey_with_values(config: Config, wanted: Filter, newest: int) -> tuple[Survey, Values]:
    """The same, and the values of the newest letters."""
    with LetterTopic(config) as topic:
        found = topic.survey(wanted)
        shown = topic.values(found.letters[max(0, len(found.letters) - newest) :])
        return found, {letter.place: value or b"" for letter, _, value in shown}


def letter_as_json(letter: Letter, found: Survey, values: Values | None) -> dict[str, Any]:
    """One letter, for programs; its value as text where there are values."""
    shown = {} if values is None else {"value": values.get(letter.place, b"").decode("utf-8", "replace")}
    return shown | {
        "partition": letter.partition,
        "offset": letter.offset,
        "time_ms": letter.time_ms,
        "reason": letter.reason,
        "error": letter.error,
        "source": {"topic": letter.topic, "partition": letter.source_partition, "offset": letter.source_offset},
        "bytes": letter.value_bytes,
        "cut_from_bytes": letter.cut_from_bytes,
        "attempt": found.ledger.attempt(letter),
        "replayed_to": list(found.ledger.sent_to(letter)),
    }


@dataclass(slots=True)
class Outcome:
    """What a replay did, or would have done: letters sent by topic, and letters left by why."""

    sent: Counter[str] = field(default_factory=Counter)
    left: Counter[Left] = field(default_factory=Counter)

    def in_words(self, verb: str) -> str:
        """For people."""
        to = ", ".join(f"{letters:,} to {topic}" for topic, letters in sorted(self.sent.items()))
        left = ", ".join(f"{letters:,} {why}" for why, letters in sorted(self.left.items()) if letters)
        return f"{verb}: {to or 'nothing'}; left: {left or 'none'}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        left = {why.name.lower(): self.left[why] for why in Left}
        return {"sent": self.sent.total(), "to": dict(self.sent), "left": left}


def dry_run(config: Config, request: Request) -> Outcome:
    """What a replay would send now."""
    with LetterTopic(config) as topic:
        planned, _ = _survey_and_plan(topic, request, _kept(config))
    return _planned(planned, request)


# How long a topic keeps a record by the record's own timestamp, in ms; None: for ever.
Kept = Callable[[str], int | None]


def _kept(config: Config) -> Kept:
    return lambda topic: kept_ms(admin_settings(config), topic)


def replay(
    config: Config,
    request: Request,
    confirm: Callable[[Outcome], bool],
    *,
    clients: Clients = KAFKA,
    kept: Kept | None = None,
) -> Outcome | None:
    """Sends what is to be sent and was not sent before; None where `confirm` says no.

    May be repeated after any error: what was sent is not sent again. Letters that come meanwhile are not sent either,
    so that it ends even where every record fails again.
    """
    with LetterTopic(config, clients) as topic:
        planned, found = _survey_and_plan(topic, request, kept or _kept(config))
        if not planned.letters:
            return _planned(planned, request)
        if not confirm(_planned(planned, request)):
            return None
        with Resender(config, clients) as resender:
            # Others may have sent some of them since; now that they are fenced, all that they sent can be seen.
            topic.catch_up(found)
            final = plan(planned.letters, found.ledger, request)
            outcome = Outcome(left=planned.left + final.left)
            for chunk in _chunks(_resent(topic, final, found, request)):
                resender.send(chunk)
                outcome.sent.update(resent.to for resent in chunk)
        outcome.left[Left.GONE] = len(final.letters) - outcome.sent.total()
    return outcome


def _survey_and_plan(topic: LetterTopic, request: Request, kept: Kept) -> tuple[Plan, Survey]:
    """Raises ConfigError where a letter would go to a topic that there is not, or to that of the letters."""
    found = topic.survey(request.filter)
    candidates = plan(found.letters, found.ledger, replace(request, limit=None)).letters
    oldest_ms = {}
    for target in sorted({request.target(letter) for letter in candidates}):
        if target == topic.topic:
            raise ConfigError(f"{target} is the topic of the letters themselves: they cannot be sent there")
        topic.partitions_of(target)
        kept_for_ms = None if request.new_timestamps else kept(target)
        if kept_for_ms is not None:
            left_ms_min = min(LEFT_TO_LIVE_MS_MIN, kept_for_ms // 2)
            oldest_ms[target] = time.time_ns() // 1_000_000 - kept_for_ms + left_ms_min
    return plan(found.letters, found.ledger, request, oldest_ms), found


def _planned(planned: Plan, request: Request) -> Outcome:
    return Outcome(Counter(request.target(letter) for letter in planned.letters), planned.left)


def _resent(topic: LetterTopic, planned: Plan, found: Survey, request: Request) -> Iterator[Resent]:
    """The letters as they are to be sent.

    Into the topic that they came from each goes to its own partition, since event ids are remembered by partition.
    """
    targets = {request.target(letter) for letter in planned.letters}
    partitions = {target: set(topic.partitions_of(target)) for target in targets}
    for letter, key, value in topic.values(planned.letters):
        target = request.target(letter)
        stays = target == letter.topic and letter.source_partition in partitions[target]
        yield Resent(
            letter=letter,
            key=key,
            value=value,
            to=target,
            to_partition=letter.source_partition if stays else -1,
            time_ms=0 if request.new_timestamps else letter.sent_time_ms,
            attempt=found.ledger.attempt(letter) + 1,
        )


def _chunks(letters: Iterable[Resent]) -> Iterator[list[Resent]]:
    """What fits into one transaction each."""
    chunk: list[Resent] = []
    size = 0
    for resent in letters:
        letter_bytes = resent.letter.value_bytes
        if chunk and (len(chunk) >= TRANSACTION_LETTERS_MAX or size + letter_bytes > TRANSACTION_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(resent)
        size += letter_bytes
    if chunk:
        yield chunk

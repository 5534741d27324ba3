"""`tidegate dlq` on the real broker: what is listed, what is sent again where and how, once, and not without a word."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

import engine.dlq
from engine.cli import main
from engine.errors import ConfigError, FatalError, FencedError, RetriableError
from engine.kafka.resend import Resender, Resent
from engine.letters import Filter, Letter
from engine.process import WorkerProcess
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.commands import Ended, invoke, refused
from tests.conftest import TopicFactory
from tests.pipelines import event, json_of

pytestmark = pytest.mark.broker

PARTITIONS = 3
HOUR_MS = 3_600_000
CARD = "4000123412341234"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    made = new_application(kafka_bootstrap, tmp_path, topic_factory, PARTITIONS)
    (tmp_path / "tidegate.toml").write_text(made.config_text())
    return made


def dlq(application: Application, *arguments: str, answer: str = "") -> Ended:
    """Runs a command; `answer` is what is typed."""
    places = ["--config", str(application.folder / "tidegate.toml"), "--bootstrap", application.bootstrap]
    if not answer:
        return invoke("dlq", arguments[0], *places, *arguments[1:])
    result = CliRunner().invoke(main, ["dlq", arguments[0], *places, *arguments[1:]], input=answer)
    return Ended(result.exit_code, result.stdout, result.stderr)


def sent_again(application: Application, *arguments: str) -> dict[str, Any]:
    """Replays without a question, and returns what it says."""
    ended = dlq(application, "replay", "--yes", "--json", *arguments)
    assert ended.exit_code == 0, ended.err
    found: dict[str, Any] = orjson.loads(ended.out)
    return found


def listed(application: Application, *arguments: str) -> dict[str, Any]:
    ended = dlq(application, "list", "--json", "--letters", *arguments)
    assert ended.exit_code == 0, ended.err
    found: dict[str, Any] = orjson.loads(ended.out)
    return found


def records(application: Application, topic: str | None = None) -> list[Message]:
    """What the input holds, oldest first in each partition."""
    return application.read_all(topic or application.input)


def put_letters(application: Application, count: int, first: int = 0, **changes: Any) -> None:
    """Letters as a worker writes them, of records of partition 1 from an offset on that nothing has reached."""
    with closing(Producer({"bootstrap.servers": application.bootstrap})) as producer:
        for number in range(first, first + count):
            put_letter(producer, application, number, **changes)
        assert producer.flush(GIVE_UP_S) == 0


def put_letter(producer: Producer, application: Application, number: int, **changes: Any) -> None:
    headers = {
        "tidegate.reason": "malformed_json",
        "tidegate.error": "not JSON at character 0: Expecting value",
        "tidegate.topic": application.input,
        "tidegate.partition": "1",
        "tidegate.offset": str(1_000_000 + number),
    } | changes
    producer.produce(
        application.dead_letters,
        b"letter %d" % number,
        b"key %d" % number,
        number % PARTITIONS,
        headers=[(name, value.encode()) for name, value in headers.items()],
    )


# --- with a worker -----------------------------------------------------------------------------------------------


def test_letters_of_a_worker_are_decided_once_their_rate_is_there(application: Application) -> None:
    """Refused for its currency, replayed in vain, refused again, and decided after the rate table is mended.

    State under other rules is built anew from the topic, and then would take the first records, had they not been
    refused: what is sent again would be a duplicate.
    """
    sent_ms = now_ms() - HOUR_MS
    values = [json_of(event(n, event_time=sent_ms, currency="USD" if n % 2 else "EUR")) for n in range(6)]
    application.produce(values, [CARD.encode()] * 6, [sent_ms + n for n in range(6)])
    with application.worker() as worker:
        application.wait_committed(worker)
        assert sent_again(application)["sent"] == 3
        with closing(application.reader(application.dead_letters)) as reader:
            reader.read_until(3 + 1 + 3, worker)  # letters, the mark, the same letters again
        wait_for_no_lag(worker)
    check_second_attempts(application)
    (application.folder / "rates.csv").write_text("currency,effective_from,rate\nUSD,2020-01-01,0.5\n")
    mended = {"rates__file": "rates.csv", "rates__base_currency": "EUR", "state__dir": "mended"}
    with application.worker(**mended) as worker:
        assert sent_again(application, "--attempts-max", "2")["sent"] == 3
        with closing(application.reader(application.decisions)) as reader:
            reader.read_until(3 + 3, worker)
    decisions = [orjson.loads(message.value()) for message in application.read_all(application.decisions)]
    assert Counter(decision["event_id"] for decision in decisions) == Counter(f"e{n}" for n in range(6))
    newest = max(decisions, key=lambda decision: decision["source"]["offset"])
    assert newest["features"]["card.count.1h"] == 6
    check_sent_again(application)


def wait_for_no_lag(worker: WorkerProcess) -> None:
    """The end of the replay's transaction takes up an offset too, which nobody waits for."""
    give_up_at = time.monotonic() + GIVE_UP_S
    while any(value for name, value in worker.samples().items() if name.startswith("tidegate_consumer_lag_")):
        assert time.monotonic() < give_up_at, "the worker counts as behind"


def check_second_attempts(application: Application) -> None:
    found = listed(application)
    assert [(of["reason"], of["letters"], of["replayed"], of["failed_again"]) for of in found["reasons"]] == [
        ("unknown_currency", 6, 3, 3)
    ]
    assert sorted(letter["attempt"] for letter in found["newest"]) == [1, 1, 1, 2, 2, 2]
    assert sent_again(application) == {
        "dry_run": False,
        "sent": 0,
        "to": {},
        "left": {"replayed": 3, "cut": 0, "attempted": 3, "expired": 0, "limited": 0, "gone": 0},
    }


def check_sent_again(application: Application) -> None:
    """Each as it was: value, key, partition and time; and it says which attempt it is."""
    originals = {record.value: record for record in application.sent}
    again = [message for message in records(application) if message.headers()]
    assert [dict(message.headers())["tidegate.attempt"] for message in again] == [b"2"] * 3 + [b"3"] * 3
    for message in again:
        original = originals[message.value()]
        assert (message.partition(), message.key()) == (original.partition, original.key)
        assert message.timestamp()[1] == original.timestamp_ms


# --- list --------------------------------------------------------------------------------------------------------


def test_letters_are_listed_without_their_values(application: Application) -> None:
    put_letters(application, 4)
    put_letters(application, 1, 4, **{"tidegate.reason": "oversize", "tidegate.cut_from_bytes": "9000000"})
    ended = dlq(application, "list")
    assert f"{application.dead_letters}: 5 dead letters" in ended.out
    row = next(line for line in ended.out.splitlines() if line.startswith("malformed_json"))
    assert row.split()[:5] == ["malformed_json", "4", "0", "0", "0"]
    ended = dlq(application, "list", "--letters")
    assert "/1/1000004" in ended.out
    assert "letter 4" not in ended.out
    assert "letter 4" in dlq(application, "list", "--letters", "--values").out
    found = listed(application)
    assert (found["letters"], found["foreign"]) == (5, 0)
    assert all("value" not in letter for letter in found["newest"])
    assert {letter["value"] for letter in listed(application, "--values")["newest"]} == {
        f"letter {number}" for number in range(5)
    }


def test_letters_are_filtered(application: Application) -> None:
    put_letters(application, 3)
    time.sleep(0.002)  # so that the next ones are younger by the clock that they bear
    moment = f"{now_ms() / 1_000:.3f}"
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(float(moment))) + moment[-4:] + "Z"
    put_letters(application, 2, 3, **{"tidegate.reason": "oversize", "tidegate.partition": "2"})
    for arguments, count in (
        (("--reason", "oversize"), 2),
        (("--reason", "oversize", "--reason", "malformed_json"), 5),
        (("--partition", "1"), 3),
        (("--since", since), 2),
        (("--until", since), 3),
        (("--bytes-max", "7"), 0),
        (("--reason", "oversize", "--partition", "1"), 0),
    ):
        found = listed(application, *arguments)
        assert found["letters"] == len(found["newest"]) == count, arguments
    assert [letter["reason"] for letter in listed(application, "--limit", "1")["newest"]] == ["oversize"]


def test_what_a_value_holds_cannot_steer_the_terminal(application: Application) -> None:
    put_letters(application, 1, **{"tidegate.error": "a\x1b[2Jb [bold]c"})
    out = dlq(application, "list", "--letters").out
    assert "\x1b" not in out
    assert "\\x1b[2Jb" in out
    assert "[bold]" in out


def test_records_of_others_are_counted_and_left_alone(application: Application) -> None:
    put_letters(application, 1)
    with closing(Producer({"bootstrap.servers": application.bootstrap})) as producer:
        producer.produce(application.dead_letters, b"{}", headers=[("other", None)])
    assert (listed(application)["letters"], listed(application)["foreign"]) == (1, 1)
    assert "1 records are not Tidegate's" in dlq(application, "list").out
    assert sent_again(application)["sent"] == 1


def test_an_empty_topic_has_nothing_to_list_or_send(application: Application) -> None:
    assert listed(application)["reasons"] == []
    assert "0 dead letters" in dlq(application, "list").out
    assert sent_again(application)["sent"] == 0
    assert dlq(application, "replay").out == "sent: nothing; left: none\n"


# --- replay ------------------------------------------------------------------------------------------------------


def test_a_letter_goes_to_its_partition_with_its_key_value_and_time(application: Application) -> None:
    put_letters(application, 3, **{"tidegate.timestamp": str(now_ms() - HOUR_MS)})
    before_ms = now_ms()
    assert sent_again(application)["to"] == {application.input: 3}
    found = records(application)
    assert {message.partition() for message in found} == {1}
    assert {message.value() for message in found} == {b"letter 0", b"letter 1", b"letter 2"}
    for message in found:
        assert message.key() == message.value().replace(b"letter", b"key")
        assert message.timestamp()[1] < before_ms - HOUR_MS + 60_000
        assert dict(message.headers())["tidegate.replayed_from"].startswith(application.dead_letters.encode())


def test_new_timestamps_are_those_of_the_sending(application: Application) -> None:
    put_letters(application, 1, **{"tidegate.timestamp": str(now_ms() - HOUR_MS)})
    before_ms = now_ms()
    assert sent_again(application, "--new-timestamps")["sent"] == 1
    assert before_ms <= records(application)[0].timestamp()[1] <= now_ms()


def test_repeated_calls_send_what_was_not_sent(application: Application) -> None:
    """Whatever filter they have."""
    put_letters(application, 6)
    assert sent_again(application, "--limit", "2")["left"]["limited"] == 4
    assert sent_again(application, "--reason", "oversize")["sent"] == 0
    assert sent_again(application)["sent"] == 4
    put_letters(application, 1, 6)
    assert sent_again(application, "--partition", "1") | {"left": {}} == {
        "dry_run": False, "sent": 1, "to": {application.input: 1}, "left": {},
    }  # fmt: skip
    assert sorted(message.value() for message in records(application)) == [b"letter %d" % n for n in range(7)]
    assert {tuple(letter["replayed_to"]) for letter in listed(application)["newest"]} == {(application.input,)}


def test_a_letter_that_went_elsewhere_can_still_go_home(application: Application, topic_factory: TopicFactory) -> None:
    """By its key, since that topic has partitions of its own."""
    staging = topic_factory("staging", 1)
    put_letters(application, 3)
    assert sent_again(application, "--to", staging)["to"] == {staging: 3}
    assert sent_again(application, "--to", staging)["sent"] == 0
    assert sent_again(application)["to"] == {application.input: 3}
    assert {message.partition() for message in records(application, staging)} == {0}
    assert all(letter["replayed_to"] == [staging, application.input] for letter in listed(application)["newest"])


def test_nothing_is_sent_by_a_dry_run_or_without_a_yes(application: Application) -> None:
    put_letters(application, 2)
    put_letters(application, 1, 2, **{"tidegate.cut_from_bytes": "9000000"})
    ended = dlq(application, "replay", "--dry-run")
    words = f"2 to {application.input}; left: 1 cut, so that their end is lost"
    assert ended.out == f"would be sent: {words}\n"
    ended = dlq(application, "replay", answer="n\n")
    assert (ended.exit_code, ended.out.splitlines()[-1]) == (0, "nothing was sent")
    assert f"to be sent: {words}. Send them? [y/N]" in ended.out
    assert records(application) == []
    ended = dlq(application, "replay", answer="y\n")
    assert ended.out.endswith(f"sent: {words}\n")
    assert len(records(application)) == 2


def test_what_cannot_be_meant_is_refused(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    put_letters(application, 1)
    assert "it needs --yes or --dry-run" in refused(dlq(application, "replay", "--json"))
    assert "it needs --letters" in refused(dlq(application, "list", "--values"))
    for to, why in (("no-such-topic", "topic 'no-such-topic'"), (application.dead_letters, "the letters themselves")):
        ended = dlq(application, "replay", "--yes", "--to", to)
        assert why in refused(ended)
        assert ended.exit_code == ConfigError.exit_code
    monkeypatch.setattr("engine.kafka.committed.ANSWER_TIMEOUT_S", 1.0)
    ended = invoke("dlq", "list", "--config", application.folder / "tidegate.toml", "--bootstrap", "127.0.0.1:1")
    assert ended.exit_code == RetriableError.exit_code


def test_what_the_input_would_delete_at_once_is_left(application: Application) -> None:
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    entry = ConfigEntry("retention.ms", str(HOUR_MS), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, application.input, incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result()
    put_letters(application, 2, **{"tidegate.timestamp": str(now_ms() - HOUR_MS * 3 // 4)})
    put_letters(application, 1, 2, **{"tidegate.timestamp": str(now_ms() - HOUR_MS // 4)})
    found = sent_again(application)
    assert (found["sent"], found["left"]["expired"]) == (1, 2)
    assert sent_again(application, "--new-timestamps")["sent"] == 2


def test_a_letter_that_its_topic_does_not_take_stops_the_replay(
    application: Application, topic_factory: TopicFactory
) -> None:
    """Of a transaction nothing is sent; and it can be left out."""
    small = topic_factory("small", 1, {"max.message.bytes": "200000"})
    put_letters(application, 2)
    with closing(Producer({"bootstrap.servers": application.bootstrap, "message.max.bytes": 8 << 20})) as producer:
        headers = [(f"tidegate.{name}", b"1") for name in ("reason", "error", "topic", "partition", "offset")]
        producer.produce(application.dead_letters, b"x" * 300_000, headers=headers)
    ended = dlq(application, "replay", "--yes", "--to", small)
    assert ended.exit_code == FatalError.exit_code
    assert f"{small} does not take letter" in refused(ended)
    assert "300,000 bytes" in ended.err
    assert records(application, small) == []
    assert sent_again(application, "--to", small, "--bytes-max", "100000")["sent"] == 2


# --- once --------------------------------------------------------------------------------------------------------

KILLED_REPLAY = """
import os, sys
from engine.kafka import resend
import engine.dlq
from engine.cli import main

engine.dlq.TRANSACTION_LETTERS_MAX = 2
commit, number = resend.Resender._commit, 0


def die(self):
    global number
    number += 1
    if number == 2 and sys.argv[1] == "before":
        os._exit(9)
    commit(self)
    if number == 2:
        os._exit(9)


resend.Resender._commit = die
main(sys.argv[2:])
"""


@pytest.mark.parametrize(("when", "sent"), [("before", 2), ("after", 4)])
def test_a_replay_that_was_killed_is_finished_by_the_next(application: Application, when: str, sent: int) -> None:
    put_letters(application, 7)
    command = ["dlq", "replay", "--yes", "--config", str(application.folder / "tidegate.toml")]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_REPLAY, when, *command, "--bootstrap", application.bootstrap],
        check=False,
        timeout=GIVE_UP_S,
    )
    assert ended.returncode == 9
    found = sent_again(application)
    assert (found["sent"], found["left"]["replayed"]) == (7 - sent, sent)
    assert sorted(message.value() for message in records(application)) == [b"letter %d" % n for n in range(7)]


def resent_of(application: Application, letters: Sequence[Letter]) -> list[Resent]:
    return [Resent(letter, None, b"by hand", application.input, 0, 0, 2) for letter in letters]


def test_of_two_operators_the_later_one_goes_on(application: Application) -> None:
    """The first one can send nothing any more, and the second one nothing that the first one did."""
    put_letters(application, 4)
    config = application.config()
    letters = engine.dlq.survey(config, Filter()).letters
    with Resender(config) as first:
        first.send(resent_of(application, letters[:2]))
        assert sent_again(application)["sent"] == 2
        with pytest.raises(FencedError, match="another replay"):
            first.send(resent_of(application, letters[2:]))
    assert len(records(application)) == 4
    assert sent_again(application)["sent"] == 0


@contextmanager
def open_transaction(application: Application) -> Iterator[Callable[[], None]]:
    """A worker's, that has written to partition 0 of the letters; the function aborts it."""
    producer = Producer({"bootstrap.servers": application.bootstrap, "transactional.id": application.application_id})
    producer.init_transactions(GIVE_UP_S)
    producer.begin_transaction()
    put_letter(producer, application, 3_000)
    assert producer.flush(GIVE_UP_S) == 0
    yield producer.abort_transaction


def test_a_mark_behind_the_open_transaction_of_a_worker_is_waited_for(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be read before that one ends; to go on without it would send its letters twice."""
    put_letters(application, 3)
    config = application.config()
    letters = engine.dlq.survey(config, Filter()).letters
    monkeypatch.setattr("engine.kafka.committed.SILENCE_S_MAX", 2.0)
    with open_transaction(application) as abort:
        with Resender(config) as resender:
            resender.send(resent_of(application, letters))
        assert listed(application)["letters"] == 3  # who only looks does not wait
        ended = dlq(application, "replay", "--yes")
        assert ended.exit_code == RetriableError.exit_code
        assert "a transaction of a worker that died is still open" in refused(ended)
        abort()
    assert sent_again(application)["sent"] == 0
    assert len(records(application)) == 3


def test_many_letters_go_in_many_transactions(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.dlq, "TRANSACTION_LETTERS_MAX", 7)
    monkeypatch.setattr(engine.dlq, "TRANSACTION_BYTES_MAX", 50)
    put_letters(application, 100)
    assert sent_again(application)["sent"] == 100
    assert len({message.value() for message in records(application)}) == 100
    marks = len(records(application, application.dead_letters)) - 100
    assert marks >= 100 // 7

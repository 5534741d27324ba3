"""The control plane on the real broker: topics of its own, the process, and what it says."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson
from confluent_kafka import Message, Producer

from engine.config import Config, parse_config
from tests.broker.application import GIVE_UP_S, Reader
from tests.conftest import TopicFactory, delete_topics

HOST = "127.0.0.1"
ASK_AGAIN_S = 0.1
OWN_TOPICS = ("samples", "labelled", "measured", "alerted", "said")
TABLES = ("facts", "buckets", "alarms", "cases", "rollouts")


@dataclass
class Plane:
    """What outlasts its workers."""

    bootstrap: str
    folder: Path
    topics: dict[str, str]
    application_id: str
    settings: str
    port: int

    @property
    def config(self) -> Config:
        return parse_config(self.text, self.folder, {"TIDEGATE__KAFKA__BOOTSTRAP": self.bootstrap})

    @property
    def text(self) -> str:
        names = "".join(f'{key} = "{name}"\n' for key, name in self.topics.items())
        return (
            f'[kafka]\napplication_id = "{self.application_id}"\n[kafka.topics]\n{names}'
            f'[control]\nlisten = "{HOST}:{self.port}"\npartitions = 2\n{self.settings}'
        )

    def send(
        self, topic: str, records: Sequence[Any], keys: Sequence[bytes | None] | None = None, *, abort: bool = False
    ) -> None:
        """Sends records in one transaction, which is committed unless it is to be aborted."""
        with self._producer() as producer:
            producer.begin_transaction()
            for at, record in enumerate(records):
                value = record if isinstance(record, bytes) else msgspec.json.encode(record)
                producer.produce(self.topics[topic], value, None if keys is None else keys[at])
            producer.flush()
            if abort:
                producer.abort_transaction()
            else:
                producer.commit_transaction()

    def send_each(self, topic: str, records: Sequence[Any], key: bytes) -> None:
        """Sends each record in a transaction of its own."""
        with self._producer() as producer:
            for record in records:
                producer.begin_transaction()
                producer.produce(self.topics[topic], msgspec.json.encode(record), key)
                producer.commit_transaction()

    @contextmanager
    def _producer(self) -> Iterator[Producer]:
        settings = {"bootstrap.servers": self.bootstrap, "transactional.id": f"{self.application_id}-test"}
        with closing(Producer(settings)) as producer:
            producer.init_transactions()
            yield producer

    def read(self, topic: str) -> list[Message]:
        """Everything that one of its topics holds."""
        with closing(Reader(self.bootstrap, self.topics[topic])) as reader:
            reader.read_to_end()
            return reader.messages

    @contextmanager
    def worker(self, *command: str) -> Iterator["ControlProcess"]:
        """A worker that is ready; it is told to stop at the end. By default one of `tidegate control`."""
        process = ControlProcess(self, *command)
        try:
            process.wait("/readyz", lambda answer: bool(answer["ok"]))
            yield process
            process.stop()
        finally:
            process.kill()


class ControlProcess:
    """`tidegate control` as a child, or another module with its arguments."""

    def __init__(self, plane: Plane, *command: str) -> None:
        self._port = plane.port
        self.log_file = plane.folder / "control.log"
        config_file = plane.folder / "tidegate.toml"
        config_file.write_text(plane.text)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")} | {
            "TIDEGATE_CONFIG": str(config_file),
            "KAFKA_BOOTSTRAP_SERVERS": plane.bootstrap,
        }
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(command or ("engine.child", "control"))],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def ask(self, path: str) -> Any:
        """The JSON of a view, or the text of another; None while nobody answers."""
        try:
            with closing(http.client.HTTPConnection(HOST, self._port, timeout=5)) as connection:
                connection.request("GET", path)
                body = connection.getresponse().read()
        except OSError:
            return None
        return orjson.loads(body) if path != "/metrics" else body.decode()

    def wait(self, path: str, holds: Any) -> Any:
        """The answer, once it is as wanted; fails where it never is."""
        give_up_at = time.monotonic() + GIVE_UP_S
        while True:
            answer = self.ask(path)
            if answer is not None and holds(answer):
                return answer
            assert self._process.poll() is None, self.log_file.read_text()[-2_000:]
            assert time.monotonic() < give_up_at, answer
            time.sleep(ASK_AGAIN_S)

    def stop(self) -> None:
        """As an operator would."""
        self._process.terminate()
        assert self._process.wait(GIVE_UP_S) == 0, self.log_file.read_text()[-2_000:]

    def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        return int(bound.getsockname()[1])


@contextmanager
def new_plane(bootstrap: str, folder: Path, topic_factory: TopicFactory, settings: str = "") -> Iterator[Plane]:
    """Topics that nobody else has; those that the application makes of itself are deleted, too."""
    topics = {
        "alerts": topic_factory("alerts", 3),
        "decisions_sample": topic_factory("samples", 3),
        "labels": topic_factory("labels", 3),
        "telemetry": topic_factory("telemetry"),
        "cases": topic_factory("cases", 3, {"cleanup.policy": "compact"}),
        "retrain_requests": topic_factory("retrain"),
        "control": topic_factory("control", 1, {"cleanup.policy": "compact"}),
    }
    application_id = topics["control"]
    yield Plane(bootstrap, folder, topics, application_id, settings, free_port())
    own = f"{application_id}-control"
    delete_topics(bootstrap, [f"{own}-{name}" for name in OWN_TOPICS] + [f"{own}-{name}-changelog" for name in TABLES])

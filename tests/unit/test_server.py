"""The admin endpoint: what a scraper, a load balancer and a passer-by get to see."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import ConfigError
from engine.observe.metrics import Metrics
from engine.observe.server import AdminServer
from engine.policy.settings import Policy
from tests.pipelines import profile

HOST = "127.0.0.1"
MODEL = {"name": "demo", "version": "1", "sha256": "00"}


@dataclass
class Worker:
    """How the worker is said to be."""

    alive: bool = True
    ready: bool = False
    details: dict[str, object] = field(default_factory=lambda: {"role": "starting"})


@dataclass
class Endpoint:
    """A running server, and what it serves."""

    server: AdminServer
    metrics: Metrics
    worker: Worker

    def get(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        """Status, content type and body."""
        with closing(http.client.HTTPConnection(HOST, self.server.port)) as connection:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read()


@pytest.fixture(scope="module")
def running() -> Iterator[Endpoint]:
    worker = Worker()
    metrics = Metrics(profile().feature_spec(), MODEL, Policy())
    with AdminServer(
        (HOST, 0), metrics, lambda: (worker.alive, worker.details), lambda: (worker.ready, worker.details)
    ) as server:
        yield Endpoint(server, metrics, worker)


@pytest.fixture
def endpoint(running: Endpoint) -> Endpoint:
    """The running server, its worker just started."""
    running.worker.alive, running.worker.ready = True, False
    return running


def test_metrics_are_what_the_worker_has_now(endpoint: Endpoint) -> None:
    for commits in (3, 4):
        endpoint.metrics.commits = commits
        status, kind, body = endpoint.get("/metrics")
        assert status == 200
        assert kind.startswith("text/plain")
        samples = {s.name: s.value for f in text_string_to_metric_families(body.decode()) for s in f.samples}
        assert samples["tidegate_transaction_commits_total"] == commits
        assert samples["process_resident_memory_bytes"] > 0
        assert "python_info" in samples


@pytest.mark.parametrize(("path", "attribute"), [("/livez", "alive"), ("/readyz", "ready")])
def test_health_is_a_status_and_says_why(endpoint: Endpoint, path: str, attribute: str) -> None:
    for well, expected in ((True, 200), (False, 503), (True, 200)):
        setattr(endpoint.worker, attribute, well)
        endpoint.worker.details = {"role": "replaying", "replay_remaining_events": 7}
        status, kind, body = endpoint.get(path)
        assert (status, kind) == (expected, "application/json")
        assert orjson.loads(body) == {"ok": well, "role": "replaying", "replay_remaining_events": 7}
        assert body.endswith(b"\n")


def test_alive_is_not_ready(endpoint: Endpoint) -> None:
    assert endpoint.get("/livez")[0] == 200
    assert endpoint.get("/readyz")[0] == 503


@pytest.mark.parametrize("path", ["/", "/metrics/", "/ready", "/readyz/x", "/../metrics", "/%2e", "/x?/metrics"])
def test_any_other_path_is_not_found_and_says_what_there_is(endpoint: Endpoint, path: str) -> None:
    status, _, body = endpoint.get(path)
    assert status == 404
    assert b"/metrics, /livez or /readyz" in body


def test_a_client_that_says_nothing_keeps_nobody_waiting(endpoint: Endpoint) -> None:
    with socket.create_connection((HOST, endpoint.server.port)):
        assert endpoint.get("/livez")[0] == 200


def test_requests_leave_no_word_on_standard_error(endpoint: Endpoint, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint.get("/livez")
    endpoint.get("/no")
    assert capfd.readouterr().err == ""


def test_an_address_that_is_taken_is_named(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError, match=rf"observe\.listen: {HOST}:{endpoint.server.port} cannot be used: .*in use"):
        AdminServer((HOST, endpoint.server.port), endpoint.metrics, lambda: (True, {}), lambda: (True, {}))


def test_a_host_that_is_not_ours_is_named() -> None:
    metrics = Metrics(profile().feature_spec(), MODEL, Policy())
    with pytest.raises(ConfigError, match=r"observe\.listen: 192\.0\.2\.1:9464 cannot be used: "):
        AdminServer(("192.0.2.1", 9464), metrics, lambda: (True, {}), lambda: (True, {}))


def test_closing_ends_its_thread_and_frees_the_address() -> None:
    metrics = Metrics(profile().feature_spec(), MODEL, Policy())
    before = {thread for thread in threading.enumerate() if thread.name == "admin"}
    with AdminServer((HOST, 0), metrics, lambda: (True, {}), lambda: (True, {})) as server:
        assert {thread for thread in threading.enumerate() if thread.name == "admin"} > before
    assert {thread for thread in threading.enumerate() if thread.name == "admin"} == before
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, server.port))

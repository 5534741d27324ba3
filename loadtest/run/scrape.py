"""A worker's own numbers over time, as any monitoring would get them."""

import http.client
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from loadtest.errors import LoadTestError

# A scrape takes the worker some ms, in which it decides nothing.
INTERVAL_S = 5.0
ANSWER_TIMEOUT_S = 5.0


class Sample(msgspec.Struct, frozen=True):
    """What stands at `/metrics` at one moment. `stages_s` are sums since the start, by stage."""

    time_ms: int
    cpu_s: float
    rss_bytes: int
    events: int
    lag_events: int
    aborts: int
    stages_s: dict[str, float]


def scrape(url: str) -> Sample:
    """One sample; LoadTestError where there is none, or the worker does not answer."""
    parts = urlsplit(url)
    try:
        with closing(http.client.HTTPConnection(parts.netloc, timeout=ANSWER_TIMEOUT_S)) as connection:
            connection.request("GET", parts.path or "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise LoadTestError(f"no metrics at {url}: {error}") from error
    if answer.status != http.client.OK:
        raise LoadTestError(f"no metrics at {url}: HTTP status {answer.status}")
    return sample(text, time.time_ns() // 1_000_000)


def sample(text: str, time_ms: int) -> Sample:
    """What a scrape at this time says; LoadTestError where it is not a worker's."""
    totals: dict[str, float] = {}
    stages_s: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            totals[name] = totals.get(name, 0.0) + value
            if name == "tidegate_stage_seconds_sum":
                stages_s[labels["stage"]] = value
    try:
        return Sample(
            time_ms,
            totals["process_cpu_seconds_total"],
            int(totals["process_resident_memory_bytes"]),
            int(totals.get("tidegate_events_total", 0)),
            int(totals.get("tidegate_consumer_lag_events", 0)),
            int(totals["tidegate_transaction_aborts_total"]),
            stages_s,
        )
    except KeyError as error:
        raise LoadTestError(f"these are no metrics of Tidegate: {error.args[0]} is not among them") from error


@dataclass
class Scraper:
    """Scrapes until it is stopped, on a thread of its own."""

    url: str
    samples: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _failure: LoadTestError | None = None

    def __enter__(self) -> "Scraper":
        self._thread = threading.Thread(target=self._run, name="scraper")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raises the LoadTestError that ended it, if one did."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self.samples.append(scrape(self.url))
            while not self._stop.wait(INTERVAL_S):
                self.samples.append(scrape(self.url))
        except LoadTestError as error:
            self._failure = error

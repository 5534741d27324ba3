"""Everything that a run needs, set up and taken down: broker, topics, workers, feed, and who watches."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtest.chaos.application import Application
from loadtest.chaos.arrivals import Arrivals
from loadtest.chaos.broker import OwnKafka, running_kafka
from loadtest.chaos.crew import Crew
from loadtest.chaos.director import Director
from loadtest.chaos.feed import Feed
from loadtest.chaos.offline import Offline
from loadtest.chaos.probe import Probe
from loadtest.chaos.worker import LISTEN, Worker, create_topics
from loadtest.reference import read_profile
from loadtest.settings import DAY_S

PROFILE = "chaos"
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Setting:
    """What is run: `engine` holds tables of the configuration beyond the profile's, `nodes` are those of a broker of
    its own, and as many replicas has each topic.
    """

    events: int
    rate: float
    seed: int
    partitions: int
    delivery: str
    bootstrap: str | None
    nodes: int
    engine: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """Everybody, ready: the workers wait for input, the feed waits for `start`."""

    application: Application
    crew: Crew
    feed: Feed
    arrivals: Arrivals
    probe: Probe
    broker: OwnKafka | None
    offline: Offline

    def director(self) -> Director:
        """Who strikes."""
        return Director(self.application.input, self.crew, self.feed, self.arrivals, self.probe, self.broker)

    def finish(self) -> None:
        """Lets the feed end, waits until everything is committed, and ends the workers; raises as `Crew.until`."""
        self.feed.release()
        self.crew.may_be_fenced = False
        self.crew.until_none(self.feed.left, "the feed to send everything")
        self.feed.check()
        ends = self.probe.ends(self.application.input)
        self.crew.until_none(lambda: self.probe.uncommitted(ends), "everything to be committed")
        self.crew.stop()


@contextmanager
def stage(setting: Setting, folder: Path) -> Iterator[Stage]:
    """Sets everything up in a folder; ends all of it, at once where an error leaves."""
    with ExitStack() as running:
        broker, bootstrap = None, setting.bootstrap
        if bootstrap is None:
            broker, bootstrap = running.enter_context(running_kafka(folder, setting.nodes))
        identity = f"chaos-{uuid.uuid4().hex[:8]}"
        application = Application(bootstrap, identity, setting.partitions, setting.delivery)
        profile = read_profile(PROFILE)
        pace = setting.events / (profile.days * DAY_S)
        traffic = replace(profile.traffic, seed=setting.seed, events_per_second=pace)
        workers = [_worker(folder / f"worker-{n + 1}", application, profile.engine, setting) for n in range(WORKERS)]
        create_topics(workers[0])
        crew = Crew(workers)
        running.callback(crew.kill)
        probe = running.enter_context(closing(Probe(application)))
        arrivals = Arrivals(application)
        running.callback(arrivals.stop)
        feed = Feed(application, traffic, setting.events, setting.rate)
        running.callback(feed.stop)
        crew.start()
        arrivals.start()
        config = workers[0].config_file
        with_features = bool(setting.engine.get("kafka", {}).get("decision_features"))
        yield Stage(
            application, crew, feed, arrivals, probe, broker, Offline(folder, config, application.input, with_features)
        )


def _worker(folder: Path, application: Application, profile: Mapping[str, Any], setting: Setting) -> Worker:
    worker = Worker(folder, application.bootstrap)
    tables = {
        **setting.engine,
        "kafka": {**setting.engine.get("kafka", {}), "replication": setting.nodes},
        "observe": {"listen": LISTEN, "log_format": "json"},
    }
    worker.config_file.write_text(application.config_text(profile, **tables), "utf-8")
    return worker

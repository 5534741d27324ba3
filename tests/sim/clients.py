"""What makes the clients of one simulated process: the seam of `engine.kafka.client`, filled in by the simulation."""

from typing import Any

from tests.sim.cluster import Cluster
from tests.sim.consumer import SimConsumer
from tests.sim.process import Process
from tests.sim.producer import SimProducer


class SimClients:
    """Every client made here belongs to the process, and stops with it."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    def consumer(self, settings: dict[str, Any]) -> SimConsumer:
        return SimConsumer(self._cluster, self._process, settings)

    def producer(self, settings: dict[str, Any]) -> SimProducer:
        return SimProducer(self._cluster, self._process, settings)

    def identity(self, settings: dict[str, Any], topic: str) -> tuple[str | None, str | None]:
        """The ids of the cluster and the topic."""
        self._process.step("identity")
        return self._cluster.cluster_id, self._cluster.topic_ids[topic]

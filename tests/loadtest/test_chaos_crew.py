"""The crew: who is active, what a worker that ends means, and waiting that has an end."""

from pathlib import Path
from typing import cast

import pytest

from loadtest.chaos.crew import Crew
from loadtest.chaos.worker import Health, Worker
from loadtest.errors import LoadTestError

ACTIVE, STANDBY, STARTING = Health("active", True), Health("standby", True), Health("starting", False)


class FakeWorker:
    """Says what it is told to say."""

    def __init__(self, health: Health, exit_code: int | None = None) -> None:
        self.name = "fake"
        self.exit_code = exit_code
        self.starts = 0
        self._health = health

    def health(self) -> Health:
        return self._health

    def start(self) -> None:
        self.starts += 1
        self.exit_code = None

    def last_words(self) -> str:
        return "its last words"


def crew_of(*workers: FakeWorker) -> Crew:
    return Crew([cast(Worker, worker) for worker in workers])


def test_the_active_one_is_found_and_only_if_there_is_one() -> None:
    active, standby = FakeWorker(ACTIVE), FakeWorker(STANDBY)
    assert crew_of(active, standby).active() is active  # type: ignore[comparison-overlap]
    assert crew_of(standby, standby).active() is None
    assert crew_of(active, active).active() is None


def test_a_crew_is_complete_with_one_active_and_warm_standbys() -> None:
    assert crew_of(FakeWorker(STANDBY), FakeWorker(ACTIVE)).complete() is not None
    for others in (
        FakeWorker(STARTING),
        FakeWorker(Health("standby", False)),
        FakeWorker(ACTIVE),
        FakeWorker(Health()),
    ):
        assert crew_of(FakeWorker(ACTIVE), others).complete() is None


@pytest.mark.parametrize("code", [0, 1, 3, 5, -11])
def test_a_worker_that_ends_by_itself_is_a_failure(code: int) -> None:
    crew = crew_of(FakeWorker(ACTIVE, code))
    crew.may_be_fenced = True
    with pytest.raises(LoadTestError, match=f"exit code {code}\nits last words"):
        crew.check()


def test_a_fenced_worker_starts_again_where_that_may_be() -> None:
    fenced = FakeWorker(ACTIVE, 4)
    crew = crew_of(fenced)
    with pytest.raises(LoadTestError, match="exit code 4"):
        crew.check()
    crew.may_be_fenced = True
    crew.check()
    assert (fenced.starts, crew.fenced) == (1, 1)


def test_waiting_has_an_end() -> None:
    crew = crew_of(FakeWorker(ACTIVE))
    with pytest.raises(LoadTestError, match=r"waited 0\.1 s in vain for a miracle\nits last words"):
        crew.until(lambda: None, "a miracle", timeout_s=0.1)


def test_waiting_goes_on_while_less_and_less_is_left() -> None:
    left = iter([3, 3, 2, 2, 1, 0, 0])
    crew_of(FakeWorker(ACTIVE)).until_none(lambda: next(left), "the rest")


def test_a_real_process_is_killed_frozen_and_read(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "worker", "127.0.0.1:1")
    worker.config_file.write_text("this is no configuration", "utf-8")
    assert (worker.running, worker.exit_code, worker.health()) == (False, None, Health())
    worker.start()
    worker.freeze()
    assert worker.running
    assert worker.health() == Health()
    worker.thaw()
    worker.kill()
    assert (worker.running, worker.exit_code) == (False, None)
    worker.start()
    with pytest.raises(LoadTestError, match=r"(?s)exit code 2.*is not valid TOML"):
        Crew([worker]).until(lambda: None, "its end")
    worker.kill()

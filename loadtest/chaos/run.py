"""One run from the first event to the verdict."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.chaos.arrivals import Arrivals
from loadtest.chaos.checker import check
from loadtest.chaos.director import Director
from loadtest.chaos.report import Report, Struck, versions
from loadtest.chaos.rounds import NODES, plan, rate_for
from loadtest.chaos.stage import Setting, stage

ENGINE: dict[str, Any] = {"kafka": {"decision_features": True}}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `rate` None: so that the events last as long as the rounds."""

    events: int
    kills: int
    zombies: int
    broker_kills: int
    seed: int
    partitions: int
    rate: float | None
    delivery: str
    bootstrap: str | None


def run_chaos(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Runs everything in `folder` and judges it; LoadTestError where it could not be brought to its end."""
    began_at = time.monotonic()
    transactions = options.delivery == "exactly_once"
    rounds = plan(options.kills, options.zombies, options.broker_kills, options.seed, transactions=transactions)
    rate = options.rate or rate_for(rounds, options.events)
    setting = Setting(
        events=options.events,
        rate=rate,
        seed=options.seed,
        partitions=options.partitions,
        delivery=options.delivery,
        bootstrap=options.bootstrap,
        nodes=NODES if options.broker_kills else 1,
        engine=ENGINE,
    )
    say(f"{options.events:,} events at {rate:,.0f}/s, {len(rounds)} rounds, in {folder}")
    with stage(setting, folder) as on_stage:
        say("the workers are ready")
        on_stage.feed.start()
        director = on_stage.director()
        director.run(rounds, say)
        say("the rounds are over; waiting for the rest to be decided")
        on_stage.finish()
        say("reading everything anew")
        check_began_at = time.monotonic()
        findings = check(on_stage.application, on_stage.offline)
        ended_at = time.monotonic()
        return Report(
            events=options.events,
            rate=rate,
            delivery=options.delivery,
            seed=options.seed,
            seconds=round(ended_at - began_at, 1),
            check_seconds=round(ended_at - check_began_at, 1),
            struck=_struck(director, on_stage.arrivals),
            findings=findings,
            versions=versions(folder / "kafka" / "lib"),
        )


def _struck(director: Director, arrivals: Arrivals) -> Struck:
    kills, zombies, brokers = (
        [blow for blow in director.blows if blow.kind == kind] for kind in ("kill", "freeze", "kill_broker")
    )
    return Struck(
        kills=len(kills),
        kills_mid_transaction=sum(blow.inside_transaction(arrivals) for blow in kills),
        kills_idle=sum(blow.uncommitted == 0 for blow in kills),
        zombie_rounds=len(zombies),
        zombie_exits=director.zombie_exits,
        zombie_step_backs=director.step_backs,
        zombies_mid_transaction=sum(blow.inside_transaction(arrivals) for blow in zombies),
        broker_kills=len(brokers),
        fenced=director.crew.fenced,
        recovery_s=[blow.recovery_s for blow in kills],
        zombie_recovery_s=[blow.recovery_s for blow in zombies],
        broker_recovery_s=[blow.recovery_s for blow in brokers],
    )

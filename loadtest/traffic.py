"""The stream itself: time cut into slabs, each drawn from a random generator of its own.

    slab k            slab k+1          slab k+2
    |--base--base-----|--base-----------|---
       \\ attack, burst events, duplicates reach into later slabs: they wait in `pending`

What a slab begins depends on the settings and its number alone, so the stream is the same however it is cut
into chunks.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np

from loadtest.attacks import KINDS, Purchases, Stream, book, stage_attack
from loadtest.columns import Bool, Float64, Int64, Traffic, join
from loadtest.poison import KINDS as POISON_KINDS
from loadtest.population import (
    CATEGORY_POS_SHARE,
    CATEGORY_SIGMA,
    IP_STORES,
    STORE_TERMINALS,
    USUAL_SHARES,
    Population,
    device_id,
    ip_number,
    populate,
)
from loadtest.settings import DAY_S, TrafficSettings

SLAB_EVENTS = 8_192
SLAB_S_MAX = 600.0
BURST_EVENTS_MAX = 4
# The number of the card, or merchant, that has the hot share.
HOT = 0


def generate(settings: TrafficSettings, events: int) -> Traffic:
    """The first `events` records of the stream (poison and duplicates count)."""
    return next(chunks(settings, events))


def chunks(settings: TrafficSettings, chunk_events: int) -> Iterator[Traffic]:
    """The endless stream in pieces of exactly `chunk_events` records."""
    if chunk_events < 1:
        raise ValueError(f"chunk_events: {chunk_events} must be at least 1")
    held: list[Traffic] = []
    held_events = 0
    for slab in _slabs(settings):
        held.append(slab)
        held_events += len(slab)
        if held_events < chunk_events:
            continue
        joined = join(held)
        whole = held_events - held_events % chunk_events
        for first in range(0, whole, chunk_events):
            yield joined.take(slice(first, first + chunk_events))
        held, held_events = [joined.take(slice(whole, None))], held_events - whole


def _slabs(settings: TrafficSettings) -> Iterator[Traffic]:
    stream = Stream(settings, populate(settings), settings.run)
    slab_ms = min(SLAB_EVENTS / settings.events_per_second, SLAB_S_MAX) * 1_000
    pending: list[Traffic] = []
    numbered = attacks = 0
    for slab in count():
        rng = np.random.default_rng((settings.seed, 1, slab))
        bounds_ms = np.rint(settings.start_time_ms + slab_ms * np.array([slab, slab + 1])).astype(np.int64)
        base = _base(rng, stream, bounds_ms)
        staged = _attacks(rng, stream, bounds_ms, attacks)
        attacks += len(staged)
        waiting = join([*pending, base, _bursts(rng, stream, base), *staged])
        due = np.flatnonzero(waiting.send_times_ms < bounds_ms[1])
        later = waiting.take(waiting.send_times_ms >= bounds_ms[1])
        ready = waiting.take(due[np.argsort(waiting.send_times_ms[due], kind="stable")])
        numbered = _number(ready, numbered)
        pending = [later, _duplicates(rng, settings, ready, bounds_ms[1])]
        yield ready


def _base(rng: np.random.Generator, stream: Stream, bounds_ms: Int64) -> Traffic:
    """Honest purchases, a Poisson process over one slab; some of them late, some poison."""
    settings, population = stream.settings, stream.population
    bursts = 1 + settings.burst_probability * BURST_EVENTS_MAX / 2
    honest = (1 - settings.attack_share) * (1 - settings.duplicate_share) / bursts
    n = int(rng.poisson(settings.events_per_second * honest * _weighted_seconds(settings, bounds_ms)))
    times_ms = np.sort(rng.uniform(bounds_ms[0], bounds_ms[1], n)).astype(np.int64)
    cards = np.searchsorted(population.card_cumulative, rng.random(n))
    merchants = np.searchsorted(population.merchant_cumulative, rng.random(n))
    for numbers, share in ((cards, settings.hot_card_share), (merchants, settings.hot_merchant_share)):
        if share:  # nothing is drawn for streams that have none, so that they stay as they are
            numbers[rng.random(n) < share] = HOT
    pos = rng.random(n) < CATEGORY_POS_SHARE[population.merchant_categories[merchants]]
    devices, ips = _usual_or_terminal(rng, population, cards, merchants, pos)
    amounts_minor = _risen(settings, times_ms, _amounts_minor(rng, population, merchants))
    traffic = book(rng, stream, Purchases(times_ms, cards, merchants, devices, ips, amounts_minor), pos)
    late = rng.random(n) < settings.late_share
    traffic.times_ms[late] -= rng.exponential(settings.late_mean_s * 1_000, int(late.sum())).astype(np.int64)
    poison = rng.random(n) < settings.poison_share
    traffic.poison_kinds[poison] = rng.integers(0, len(POISON_KINDS), int(poison.sum()), np.int8)
    return traffic


def _weighted_seconds(settings: TrafficSettings, bounds_ms: Int64) -> float:
    """Seconds of the slab, weighted by the hour of the day: most at 16:00 UTC, least at 04:00."""
    seconds = float(bounds_ms[1] - bounds_ms[0]) / 1_000
    hour_angle = 2 * np.pi * ((bounds_ms.mean() / 1_000 / DAY_S) % 1.0 - 16 / 24)
    return seconds * float(1 + settings.diurnal_amplitude * np.cos(hour_angle))


def _usual_or_terminal(
    rng: np.random.Generator, population: Population, cards: Int64, merchants: Int64, pos: Bool
) -> tuple[Int64, Int64]:
    """Device and address of each purchase: online the card's own, else the merchant's terminal and store."""
    slot = np.searchsorted(USUAL_SHARES[:-1], rng.random(len(cards)))
    terminal = (rng.random(len(cards)) * population.merchant_terminals[merchants]).astype(np.int64)
    terminal += population.merchant_first_terminal[merchants]
    devices = np.where(pos, device_id(terminal), population.card_devices[cards, slot])
    stores = ip_number(IP_STORES + terminal // STORE_TERMINALS % IP_STORES)
    return devices, np.where(pos, stores, population.card_ips[cards, slot]).astype(np.int64)


def _amounts_minor(rng: np.random.Generator, population: Population, merchants: Int64) -> Int64:
    """Lognormal about the merchant's usual amount, as wide as its category."""
    sigmas = CATEGORY_SIGMA[population.merchant_categories[merchants]]
    logs: Float64 = population.merchant_log_amounts[merchants] + sigmas * rng.normal(size=len(merchants))
    amounts_minor: Int64 = np.maximum(np.exp(logs) * 100, 1).astype(np.int64)
    return amounts_minor


def _risen(settings: TrafficSettings, times_ms: Int64, amounts_minor: Int64) -> Int64:
    """The amounts after prices have risen, where they have."""
    if settings.shift_after_s is None:
        return amounts_minor
    risen = times_ms >= settings.start_time_ms + settings.shift_after_s * 1_000
    factors = np.where(risen, settings.shift_amount_factor, 1.0)
    after: Int64 = np.rint(amounts_minor * factors).astype(np.int64)
    return after


def _bursts(rng: np.random.Generator, stream: Stream, base: Traffic) -> Traffic:
    """Honest repetition, which is not fraud: a second ticket, a retry, the next shop online."""
    settings, population = stream.settings, stream.population
    firsts = np.flatnonzero((rng.random(len(base)) < settings.burst_probability) & (base.poison_kinds < 0))
    sizes = rng.integers(1, BURST_EVENTS_MAX, len(firsts))
    again = base.take(np.repeat(firsts, sizes))
    n = len(again)
    steps = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    again.send_times_ms += (steps * rng.exponential(settings.burst_gap_s * 1_000, n)).astype(np.int64) + 1
    again.times_ms = again.send_times_ms.copy()
    elsewhere = (rng.random(n) < 0.5) & (again.channels == 0)
    merchants = np.where(elsewhere, np.searchsorted(population.merchant_cumulative, rng.random(n)), again.merchants)
    again.merchants = merchants.astype(np.int32)
    again.categories = population.merchant_categories[merchants]
    fresh = _risen(settings, again.times_ms, _amounts_minor(rng, population, merchants))
    again.amounts_minor = np.where(elsewhere | (rng.random(n) < 0.5), np.maximum(fresh, 1), again.amounts_minor)
    return again


def _attacks(rng: np.random.Generator, stream: Stream, bounds_ms: Int64, first_id: int) -> list[Traffic]:
    """All attacks that begin within the slab."""
    events = stream.settings.events_per_second * float(bounds_ms[1] - bounds_ms[0]) / 1_000
    staged: list[Traffic] = []
    for kind in KINDS:
        starts = int(rng.poisson(events * kind.share(stream.settings) / kind.mean_events))
        for start_ms in rng.integers(bounds_ms[0], bounds_ms[1], starts).tolist():
            staged.append(stage_attack(rng, stream, kind, start_ms, first_id + len(staged)))
    return staged


def _number(ready: Traffic, numbered: int) -> int:
    """Numbers the new records, in sending order, after the `numbered` before them; returns the new total."""
    new = ~ready.duplicates
    total = numbered + int(new.sum())
    ready.numbers[new] = np.arange(numbered, total)
    return total


def _duplicates(rng: np.random.Generator, settings: TrafficSettings, ready: Traffic, not_before_ms: int) -> Traffic:
    """Repetitions, in later slabs, of records just sent."""
    chosen = (rng.random(len(ready)) < settings.duplicate_share) & ~ready.duplicates & (ready.poison_kinds < 0)
    again = ready.take(np.flatnonzero(chosen))
    delays_ms = rng.exponential(settings.duplicate_mean_s * 1_000, len(again)).astype(np.int64)
    again.send_times_ms = np.maximum(again.send_times_ms + delays_ms, not_before_ms)
    again.duplicates[:] = True
    return again

"""A canary: another model decides for a share of the entities, the same ones as long as it stands.

entity     hash of its key, mixed with the version     decides
4000...    |=====|..........................          below share * 2^64: the canary
4917...    |................=====...........          not: the champion

A larger share holds all entities of a smaller one. Another version has other entities, so that no customer is always
who new models are tried on.
"""

from dataclasses import dataclass

import numpy as np

from engine.events import Batch, Bool, UInt64
from engine.serving import Serving

# splitmix64: https://prng.di.unimi.it/splitmix64.c
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST = np.uint64(31)
_WORDS = 2.0**64


@dataclass(frozen=True, slots=True)
class Canary:
    """`share`, between 0 and 1, of the entities whose key is in `column` of a batch's words."""

    serving: Serving
    share: float
    column: int

    def rows(self, batch: Batch) -> Bool:
        """Which of n events it decides: bool[n]. None of those whose entity is not known."""
        keys = batch.words[:, self.column]
        below = np.uint64(self.share * _WORDS)
        chosen: Bool = (mixed(keys, self.serving.model.version) < below) & (keys != 0)
        return chosen


def mixed(keys: UInt64, version: int) -> UInt64:
    """Spreads keys evenly, in another way for each version."""
    with np.errstate(over="ignore"):
        words = keys + _STEP * np.uint64(version)
        for shift, factor in _MIX:
            words = (words ^ (words >> shift)) * factor
    return words ^ (words >> _LAST)

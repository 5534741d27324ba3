"""The state against the oracle: disorder, ties, duplicates, overflow, forgetting, restarts, in any mixture.

`scripts/prove-features` tries the same properties on a hundred thousand examples.
"""

import os
import random

import pytest

from tests.oracle.compare import Tally
from tests.property.properties import PROPERTIES

EXAMPLES = int(os.environ.get("TIDEGATE_PROPERTY_EXAMPLES", "1000"))


@pytest.mark.parametrize("name", PROPERTIES)
def test_property_holds(name: str) -> None:
    found, start = Tally(), random.SystemRandom().randrange(2**32)
    print(f"scripts/prove-features --only {name} --examples {EXAMPLES} --start {start}")
    PROPERTIES[name].try_out(EXAMPLES, start, found)
    assert found.examples >= EXAMPLES
    # Without these the property would hold of nothing.
    for what in ("exact", *PROPERTIES[name].needs):
        assert getattr(found, what) > EXAMPLES // 10, (what, found)

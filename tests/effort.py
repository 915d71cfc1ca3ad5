"""How long laws are searched for a counterexample: whoever needs another number than most says it here.

`make test` searches in full, and so does pytest by itself; `make unit`, run again and again, takes an eighth of that.
"""

from hypothesis import settings

FULL = 100
"""Examples of a law that says nothing."""

QUICK = FULL // 8


def examples(count: int, **others: int) -> settings:
    """Return the settings of a law.

    Args:
        count: of examples, in a full search.
        others: further settings of Hypothesis.
    """
    return settings(max_examples=count * settings().max_examples // FULL, **others)

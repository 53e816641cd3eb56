"""What the checks in a lab's notebook call. They give a hint for a wrong answer that is known, and never the right one."""

from __future__ import annotations

import math
from typing import Any, Mapping


def number(value: Any) -> float:
    """A finite float, also of a NumPy scalar or an array of one number; AssertionError says what else came."""
    assert value is not None and value is not ..., "there is no answer yet"
    assert not isinstance(value, (bool, str)), f"a number is asked for, not {value!r}"
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise AssertionError(f"a number is asked for, not a {type(value).__name__}") from None
    assert math.isfinite(found), f"a finite number is asked for, not {found}"
    return found


def near(value: Any, target: float, percent: float = 1.0) -> bool:
    """Whether a number lies within so many per cent of the target, which is not zero."""
    return abs(number(value) - target) <= abs(target) * percent / 100


def mistaken(value: Any, mistakes: Mapping[str, float], percent: float = 1.0) -> None:
    """AssertionError with the hint whose wrong answer lies within so many per cent of the value; hints are tried in order."""
    for hint, wrong in mistakes.items():
        assert not near(value, wrong, percent), hint

"""What a student says of runs that nobody could afford, and how many points that is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple

from .trainings import Refusal, number

LOSSES = ("best", "oversized", "dearest")
CONFIDENCE = 0.95
LARGEST_LOSS = 100.0         # nats
REGRET, ERROR, SCORE = 0.05, 0.10, 0.40  # of the loss: where the points for size, value and interval reach zero
POINTS = {"size": 30, "best": 25, "best interval": 15, "oversized": 10, "oversized interval": 5, "dearest": 10, "dearest interval": 5}


class Guess(NamedTuple):
    """A loss in nats and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """params: N of the best model for the target's FLOPs. best: the loss that the best real run of these FLOPs reached;
    oversized, dearest: the losses of the two named runs (challenge.py)."""

    params: float
    best: Guess
    oversized: Guess
    dearest: Guess

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Forecast:
        """A checked forecast: {"params": N, "best": [value, low, high], ...}. Refusal where it is none."""
        if not isinstance(given, Mapping) or set(given) != {"params", *LOSSES}:
            raise Refusal(f"a forecast consists of params, {', '.join(LOSSES)}, and nothing else")
        return cls(number("params", given["params"]), *(_guess(name, given[name]) for name in LOSSES))

    def to_dict(self) -> dict[str, Any]:
        return {"params": self.params, **{name: list(getattr(self, name)) for name in LOSSES}}


@dataclass(frozen=True)
class Score:
    """Points of each part, out of POINTS. regret: of the size, a share of the loss; errors: of each value, a share of the truth;
    held: whether each interval holds the truth."""

    parts: dict[str, float]
    regret: float
    errors: dict[str, float]
    held: dict[str, bool]

    @property
    def points(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        rows = [f"size: {100 * self.regret:.2f} % above the best size's loss, {self.parts['size']:.1f} of {POINTS['size']} points"]
        rows += [f"{name}: off by {100 * self.errors[name]:+.2f} %, {self.parts[name]:.1f} of {POINTS[name]}; interval "
                 f"{'holds' if self.held[name] else 'misses'} it, {self.parts[f'{name} interval']:.1f} of {POINTS[f'{name} interval']}" for name in LOSSES]
        return "\n".join([*rows, f"{self.points:.1f} of {sum(POINTS.values())} points"])


def score(forecast: Forecast | Mapping[str, Any], truth=None) -> Score:
    """Points for a forecast. truth: what came (challenge.Truth), else that of the kit's ladder.

    size: by what the choice costs, the loss above the best size's on the parabola through runs of the target's FLOPs; all
    points at the best, none from REGRET on. A value: by its distance from the measured loss, none from ERROR on. An interval:
    by the interval score (Gneiting & Raftery 2007, eq. 43) of log loss, the width plus 2/0.05 times what it misses by, which
    is best for those who say what they believe; none from SCORE on. In between points fall in a straight line.
    """
    if truth is None:
        from .challenge import ladder
        truth = ladder().truth
    forecast = forecast if isinstance(forecast, Forecast) else Forecast.of(forecast)
    regret = truth.regret(forecast.params)
    shares, errors, held = {"size": _share(regret, REGRET)}, {}, {}
    for name in LOSSES:
        guess, measured = getattr(forecast, name), truth.losses[name]
        errors[name] = guess.value / measured - 1
        held[name] = guess.low <= measured <= guess.high
        shares[name], shares[f"{name} interval"] = _share(abs(errors[name]), ERROR), _share(interval_score(guess, measured), SCORE)
    return Score({name: POINTS[name] * share for name, share in shares.items()}, regret, errors, held)


def interval_score(guess: Guess, measured: float) -> float:
    """Of the interval in log loss, lower is better: its width, and 2 / (1 - CONFIDENCE) times the distance to what it misses."""
    low, high, at = math.log(guess.low), math.log(guess.high), math.log(measured)
    return high - low + 2 / (1 - CONFIDENCE) * (max(low - at, 0.0) + max(at - high, 0.0))


def _share(badness: float, zero: float) -> float:
    return max(0.0, 1 - badness / zero)


def _guess(name: str, given: Any) -> Guess:
    try:
        value, low, high = given
    except (TypeError, ValueError):
        raise Refusal(f"{name} must be three numbers: a loss and the ends of its 95 % interval") from None
    guess = Guess(*(number(name, v, LARGEST_LOSS) for v in (value, low, high)))
    if not guess.low <= guess.value <= guess.high:
        raise Refusal(f"{name} must be a loss, a lower end and an upper end, in this order, with the loss between the ends")
    return guess

"""What simple strategies score in the capstone: random trainings, one size, everything on one large model, two ladders.

    python benchmarks/capstone_strategies.py [--students 20]

Each strategy is played by so many students, who differ in the luck of their seeds (and, at random, in what they buy). Each
spends the account through the same service as a student, looks at nothing else, and foretells in the way its runs allow:

    random         sizes and lengths at random while there is money; Kaplan's L(N, D), fitted to all of it
    one size       width 24 at every length; a power law of D for the loss, and the same size for the target
    one large      everything on one training; published exponents carry it to the target
    ladder         four sizes of equal compute, as dear as the account allows; the minimum of their parabola, and published
                   exponents carry it to the target
    own slope      two such ladders, one cheaper than the other; the exponents between their minima carry the upper one on

Published exponents: of the loss, Kaplan's 0.050; of the best size, the mean of Kaplan's and Hoffmann's.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import zlib
from typing import Callable

import numpy as np

from minitransformer import papers
from minitransformer.capstone import Score, Service, score
from minitransformer.capstone.forecast import LOSSES, POINTS
from minitransformer.errors import UserError
from minitransformer.laws.fit import fit
from minitransformer.laws.plan import allocate

ALPHA_C = papers.value("kaplan2020.alpha_C_min")
GROWTH = (papers.value("kaplan2020.optimum.N_exponent") + papers.value("hoffmann2022.isoflop.a")) / 2
PERCENT = 8  # half the interval of who has no other: two such errors are all points of a value


def spread(value: float, half: float) -> tuple[float, float, float]:
    """A guess whose interval is so many per cent wide to either side."""
    return value, value * (1 - half / 100), value * (1 + half / 100)


def places(service: Service) -> dict[str, tuple[float, float]]:
    """N and D of the two named trainings."""
    return {name: (t.params, service.terms.recipe.tokens(t)) for name, t in (("oversized", service.terms.oversized), ("dearest", service.terms.dearest))}


# --- strategies: spend, then foretell -----------------------------------------------------------------------------


def at_random(service: Service, luck: random.Random) -> dict:
    misses = 0
    while misses < 20:
        try:
            service.train(width=round(math.exp(luck.uniform(math.log(6), math.log(96)))), steps=round(math.exp(luck.uniform(math.log(500), math.log(16000)))))
        except UserError:
            misses += 1
    runs = service.table()
    law = fit("kaplan-nd", runs.loss, N=runs.N, D=runs.D, resamples=200)
    if not law.ok:
        return by_compute(service, float(runs.loss.min()), float(runs.C[runs.loss.idxmin()]), float(runs.N[runs.loss.idxmin()]))
    best = allocate(law, service.terms.target)
    guesses = {name: law.predict(N=N, D=D) for name, (N, D) in places(service).items()}
    return {"params": best.N, "best": tidy(best.loss, best.low, best.high), **{name: tidy(*guess) for name, guess in guesses.items()}}


def one_size(service: Service, luck: random.Random) -> dict:
    for steps in (500, 700, 1000, 1400, 2000, 2800):
        try:
            service.train(width=24, steps=steps)
        except UserError:
            break
    runs = service.table()
    law, N = fit("power", runs.loss, D=runs.D), float(runs.N.iloc[0])
    D = {"best": service.terms.target / 6 / N, **{name: D for name, (_, D) in places(service).items()}}
    return {"params": N, **{name: tidy(*law.predict(D[name])) for name in LOSSES}}


def one_large(service: Service, luck: random.Random) -> dict:
    answer = service.train(width=48, flops=service.account.left)
    return by_compute(service, answer.loss, answer.C, answer.N)


def slice_of(service: Service, C: float, widths: tuple[int, ...]) -> tuple[float, float, float]:
    """C, and N and loss at the minimum of a parabola through these sizes, each trained with C FLOPs; inside the sizes."""
    answers = [service.train(width=width, flops=C) for width in widths]
    curve = np.polynomial.Polynomial.fit(np.log([a.N for a in answers]), np.log([a.loss for a in answers]), 2)
    log_N = float(np.clip(curve.deriv().roots()[0].real, math.log(answers[0].N), math.log(answers[-1].N)))
    return C, math.exp(log_N), math.exp(curve(log_N))


def ladder(service: Service, luck: random.Random) -> dict:
    C, N, loss = slice_of(service, service.account.left / 4, (16, 20, 24, 32))
    return by_compute(service, loss, C, N)


def own_slope(service: Service, luck: random.Random) -> dict:
    C0, N0, L0 = slice_of(service, 0.045 * service.account.budget, (10, 12, 16, 20))
    C1, N1, L1 = slice_of(service, 0.2 * service.account.budget, (16, 20, 24, 32))
    return by_compute(service, L1, C1, N1, math.log(L0 / L1) / math.log(C1 / C0), math.log(N1 / N0) / math.log(C1 / C0))


def by_compute(service: Service, loss: float, C: float, N: float, alpha: float = ALPHA_C, growth: float = GROWTH) -> dict:
    """Everything from powers of C, from one point of the frontier on. A model larger than the best gets a little more loss."""
    at = lambda budget: loss * (C / budget) ** alpha
    target, terms = service.terms.target, service.terms
    dearest = terms.recipe.flops(terms.dearest)
    return {"params": N * (target / C) ** growth, "best": spread(at(target), PERCENT), "oversized": spread(1.05 * at(target), PERCENT),
            "dearest": spread(at(dearest), PERCENT)}


def tidy(value, low, high) -> tuple[float, float, float]:
    """A prediction as a guess; one without an interval, or a senseless one, claims no precision."""
    if low is None or not 0 < low <= value <= high < 100:
        return spread(min(max(value, 0.01), 50.0), 20)
    return value, low, high


STRATEGIES: dict[str, Callable] = {"random": at_random, "one size": one_size, "one large": one_large, "ladder": ladder, "own slope": own_slope}


def play(name: str, student: int) -> tuple[Score, float, int]:
    """A student's score, the share of the account spent, and trainings bought."""
    service = Service.local(f"{name} {student}")
    mark = score(STRATEGIES[name](service, random.Random(zlib.crc32(f"{name} {student}".encode()))))
    return mark, service.account.spent / service.account.budget, service.account.answers


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--students", type=int, default=20)
    students = options.parse_args().students
    print(f"{students} students each; points: mean (standard deviation)")
    print(f"{'strategy':10} {'of ' + str(sum(POINTS.values())):>12} {'size':>6} {'losses':>7} {'intervals':>9} {'best off by':>12} {'held':>5} {'runs':>5} {'spent':>6}")
    for name in STRATEGIES:
        played = [play(name, student) for student in range(students)]
        marks = [mark for mark, _, _ in played]
        points = [mark.points for mark in marks]
        part = lambda keys: np.mean([sum(mark.parts[key] for key in keys) for mark in marks])
        held = np.mean([list(mark.held.values()) for mark in marks])
        print(f"{name:10} {np.mean(points):5.1f} ({np.std(points):4.1f}) {part(['size']):6.1f} {part(LOSSES):7.1f} "
              f"{part([f'{loss} interval' for loss in LOSSES]):9.1f} {100 * np.mean([mark.errors['best'] for mark in marks]):+10.1f} % {held:5.0%} "
              f"{np.mean([runs for *_, runs in played]):5.1f} {np.mean([share for _, share, _ in played]):6.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How often do the 95 % intervals of each form hold the truth?

    python benchmarks/coverage_forms.py [--sweeps 500] [--only chinchilla ...] [--workers 2]

Simulates sweeps whose law is known and fits each one with the defaults of laws.fit (Huber, 1,000 resamples). Log losses
get noise of their own for every run (0.5 %, "seeds") and noise that all seeds of one point share (0.3 %: the point lies
off the law). Kinds: three seeds and normal noise; one seed; heavy tails (Student's t with 4 degrees of freedom); for
forms with a floor, a floor that the data do not reach. A row prints, in per cent, how often each parameter's interval
held the truth among the sweeps in which it was identified, the share where it was not (if any, after a slash), the
hold-out interval, and the interval predicted for one run ten times dearer than any fitted.

With 500 sweeps a percentage near 95 is good to about 2 either way. Straight lines have a table of their own: coverage.py.
"""

import argparse

import numpy as np
from joblib import Parallel, delayed

from minitransformer.laws import fit, form

N, D = np.geomspace(1.5e3, 1e5, 6), np.geomspace(2.5e5, 4e6, 5)
LAWS = {
    "power": ({"alpha_N": 0.09, "N_c": 1e8}, {"N": np.geomspace(1.5e3, 1e5, 6)}),
    "b-crit": ({"alpha_B": 0.21, "B_star": 2e8}, {"L": np.geomspace(1.5, 3, 7)}),
    "power-floor": ({"E": 1.2, "A": 15.0, "alpha_N": 0.35}, {"N": np.geomspace(1e3, 1e6, 9)}),
    "regions": ({"E": 1.0, "G": 3.0, "D_0": 3e3, "alpha_D": 0.5}, {"D": np.geomspace(1e2, 1e7, 16)}),
    "kaplan-nd": ({"alpha_N": 0.09, "alpha_D": 0.12, "N_c": 1e8, "D_c": 1e9}, {"N": N, "D": np.geomspace(1e4, 4e6, 6)}),
    "kaplan-ns": ({"alpha_N": 0.09, "alpha_S": 0.7, "N_c": 1e8, "S_c": 200.0}, {"N": N, "S": np.geomspace(250, 8e3, 6)}),
    "chinchilla": ({"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.33}, {"N": N, "D": D}),
    "data-constrained": (
        {"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.33, "R_star_D": 15.0, "R_star_N": 5.0},
        {"N": np.geomspace(1e4, 1e6, 5), "U": np.geomspace(1e5, 1e6, 3), "epochs": np.array([1.0, 3, 10, 40])},
    ),
}
KINDS = {"3 seeds": (3, "normal"), "1 seed": (1, "normal"), "heavy": (3, "heavy"), "low floor": (3, "normal")}
SEEDS, SCATTER = 0.005, 0.003


def noise(random, size, kind):
    return random.standard_normal(size) if kind == "normal" else random.standard_t(4, size) / np.sqrt(2)


def one(name, kind, sweep):
    """Which intervals held: {column: True, False, or None where there was no interval}."""
    values, axes = LAWS[name]
    if kind == "low floor":
        values = {**values, "E": 0.3}
    seeds, shape = KINDS[kind]
    grid = dict(zip(axes, (a.ravel() for a in np.meshgrid(*axes.values(), indexing="ij"))))
    if "epochs" in grid:
        grid["D"] = grid["U"] * grid.pop("epochs")
    made = form(name, next(iter(axes)))
    random = np.random.default_rng([20, sweep, len(name), list(KINDS).index(kind)])
    points = len(grid[made.x])
    off = SCATTER * noise(random, points, shape)
    columns = {x: np.repeat(grid[x], seeds) for x in made.inputs}
    log = np.repeat(off, seeds) + SEEDS * noise(random, points * seeds, shape)
    law = fit(made, made.loss(values, **columns) * np.exp(log), **columns)
    held = {p: None for p in values}
    if not law.ok:
        return {**held, "held out": None, "10 x": None}
    for p, value in values.items():
        e = law.parameters[p]
        held[p] = None if e.value is None else e.low <= value <= e.high
    held["held out"] = law.holdout.inside if law.holdout else None
    top = {x: v.max() * 10 ** (1 / min(len(columns), 2)) for x, v in columns.items()}
    new = SCATTER * noise(random, 1, shape)[0] + SEEDS * noise(random, 1, shape)[0]
    p = law.predict(**top)
    held["10 x"] = p.low <= made.loss(values, **top) * np.exp(new) <= p.high
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sweeps", type=int, default=500)
    parser.add_argument("--only", nargs="*", default=list(LAWS))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{options.sweeps} sweeps a row; per cent of intervals that held the truth (/ per cent of sweeps without one)")
    everything = []
    for name in options.only:
        for kind in KINDS:
            if kind == "low floor" and not form(name).floor:
                continue
            rows = Parallel(n_jobs=options.workers)(delayed(one)(name, kind, i) for i in range(options.sweeps))
            cells = []
            for column in rows[0]:
                found = [row[column] for row in rows if row[column] is not None]
                missing = 1 - len(found) / len(rows)
                share = 100 * np.mean(found) if found else float("nan")
                cells.append(f"{column} {share:.1f}" + (f"/{100 * missing:.0f}" if missing else ""))
                if found and kind != "low floor":
                    everything.append(share)
            print(f"{name:17s}{kind:10s}" + "  ".join(cells), flush=True)
    print(f"all rows but low floors: lowest {min(everything):.1f}, median {np.median(everything):.1f}, highest {max(everything):.1f}")


if __name__ == "__main__":
    main()

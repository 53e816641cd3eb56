"""One robust fit of Chinchilla's form, with its starts and its bootstrap: the kit against the usual way, side by side.

    python benchmarks/fit.py [--quick] [--table chinchilla.csv]

The task is that of Hoffmann et al. 2022 and Besiroglu et al. 2024: 240 runs, 4,500 starts (their grid), 4,000 bootstraps.
The usual way is a Python loop over scipy.optimize.minimize, L-BFGS-B from every start and BFGS for every bootstrap, with
gradients by finite differences; a third column gives it exact gradients. Without --table the 240 runs are simulated from
the published law at published sizes; with --quick the usual way does a part of the starts and bootstraps and is scaled up.
"""

import argparse
import itertools
import time

import numpy as np
from scipy.optimize import minimize as scipy_minimize

from minitransformer.laws import form, published
from minitransformer.laws.optimise import huber, minimise, starting_points
from minitransformer.laws.table import read_table

DELTA = 1e-3
STARTS, BOOTSTRAPS = 4500, 4000


def runs(path):
    if path:
        table = read_table(path).nsmallest(240, "loss")
        return table.N.to_numpy(float), table.D.to_numpy(float), table.loss.to_numpy(float)
    random = np.random.default_rng(0)
    N = np.exp(random.uniform(np.log(5e7), np.log(1.6e10), 240))
    D = np.exp(random.uniform(np.log(1e9), np.log(3e11), 240))
    return N, D, published("besiroglu").predict(N=N, D=D).value * np.exp(0.007 * random.standard_t(3, 240))


def grid(centre):
    """Hoffmann's starts, as theta for centred inputs: (4500, 5)."""
    axes = ([-1, -0.5, 0, 0.5, 1], range(0, 30, 5), range(0, 30, 5), [0, 0.5, 1, 1.5, 2], [0, 0.5, 1, 1.5, 2])
    theta = np.array(list(itertools.product(*axes)), float)
    raw = theta.copy()
    theta[:, 1:3] -= theta[:, 3:] * centre
    return raw, theta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table")
    options = parser.parse_args()
    N, D, loss = runs(options.table)
    law, y = form("chinchilla"), np.log(loss)
    x = np.log(np.stack([N, D]))
    centre = x.mean(1)
    z = x - centre[:, None]
    raw, starts = grid(centre)
    assert len(starts) == STARTS

    def objective(theta, y):
        return float(huber(law.evaluate(theta[None], x)[0][0] - y, DELTA))

    def gradient(theta, y):
        value, jacobian = law.evaluate(theta[None], x)
        return jacobian[0] @ np.clip(value[0] - y, -DELTA, DELTA)

    def clock(work):
        begin = time.perf_counter()
        result = work()
        return result, time.perf_counter() - begin

    random = np.random.default_rng(1)
    print("                        kit     scipy, finite differences   scipy, exact gradients")
    found, kit_starts = clock(lambda: minimise(law, z, y, starts, DELTA))
    best = found.theta[np.nanargmin(found.objective)]
    fitted = law.evaluate(best[None], z)[0][0]
    tables = fitted + (y - fitted)[random.integers(len(y), size=(BOOTSTRAPS, len(y)))]
    refits, kit_boots = clock(lambda: minimise(law, z, tables, np.repeat(best[None], BOOTSTRAPS, 0), DELTA))
    _, kit_own = clock(lambda: minimise(law, z, y, starting_points(law, z, y), DELTA))

    some = (45, 40) if options.quick else (STARTS, BOOTSTRAPS)
    picks = random.permutation(STARTS)[: some[0]]
    top = best.copy()
    top[1:3] += best[3:] * centre
    seconds, reached = {}, {}
    with np.errstate(all="ignore"):
        for jac in (None, gradient):
            few = some if jac is None else (some[0] // 10 or 1, some[1] // 10 or 1)
            if options.quick:
                few = some
            results, a = clock(lambda: [scipy_minimize(objective, raw[i], (y,), "L-BFGS-B", jac) for i in picks[: few[0]]])
            _, b = clock(lambda: [scipy_minimize(objective, top, (tables[i],), "BFGS", jac) for i in range(few[1])])
            seconds[jac] = a * STARTS / few[0], b * BOOTSTRAPS / few[1]
            reached[jac] = np.mean([r.fun < found.objective.min() * 1.0001 for r in results])
    for name, kit, index in (("4,500 starts", kit_starts, 0), ("4,000 bootstraps", kit_boots, 1)):
        print(f"{name:18s}{kit:8.2f} s{seconds[None][index]:20.0f} s{seconds[gradient][index]:26.0f} s")
    share = np.mean(found.objective < found.objective.min() * 1.0001)
    print(f"at the best minimum{100 * share:6.0f} %{100 * reached[None]:20.0f} %{100 * reached[gradient]:26.0f} %")
    print(f"objective {found.objective.min():.6e}; bootstraps converged {100 * refits.converged.mean():.1f} %; "
          f"the kit's own {len(starting_points(law, z, y))} starts take {kit_own:.3f} s")
    kit = kit_starts + kit_boots
    print(f"kit {kit:.1f} s; the usual way {sum(seconds[None]) / 60:.1f} minutes, {sum(seconds[None]) / kit:.0f} times as long; "
          f"with exact gradients {sum(seconds[gradient]) / kit:.0f} times" + (" (scaled up from a part)" if options.quick else ""))


if __name__ == "__main__":
    main()

"""How often do the 95 % intervals of a power-law fit hold the truth?

    python benchmarks/coverage.py [--ladders 1000]

Simulates ladders of models whose law is known (exponent 0.1 over two decades) and fits each one. Log losses get noise
of their own for every run ("seeds") and noise that all seeds of one size share ("fit": the size lies off the line).
A row prints, in per cent, how often an interval held the truth:

    alpha     the kit's interval for the exponent
    N_c       the kit's interval for the scale
    top       the kit's hold-out: the interval predicted for the largest size held its measured loss
    t         Student's t on the seed means
    pairs     percentile bootstrap over sizes, each taken with all its seeds
    seeds     percentile bootstrap over the seeds within each size

`width` is the kit's mean interval for the exponent over Student's; `luck` compares the narrowest twentieth.
With 1,000 ladders a percentage is good to about 1.4 either way.
"""

import argparse

import numpy as np
from scipy.stats import t as student

from minitransformer.laws import fit as fit_law

ALPHA, N_C = 0.1, 1e7
NOISE = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "skewed": lambda random, shape: random.standard_exponential(shape) - 1,
    "heavy": lambda random, shape: random.standard_t(4, shape) / np.sqrt(2),
}
CASES = (
    [(k, 3, s, f, "normal") for k in (5, 6, 7, 9) for s, f in ((0.003, 0), (0.01, 0), (0.003, 0.003), (0.01, 0.005), (0.003, 0.01))]
    + [(k, 1, 0.005, 0.005, "normal") for k in (5, 7, 9)]
    + [(5, n, 0.005, 0.003, "normal") for n in (2, 5)]
    + [(k, n, 0.005, 0.005, noise) for noise in ("skewed", "heavy") for k in (5, 9) for n in (1, 3)]
    + [(4, 3, 0.005, 0), (4, 3, 0.003, 0.01), (4, 1, 0.005, 0.005)]
)


def simulate(random, ladders, k, n, seeds, fit, noise):
    """x of shape (k,), log losses of shape (ladders, k, n)."""
    x = np.geomspace(1e3, 1e5, k)
    draw = NOISE[noise]
    line = ALPHA * (np.log(N_C) - np.log(x))[:, None]
    return x, line + fit * draw(random, (ladders, k, 1)) + seeds * draw(random, (ladders, k, n))


def slopes(z, means):
    d = z - z.mean(-1, keepdims=True)
    return (d * means).sum(-1) / np.maximum((d**2).sum(-1), 1e-9)


def percentile(random, z, y, over, resamples=400):
    """Share of ladders whose percentile interval holds the truth, resampling sizes or the seeds within them."""
    _, k, n = y.shape
    held = []
    for ladder in y:
        if over == "sizes":
            pick = random.integers(k, size=(resamples, k))
            draws = slopes(z[pick], ladder.mean(-1)[pick])
        else:
            pick = random.integers(n, size=(resamples, k, n))
            draws = slopes(z, ladder[np.arange(k)[:, None], pick].mean(-1))
        low, high = np.quantile(draws, [0.025, 0.975])
        held.append(low <= -ALPHA <= high)
    return np.mean(held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ladders", type=int, default=1000)
    ladders = parser.parse_args().ladders
    print("sizes seeds noise%  fit%  noise    alpha  N_c   top  width  luck |    t  pairs  seeds")
    for row, case in enumerate(CASES):
        k, n, seeds, fit, noise = (*case, "normal")[:5]
        random = np.random.default_rng([1, row])
        x, y = simulate(random, ladders, k, n, seeds, fit, noise)
        z = np.log(x)
        laws = [fit_law("power", np.exp(ladder.ravel()), N=np.repeat(x, n)) for ladder in y]
        exponents = [law.exponent for law in laws]
        width = np.array([e.high - e.low for e in exponents])
        t_width = 2 * student.ppf(0.975, k - 2) * np.array([np.sqrt(law.line.scatter / law.line.sxx) for law in laws])
        t_held = np.abs([e.value - ALPHA for e in exponents]) <= t_width / 2
        scales = [law.parameters["N_c"] for law in laws]
        columns = [
            np.mean([e.low <= ALPHA <= e.high for e in exponents]),
            np.mean([s.low <= N_C <= s.high for s in scales]),
            np.mean([law.holdout.inside for law in laws]) if k > 4 else np.nan,
        ]
        others = [np.mean(t_held), percentile(random, z, y, "sizes"), percentile(random, z, y, "seeds") if n > 1 else np.nan]
        show = lambda values: " ".join(f"{100 * v:5.1f}" if np.isfinite(v) else "    -" for v in values)
        print(
            f"{k:5d} {n:5d} {100 * seeds:6.1f} {100 * fit:5.1f}  {noise:8s}{show(columns)} {width.mean() / t_width.mean():6.2f} "
            f"{np.quantile(width, 0.05) / np.quantile(t_width, 0.05):5.2f} | {show(others)}",
            flush=True,
        )


if __name__ == "__main__":
    main()

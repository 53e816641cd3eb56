"""Does `minitransformer.laws.diagnose` tell the right stage and the right loss?

    python benchmarks/diagnose.py

Uses the committed runs. Every run of the spec `budgets` is diagnosed at a tenth, a half and the end of its training,
with the law fitted to smaller sizes only (the three smallest sizes, which leave too few, with the law of all) and
without a law. What is right comes from measurements that the diagnosis does not see:

    warming up      the run has not left its plateau, the flattest stretch of the same size's longest curve before step 1000
    near the floor  doubling the size lowered the measured final loss at least twice as much as doubling the steps did,
                    where the sweep has both (seed means, the size interpolated in logs)

Runs of the spec `learning_curve` have few tokens and are stopped early, so all are limited by data in the end.
"""

import numpy as np

from minitransformer.laws import fit
from minitransformer.laws.curves import RECENT
from minitransformer.laws.diagnose import DATA, FLOOR, POWER, WARMING, diagnose
from minitransformer.sweeps.store import reference_table


def curve(run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.array(run[f"curve_{name}"], float) for name in ("step", "val_loss", "train_loss"))


def laws_of_smaller(table) -> dict:
    """For each size the law of the smaller ones, and that of all where there are fewer than three."""
    sizes = sorted(table.N.unique())
    below = lambda i: table[table.N < sizes[i]] if i >= 3 else table
    return {N: fit("chinchilla", below(i).loss, N=below(i).N, D=below(i).D) for i, N in enumerate(sizes)}


def plateau_end(table, N) -> float:
    run = table[(table.N == N) & (table.steps == table.steps.max())].iloc[0]
    step, loss, _ = curve(run)
    slopes = np.diff(np.log(loss)) / np.diff(np.log(step))
    return step[1:][np.argmax(np.where(step[1:] < 1000, slopes, -np.inf))]


def near_floor(table, N, S) -> bool | None:
    mean = table.groupby(["N", "steps"]).loss.mean()
    sizes = np.array(sorted(table.N.unique()))
    if (N, 2 * S) not in mean.index or (N, S) not in mean.index or 2 * N > sizes[-1]:
        return None
    larger = np.interp(np.log(2 * N), np.log(sizes), [mean[n, S] for n in sizes])
    return bool(mean[N, S] - larger >= 2 * (mean[N, S] - mean[N, 2 * S]))


def stages() -> None:
    table = reference_table("budgets")
    laws, tokens = laws_of_smaller(table), table.batch_size.iloc[0] * table.n_ctx.iloc[0]
    ends = {N: plateau_end(table, N) for N in laws}
    print(f"{'':>12} {'told / right':30}" + "".join(f"{name:>12}" for name in ("with a law", "without")))
    for share in (0.1, 0.5, 1.0):
        counts = {}
        for _, run in table.iterrows():
            step, loss, train = curve(run)
            keep = step <= share * run.steps * (1 + 1e-9)
            if keep.sum() < 5:
                continue
            warming = step[keep][-1] <= ends[run.N]
            floor = near_floor(table, run.N, int(round(share * run.steps))) if share >= 0.5 else None
            right = WARMING if warming else {True: FLOOR, False: POWER, None: f"{POWER} or floor"}[floor]
            for column, law in enumerate((laws[run.N], None)):
                told = diagnose(step[keep], loss[keep], run.N, law=law, tokens_per_step=tokens, unique_tokens=run.unique_tokens,
                                train_loss=train[keep], planned_steps=run.steps, decayed=share == 1).stage
                counts.setdefault((told, right), [0, 0])[column] += 1
        for (told, right), (a, b) in sorted(counts.items(), key=lambda item: -item[1][0]):
            print(f"{share:>12.0%} {told + ' / ' + right:60}{a:>6}{b:>6}")


def losses() -> None:
    table = reference_table("budgets")
    laws, tokens = laws_of_smaller(table), table.batch_size.iloc[0] * table.n_ctx.iloc[0]
    held = table[table.N >= sorted(table.N.unique())[3]]
    error, inside, bought, above = [], [], [], []
    mean = table.groupby(["N", "steps"]).loss.mean()
    for _, run in held.iterrows():
        step, loss, train = curve(run)
        half = step <= run.steps / 2 * (1 + 1e-9)
        d = diagnose(step[half], loss[half], run.N, law=laws[run.N], tokens_per_step=tokens, planned_steps=run.steps)
        if d.expected_end is not None and d.expected_end.source == "law":
            error.append(np.log(d.expected_end.value / run.loss))
            inside.append(d.expected_end.low <= run.loss <= d.expected_end.high)
        if run.steps / 2 >= 500 and d.above_law is not None:
            above.append(d.above_law)
        if (run.N, 2 * run.steps) in mean.index:
            d = diagnose(step, loss, run.N, law=laws[run.N], tokens_per_step=tokens, decayed=True)
            gain = mean[run.N, run.steps] - mean[run.N, 2 * run.steps]
            bought.append(d.next_doubling is not None and d.next_doubling.low <= gain <= d.next_doubling.high)
    print(f"\nloss at the end, expected at half time by the law of smaller sizes: {len(error)} runs, error {100 * np.sqrt(np.mean(np.square(error))):.1f} % rms, "
          f"{100 * np.max(np.abs(error)):.1f} % at most; {100 * np.mean(inside):.0f} % inside the interval")
    print(f"what doubling the steps bought, inside the interval: {100 * np.mean(bought):.0f} % of {len(bought)}")
    print(f"loss at half time against that law, from step 500 on: {100 * np.min(above):+.1f} % to {100 * np.max(above):+.1f} %, median {100 * np.median(above):+.1f} %")
    wide = {}
    for _, run in table[table.steps >= 2000].iterrows():
        step, loss, _ = curve(run)
        for i in range(5, len(step)):
            if 2 * step[i - 1] > 0.7 * run.steps:
                break
            d = diagnose(step[:i], loss[:i], run.N, planned_steps=2 * step[i - 1])
            if d.expected_end is not None:
                true = np.exp(np.interp(np.log(2 * step[i - 1]), np.log(step), np.log(loss)))
                wide.setdefault(step[i - 1] <= RECENT * plateau_end(table, run.N), []).append(d.expected_end.low <= true <= d.expected_end.high)
    for early, found in wide.items():
        print(f"curve drawn on to twice the steps, without a law, {'within a factor of three of' if early else 'beyond'} the plateau: "
              f"{100 * np.mean(found):.0f} % of {len(found)} inside the interval")


def data() -> None:
    table, budgets = reference_table("learning_curve"), reference_table("budgets")
    law = fit("chinchilla", budgets.loss, N=budgets.N, D=budgets.D)
    print(f"\n{'unique':>8} {'told':>22} {'first at':>9} {'lowest at':>10} {'last':>6} {'bound 5.7':>10}   without the training loss")
    for _, run in table.iterrows():
        step, loss, train = curve(run)
        tokens = run.batch_size * run.n_ctx
        ask = lambda i, **more: diagnose(step[:i], loss[:i], run.N, law=law, tokens_per_step=tokens, **more)
        full = [ask(i, train_loss=train[:i], unique_tokens=run.unique_tokens) for i in range(1, len(step) + 1)]
        first = next((d.step for d in full if d.stage == DATA), np.nan)
        bound = full[-1].stop_bound
        print(f"{run.train_tokens:>8} {full[-1].stage:>22} {first:>9.0f} {step[np.argmin(loss)]:>10.0f} {step[-1]:>6.0f} "
              f"{'' if bound is None else round(bound):>10}   {ask(len(step), unique_tokens=run.unique_tokens).stage}; nor unique_tokens: {ask(len(step)).stage}")


if __name__ == "__main__":
    stages()
    losses()
    data()

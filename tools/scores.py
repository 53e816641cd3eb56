"""Trains the best fits of translation and speech again, has them answer, and writes minitransformer/reference/scores.json.

    python tools/scores.py [--spec translation] [--largest N] [--store DIR [--scale hours]] [--workers N] [--out FILE] [--dry-run]

For each training size of the specs `translation` and `speech`, of speech with attention and with CTC, it takes the best width as the
learning curve has it and that width's first seed. The runs come from the committed tables, or with --store from a store of runs, where
a size whose runs are not all finished waits. Each score is written when it is known; what is in the file is not done again, so stop it
when you like. The entry of a width that is no longer the best is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # a process each

from minitransformer.claims.curves import of_spec
from minitransformer.claims.definition import complete
from minitransformer.claims.domains import DOMAINS, VARIANTS, Domain
from minitransformer.claims.envelope import best_fits
from minitransformer.data.examples import load_examples
from minitransformer.errors import UserError
from minitransformer.files import cores, replacing
from minitransformer.sweeps.grid import load_spec
from minitransformer.sweeps.grouping import cost
from minitransformer.sweeps.spent import configs
from minitransformer.sweeps.store import RunStore, reference_table, run_table
from minitransformer.training.answers import answers, scores
from minitransformer.training.config import RunConfig
from minitransformer.training.weights import train_model

if TYPE_CHECKING:
    import pandas as pd

SCORES = Path(__file__).resolve().parent.parent / "minitransformer" / "reference" / "scores.json"
SPECS = ("translation", "speech")
SPLIT, MOST, SAMPLES = "test", 1000, 3


@dataclass(frozen=True)
class Chosen:
    """A best fit: its spec, its config, and the curves by which it was chosen, which a repetition must have too."""

    spec: str
    config: RunConfig
    curve: dict[str, list[float]]

    @property
    def place(self) -> tuple[str, str, str, int]:
        """What there is one best fit of."""
        return self.spec, self.config.corpus, self.config.arch, self.config.train_tokens

    @property
    def title(self) -> str:
        return f"{self.config.id}  {self.spec}, {self.config.arch}, {self.config.train_tokens:,} examples, width {self.config.d_model}"


# --- which runs ---------------------------------------------------------------------------------------------------


def best(table: pd.DataFrame, domain: Domain) -> Iterator[Chosen]:
    """The first seed of the best fit for each training size of a domain, from a table of runs."""
    runs, errors = of_spec(complete(table), domain.spec), domain.errors(table)
    for fit in best_fits(errors).itertuples():
        first = errors[(errors.m == fit.m) & (errors.model == fit.model)].sort_values("seed").iloc[0]
        same = runs[(runs.arch == domain.arch) & (runs.unique_tokens == fit.m) & (runs.seed == first.seed)]
        same = same[(same[["n_layer", "d_model"]] == [fit.n_layer, fit.d_model]).all(axis=1) & (same.curve_error.map(min) == first.error)]
        row = same.iloc[:1]
        config = replace(configs(row)[0], vocab_size=0)  # the table's is what the data made of it
        if config.id != row.id.item():
            raise UserError(f"the table's run {row.id.item()} has settings that this version does not know: use the version that trained it")
        yield Chosen(domain.spec, config, {name: list(row[f"curve_{name}"].item()) for name in ("step", "val_loss", "error")})


def from_store(spec: str, store: RunStore, scale: str) -> pd.DataFrame:
    """The finished runs of a spec's scale, but for the training sizes of which some are missing."""
    grid = load_spec(spec)
    wanted = grid.final(scale, store)
    runs = store.runs(wanted)
    missing = {*wanted, *grid.waiting(scale, store)} - {run.config for run in runs}  # and those whose rate is still sought
    waiting = {(config.arch, config.train_tokens) for config in missing}
    return run_table([run for run in runs if (run.config.arch, run.config.train_tokens) not in waiting], scale)


def choose(specs: tuple[str, ...], store: str | None = None, scale: str = "hours", largest: int | None = None) -> list[Chosen]:
    """The best fits of some specs, with training sizes of at most `largest`; the dearest first. Raises: UserError."""
    found: list[Chosen] = []
    for spec in specs:
        table = from_store(spec, RunStore(store), scale) if store else reference_table(spec)
        if table is None:
            raise UserError(f"the spec {spec} has no committed table of runs: name a store of runs with --store")
        if len(table):
            found += [one for domain in {**DOMAINS, **VARIANTS}.values() if domain.spec == spec for one in best(table, domain)]
    return sorted((one for one in found if largest is None or one.config.train_tokens <= largest), key=lambda one: -cost(one.config))


# --- their scores -------------------------------------------------------------------------------------------------


def scored(chosen: Chosen) -> dict[str, Any]:
    """Train a run again, to its lowest validation loss, and score what it answers: the entry of the file. Takes as long as the run did.

    error: on validation examples, of these weights, as on the run's curve; repeated: whether the curves are the very same.
    """
    config = chosen.config
    model, run = train_model(config)
    data = load_examples(config.corpus)
    found = answers(model, data, SPLIT, MOST)
    glue = {"translation": " ", "speech": ""}[data.domain]
    shown = [found[(2 * i + 1) * len(found) // (2 * SAMPLES)] for i in range(SAMPLES)]
    return {
        "spec": chosen.spec, "corpus": config.corpus, "arch": config.arch, "train_tokens": config.train_tokens, "d_model": config.d_model, "seed": config.seed,
        "step": run.best_step, "error": run.curve["error"][run.curve["step"].index(run.best_step)],
        "repeated": all(run.curve[name] == values for name, values in chosen.curve.items()),
        "split": SPLIT, "examples": len(found), **scores(found, data.domain),
        "samples": [{"row": one.row, "input": " ".join(one.input), "said": glue.join(one.said), "reference": glue.join(one.reference)} for one in shown],
    }


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of the file, by the ids of their runs."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(path: Path, chosen: Chosen, entry: dict[str, Any]) -> None:
    """Put an entry into the file, in the place of another width's."""
    place = lambda one: (one["spec"], one["corpus"], one["arch"], one["train_tokens"])
    entries = {run: kept for run, kept in read(path).items() if place(kept) != chosen.place} | {chosen.config.id: entry}
    ordered = dict(sorted(entries.items(), key=lambda item: place(item[1])))
    with replacing(path, "Free or unlock that folder.") as part:
        part.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def entries(missing: list[Chosen], workers: int) -> Iterator[tuple[Chosen, dict[str, Any] | UserError]]:
    """Each best fit with its entry, or with what was wrong, as they come. One worker is this process."""
    if workers == 1:
        for one in missing:
            try:
                yield one, scored(one)
            except UserError as problem:
                yield one, problem
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        under_way = {pool.submit(scored, one): one for one in missing}
        try:
            for done in as_completed(under_way):
                problem = done.exception()
                yield under_way[done], problem if isinstance(problem, UserError) else done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def line(entry: dict[str, Any]) -> str:
    known = [f"{name} {entry[name]:.4g}" for name in ("bleu", "chrf", "cer", "exact") if name in entry]
    return f"error {entry['error']:.4g}, {', '.join(known)}" + ("" if entry["repeated"] else " (not the same curve, bit by bit)")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Score the whole answers of the best fits of translation and speech.")
    parser.add_argument("--spec", choices=SPECS, help="only this one (default: both)")
    parser.add_argument("--largest", type=int, metavar="N", help="only training sizes of at most N examples")
    parser.add_argument("--store", help="choose from this store of runs, not from the committed tables")
    parser.add_argument("--scale", default="hours", help="of the store's runs (default: hours)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes of one thread (default: one a core)")
    parser.add_argument("--out", type=Path, default=SCORES, metavar="FILE", help="the file of scores (default: the committed one)")
    parser.add_argument("--dry-run", action="store_true", help="only say which runs would be trained again")
    given = parser.parse_args(arguments)
    failed = False
    try:
        chosen = choose((given.spec,) if given.spec else SPECS, given.store, given.scale, given.largest)
        there = read(given.out)
        missing = [one for one in chosen if one.config.id not in there]
        print(f"{len(chosen)} best fits, {len(chosen) - len(missing)} scored already", flush=True)
        if given.dry_run:
            for one in missing:
                print(one.title)
            return 0
        for one, entry in entries(missing, max(1, given.workers)):
            if isinstance(entry, UserError):
                print(f"{one.title}: {entry}", file=sys.stderr)
                failed = True
            else:
                write(given.out, one, entry)
                print(f"{one.title}: {line(entry)}", flush=True)
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Chapter I: the five domains of Hestness et al. 2017: which runs, which error, in which units, and the paper's exponents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .curves import of_spec
from .definition import complete

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["m", "N", "N_total", "model", "n_layer", "d_model", "optimiser", "seed", "error"]
SHAPE = ["n_layer", "d_model"]      # what makes a model of a domain another size
TUNED = ["lr", "batch_size", "steps", "warmup_steps"]


@dataclass(frozen=True)
class Domain:
    """A data set, a family of models and an error. column: `best_loss`, or a column of the curve whose lowest value counts.

    arch, optimiser, n_layer: which runs of the spec belong to it; "" and 0: whatever they have. beta_g, beta_p, paper: keys of
    the published exponents (None: not published) and the place in the paper.
    """

    id: str
    name: str
    spec: str
    arch: str
    data: str                   # what training sets are counted in
    error: str                  # the error, in words
    beta_g: str | None
    beta_p: str | None
    paper: str
    column: str = "best_loss"
    optimiser: str = ""
    n_layer: int = 0

    def errors(self, table: pd.DataFrame) -> pd.DataFrame:
        """One row a run: training-set size m, N and N_total (parameters), model (index of the size, small to large), its
        n_layer and d_model, optimiser, seed, and the lowest validation error.

        Trials are left out: of settings that differ in more than size and seed, those with the most seeds are kept, and of these the
        ones whose median is lowest. So are runs on a whole corpus, which end before they have seen it, and training sets on which
        the best model made no error at all with some seed: what is left there is less than the validation set can show, and has no
        logarithm.
        """
        import pandas as pd

        runs = of_spec(complete(table), self.spec)
        runs = runs[runs.train_tokens > 0]
        for name, wanted in (("arch", self.arch), ("optimiser", self.optimiser), ("n_layer", self.n_layer)):
            runs = runs[runs[name] == wanted] if wanted else runs
        error = runs.best_loss.astype(float) if self.column == "best_loss" else runs[self.column].map(np.min).astype(float)
        found = runs.assign(m=runs.unique_tokens.astype(float), error=error, N=runs.N.astype(float), N_total=runs.N_total.astype(float))
        found = found[np.isfinite(found.error)]
        if not len(found):
            return pd.DataFrame(columns=COLUMNS, dtype=float)
        cell, tuned = ["m", *SHAPE, "optimiser"], [name for name in TUNED if name in found]
        groups = found.groupby([*cell, *tuned]).error.agg(["size", "median"]).reset_index()
        chosen = groups.sort_values(["size", "median"], ascending=[False, True]).drop_duplicates(cell)
        found = found.merge(chosen[[*cell, *tuned]], on=[*cell, *tuned])
        found = _countable(found)
        sizes = found[["N_total", *SHAPE]].drop_duplicates().sort_values(["N_total", *SHAPE], ignore_index=True)
        found = found.merge(sizes[SHAPE].assign(model=np.arange(len(sizes))), on=SHAPE)
        return found[COLUMNS].sort_values(["m", "model", "optimiser", "seed"], ignore_index=True)


def _countable(runs: pd.DataFrame) -> pd.DataFrame:
    """Without training sets whose best model has a seed without error, and without other models that have one."""
    cells = runs.groupby(["m", *SHAPE, "optimiser"]).error.agg(["median", "min"]).reset_index()
    best = cells.sort_values(["median", "min"]).drop_duplicates("m")
    kept = cells[(cells["min"] > 0) & cells.m.isin(best.m[best["min"] > 0])]
    return runs.merge(kept[["m", *SHAPE, "optimiser"]], on=["m", *SHAPE, "optimiser"])


DOMAINS = {domain.id: domain for domain in (
    Domain("char_lm", "characters", "characters", "rhn", "characters", "nats per character", "hestness2017.char_lm_sgd.beta_g",
           "hestness2017.char_lm_sgd.beta_p", "Fig. 3", optimiser="sgd"),
    Domain("word_lm", "words", "words", "lstm", "words", "nats per word", "hestness2017.word_lm.beta_g",
           "hestness2017.word_lm.beta_p", "Fig. 2"),
    Domain("translation", "translation", "translation", "seq2seq", "sentence pairs", "share of tokens wrong",
           "hestness2017.translation.beta_g", None, "Fig. 1", "curve_error"),
    Domain("images", "images", "images", "resnet", "images", "share of first guesses wrong", "hestness2017.image.beta_g_top1",
           "hestness2017.image.beta_p", "Fig. 4", "curve_error"),
    Domain("speech", "speech", "speech", "seq2seq", "recordings", "share of characters wrong", "hestness2017.speech.beta_g", None,
           "Fig. 5", "curve_error"),
)}
VARIANTS = {domain.id: domain for domain in (
    replace(DOMAINS["char_lm"], id="char_lm_adam", name="characters, Adam", optimiser="adamw",
            beta_g="hestness2017.char_lm_adam.beta_g", beta_p="hestness2017.char_lm_adam.beta_p"),
    replace(DOMAINS["word_lm"], id="word_lm_2", name="words, 2 layers", n_layer=2, beta_p=None),
    replace(DOMAINS["word_lm"], id="word_lm_4", name="words, 4 layers", n_layer=4, beta_p="hestness2017.word_lm.beta_p_lstm4"),
    replace(DOMAINS["images"], id="images_top5", name="images, five guesses", column="curve_error5", beta_p=None,
            error="share of five guesses wrong", beta_g="hestness2017.image.beta_g_top5"),
    replace(DOMAINS["images"], id="images_loss", name="images, cross-entropy", column="best_loss", beta_p=None,
            error="nats per image", beta_g="hestness2017.image.beta_g_loss"),
    replace(DOMAINS["speech"], id="speech_ctc", name="speech, CTC", arch="ctc"),
    Domain("signals", "artificial signals", "signals", "resnet", "signals", "share of first guesses wrong", None, None, "Fig. 6",
           "curve_error"),
    Domain("transformer", "characters, Transformers", "overfitting", "transformer", "characters", "nats per character",
           None, None, ""),  # of the chapter on overfitting
)}


def domain(name: str) -> Domain:
    """A domain or a variant of one, by its id."""
    return {**DOMAINS, **VARIANTS}[name]

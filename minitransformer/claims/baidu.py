"""Chapter I: learning curves in five domains (Hestness et al. 2017)."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from .. import papers
from ..laws.fit import fit
from ..laws.law import Law
from .capacity import measure_bend, measure_capacity
from .definition import Definition, Measurement, complete, of_law
from .domains import DOMAINS, VARIANTS, Domain
from .envelope import LearningCurve, beta_g, learning_curve
from .growth import measure_growth, overlaps
from .optimisers import measure_optimisers, no_turn
from .regions import measure_regions
from .regression import triple
from .use import decides, measure_use

if TYPE_CHECKING:
    import pandas as pd

# Below, training sets are so small that a model learns little more than how often letters occur; above, the
# model of the laptop scale is limited by its own size. The notebook prints the local exponents.
POWER_LAW_REGION = (4096, 65536)
BESIDE = {"char_lm": ("char_lm_adam",), "word_lm": ("word_lm_2", "word_lm_4"),
          "images": ("images_top5", "images_loss"), "speech": ("speech_ctc",)}


def data_law(table: pd.DataFrame) -> Law:
    """L(D) of the tour's Transformer: early-stopped loss against unique training characters, in its power-law region."""
    runs = complete(table)
    return fit("power", runs.best_loss, D=runs.unique_tokens, seed=runs.seed, within=POWER_LAW_REGION)


def measure_power_law(domain: Domain, runs: pd.DataFrame) -> Measurement:
    """beta_g in the power-law region that `straight` finds, or of the power law that a curve without one bends into, and what belongs
    to it; hold-out: the worse of the two largest sizes."""
    curve = learning_curve(runs, domain)
    more = _about(curve)
    for name in BESIDE.get(domain.id, ()):
        other = learning_curve(runs, VARIANTS[name])
        if other.law.ok:
            more[f"beta_g_{name}"] = (papers.value(other.domain.beta_g) if other.domain.beta_g else None, *triple(other.beta_g))
            more[f"decades_{name}"] = (None, decades_of(other), None, None)
    if not curve.law.ok:
        return Measurement(None, refusal=curve.law.reason, more=more)
    return Measurement(*triple(curve.beta_g), curve.holdout_error, more=more, reason="" if curve.region else f"{ELSEWHERE} bends away "
                       "from a plateau into a power law: no stretch of it is straight for long enough to be read off by itself.")


def decades_of(curve: LearningCurve) -> float:
    """Decades of training-set sizes that the law goes through."""
    low, high = curve.law.range
    return math.log10(high / low)


def _about(curve: LearningCurve) -> dict[str, tuple]:
    """The region, what the two held-out sizes did, and the exponent over the whole curve."""
    more = {}
    if region := curve.region:
        more |= {"region_low": (None, region.low, None, None), "region_high": (None, region.high, None, None),
                 "decades": (None, region.decades, None, None), "sizes": (None, float(region.sizes), None, None),
                 "rms_percent": (None, curve.law.rms_percent, None, None)}
    elif curve.law.ok:
        more |= {name: (None, *triple(curve.law.parameters[key])) for name, key in (("small_data_ends", "D_0"), ("plateau", "G"))}
        more |= {"decades": (None, decades_of(curve), None, None), "sizes": (None, float(len(curve.best)), None, None),
                 "rms_percent": (None, curve.law.rms_percent, None, None)}
    for name, row in zip(("next_to_largest", "largest"), curve.foretold.itertuples()):
        more[f"holdout_percent_{name}"] = (None, row.error_percent, 100 * (row.low / row.measured - 1),
                                                   100 * (row.high / row.measured - 1))
    if curve.whole.ok:
        more["beta_g_whole_curve"] = (None, *triple(beta_g(curve.whole)))
    return more


ELSEWHERE = ("An exponent belongs to a data set, an error and a family of models, and these are others, and far smaller: "
             "it need not be the paper's. What compares is the form of the curve, and that")
STATEMENTS = {
    "char_lm": ("Loss of a recurrent highway network of depth 10 on characters falls as a power of training-set size", "characters"),
    "word_lm": ("Loss of an LSTM on words falls as a power of training-set size", "words"),
    "translation": ("Token error of an attention model that translates falls as a power of training-set size", "translation"),
    "images": ("Error of a residual network on images falls as a power of training-set size", "images"),
    "speech": ("Character error of an attention model that hears falls as a power of training-set size", "speech"),
}


def _power_law(domain: Domain) -> Definition:
    statement, notebook = STATEMENTS[domain.id]
    return Definition(
        id=f"baidu.power_law.{domain.id}", statement=f"{statement}: the exponent beta_g of the best fits",
        paper=f"hestness2017, {domain.paper}", published=domain.beta_g, notebook=f"notebooks/{notebook}.ipynb", specs=(domain.spec,),
        x="unique_tokens", loss="best_loss", measure=partial(measure_power_law, domain), if_differs=f"{ELSEWHERE} is a straight line.")


_CURVE = partial(Definition, published=None, x="unique_tokens", loss="best_loss")
_SPECS = tuple(domain.spec for domain in DOMAINS.values())

DEFINITIONS = (
    Definition(
        id="baidu.power_law.transformer",
        statement="Loss of a small Transformer on characters falls as a power of training-set size: a curve for comparison",
        paper="hestness2017, Fig. 3",
        published="hestness2017.char_lm_sgd.curve_beta_g",
        notebook="notebooks/learning_curve.ipynb",
        specs=("learning_curve",),
        x="unique_tokens", loss="best_loss",
        measure=lambda runs: of_law(data_law(runs), sign=-1),
        if_differs="Our training sets are far smaller than the paper's shards: just past the small-data region a "
                   "doubling teaches letters and common words, which are learnt faster than the rest of language.",
        tour=True,
    ),
    *map(_power_law, DOMAINS.values()),
    _CURVE(
        id="baidu.regions",
        statement="A learning curve has three regions, near guessing, a power law and a floor: decades of power law between the borders",
        paper="hestness2017, §5 and Fig. 6", notebook="notebooks/regions.ipynb", specs=("speech", "signals"), unit="decades",
        measure=measure_regions, agrees=lambda measured, target: measured.low > 0,
        if_differs="The borders are so close that no power law may lie between them.",
    ),
    _CURVE(
        id="baidu.model_growth",
        statement="The smallest model within 1 % of the best grows more slowly than the data: its exponent beta_p lies in [0.5, 1)",
        paper="hestness2017, §2 and Figs. 2 to 4", notebook="notebooks/growth.ipynb",
        specs=(*_SPECS, "overfitting"), measure=measure_growth, agrees=overlaps,
    ),
    _CURVE(
        id="baidu.capacity",
        statement="A fixed model leaves the power law when the data reach its capacity, and a larger one later: exponent of that "
                  "training-set size in N",
        paper="hestness2017, Fig. 5", notebook="notebooks/speech.ipynb", specs=("speech",),
        measure=measure_capacity, agrees=lambda measured, target: measured.low > 0,
    ),
    _CURVE(
        id="baidu.translation_bend",
        statement="The curve of one size is a power law plus a constant, and the exponent of the best sizes, without one, is the "
                  "flatter: difference of the exponents",
        paper="hestness2017, Fig. 1", notebook="notebooks/translation.ipynb", specs=("translation",),
        measure=measure_bend, agrees=lambda measured, target: measured.low > 0,
    ),
    _CURVE(
        id="baidu.optimizer",
        statement="Adam against SGD moves the learning curve without turning it: difference of the exponents",
        paper="hestness2017, Fig. 3", notebook="notebooks/characters.ipynb", specs=("characters",),
        measure=measure_optimisers, agrees=no_turn,
    ),
    _CURVE(
        id="baidu.use",
        statement="A learning curve foretells the error of larger training sets: the worst of our forecasts of the two largest",
        paper="hestness2017, §5", notebook="notebooks/use.ipynb", specs=_SPECS, unit="%",
        measure=measure_use, agrees=decides,
    ),
)

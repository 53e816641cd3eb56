"""Laws by name: with the constants of a paper, the kit's own, and those read back from a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np

from minitransformer import papers
from minitransformer.errors import UserError
from minitransformer.laws import forms
from minitransformer.laws.fit import fit
from minitransformer.laws.law import Estimate, Law
from minitransformer.laws.uncertainty import Curve
from minitransformer.sweeps.store import reference_table

PF_DAY = papers.value("kaplan2020.setup.pf_day")

# name -> (form, input, {parameter: key in papers.csv, without the paper}, paper, unit of the input where not the form's)
PUBLISHED: dict[str, tuple[str, str | None, dict[str, str], str]] = {
    "kaplan-n": ("power", "N", {"alpha_N": "alpha_N", "N_c": "N_c"}, "kaplan2020"),
    "kaplan-d": ("power", "D", {"alpha_D": "alpha_D", "D_c": "D_c"}, "kaplan2020"),
    "kaplan-c": ("power", "C", {"alpha_C": "alpha_C", "C_c": "C_c"}, "kaplan2020"),
    "kaplan-c-min": ("power", "C", {"alpha_C": "alpha_C_min", "C_c": "C_c_min"}, "kaplan2020"),
    "kaplan-b-crit": ("b-crit", None, {"alpha_B": "alpha_B", "B_star": "B_star"}, "kaplan2020"),
    "kaplan-nd": ("kaplan-nd", None, {k: f"L_ND.{k}" for k in ("alpha_N", "alpha_D", "N_c", "D_c")}, "kaplan2020"),
    "kaplan-ns": ("kaplan-ns", None, {k: f"L_NS.{k}" for k in ("alpha_N", "alpha_S", "N_c", "S_c")}, "kaplan2020"),
    "chinchilla": ("chinchilla", None, {k: k for k in ("E", "A", "B", "alpha", "beta")}, "hoffmann2022"),
    "chinchilla-unrounded": (
        "chinchilla", None, {"E": "unrounded.E", "A": "A", "B": "B", "alpha": "unrounded.alpha", "beta": "unrounded.beta"}, "hoffmann2022"
    ),
    "besiroglu": ("chinchilla", None, {k: k for k in ("E", "A", "B", "alpha", "beta")}, "besiroglu2024"),
}  # fmt: skip


def _ranges(paper: str, form: forms.Form) -> dict[str, tuple[float, float]]:
    """Smallest and largest N and D that the paper trained."""
    place = {"kaplan2020": "kaplan2020.setup", "hoffmann2022": "hoffmann2022", "besiroglu2024": "hoffmann2022"}[paper]
    ends = lambda x: tuple(papers.value(f"{place}.{x}_{end}") for end in ("smallest", "largest"))
    return {x: ends(x) for x in form.inputs if x in ("N", "D")}


def published(name: str) -> Law:
    """A law with a paper's constants predicts without an interval, as the papers give no joint uncertainty; the kit's own
    ("kit") and Chinchilla's fitted again ("chinchilla-corrected") have one.

    Compute laws of Kaplan et al. take C in FLOPs here; the paper writes PF-days. UserError lists the names.
    """
    if name in OTHERS:
        return OTHERS[name]()
    if name not in PUBLISHED:
        raise UserError(f"no law is called {name!r}; there are: {', '.join(NAMES)}")
    form, x, keys, paper = PUBLISHED[name]
    values = {parameter: papers.value(f"{paper}.{key}") for parameter, key in keys.items()}
    if "C_c" in values:
        values["C_c"] *= PF_DAY
    made = forms.form(form, x)
    return _law(made, values, name, _ranges(paper, made))


@lru_cache(maxsize=1)
def kit_law() -> Law:
    """L(N, D) of the kit's own runs, in Chinchilla's form: nats per character of one text, N without embeddings.

    The form does not follow the narrowest models, which are limited by other things than the wide ones. Of the cuts tried
    in the notebook on predicting a loss, this one predicts the dearest runs best; it is the largest cut in width tried there.
    """
    runs = reference_table("budgets")
    runs = runs[(runs.status == "complete") & (runs.d_model >= 24)]
    return replace(fit("chinchilla", runs.loss, N=runs.N, D=runs.D, seed=runs.seed), name="kit")


def _corrected() -> Law:
    """Chinchilla's law fitted to the runs that Besiroglu et al. 2024 read off the paper's figure; those are not the kit's to ship."""
    data = resources.files("minitransformer") / "reference" / "chinchilla_corrected.json"
    return _from_dict(json.loads(data.read_text(encoding="utf-8")))


OTHERS: dict[str, Callable[[], Law]] = {"muennighoff": lambda: _muennighoff(), "chinchilla-corrected": _corrected, "kit": kit_law}
NAMES = (*PUBLISHED, *OTHERS)


def _muennighoff() -> Law:
    get = lambda key: papers.value(f"muennighoff2023.{key}")
    values = {"E": math.exp(get("log_E")), "A": math.exp(get("log_A")), "B": math.exp(get("log_B")), "alpha": get("alpha"),
              "beta": get("alpha"), "R_star_D": get("R_star_D"), "R_star_N": get("R_star_N")}
    return _law(forms.form("data-constrained"), values, "muennighoff", {})


def _law(form: forms.Form, values: Mapping[str, float], name: str, ranges: dict[str, tuple[float, float]]) -> Law:
    estimates = {p.name: Estimate(float(values[p.name]), None, None) for p in form.parameters}
    return Law(form, "published", parameters=estimates, ranges=ranges, name=name)


def read_law(source: str | Path | Mapping[str, Any]) -> Law:
    """A law from the JSON that `minitransformer fit --out` writes, by path or as a dictionary, or a published one by name.

    Its predictions are those of the fit. A straight line is fitted again to the runs in its file; other files hold no runs.
    """
    name = str(source)
    if not isinstance(source, Mapping):
        if name in NAMES:
            return published(name)
        path = Path(source)
        if not path.is_file():
            if path.suffix or len(path.parts) > 1:
                raise UserError(f"there is no file {name!r}: --law takes a file written by `minitransformer fit --out`, or a name")
            raise UserError(f"no law is called {name!r}: give a file written by `minitransformer fit --out`, or one of {', '.join(NAMES)}")
        try:
            source = json.loads(path.read_text(encoding="utf-8"))
        except OSError as problem:
            raise UserError(f"cannot read {path}: {problem.strerror or problem}") from None
        except (ValueError, RecursionError):
            raise UserError(f"{name[:80]} is not a law but some other file: give what `minitransformer fit --out` wrote") from None
    try:
        return _from_dict(source)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise UserError(f"{name[:80]} is not a law: give what `minitransformer fit --out` wrote") from None


def _from_dict(data: Mapping[str, Any]) -> Law:
    form = forms.form(data["law"], data.get("x"))
    status = data.get("status", "published")
    if status not in ("ok", "at_bound", "published"):
        raise UserError(f"this file holds no law: {data.get('reason') or status}")
    estimates = {k: Estimate(*(None if v[n] is None else float(v[n]) for n in ("value", "low", "high"))) for k, v in data["parameters"].items()}
    if data.get("runs"):
        runs = {name: np.array(column, float) for name, column in data["runs"].items()}
        return fit(form, runs.pop("loss"), **runs)
    curve, p, k = data.get("curve"), len(form.theta), len(form.inputs)
    engine = None
    if curve is not None:
        theta, centre, covariance = (np.array(curve[name], float) for name in ("theta", "centre", "covariance"))
        numbers = [float(curve[name]) for name in ("sigma", "q_band", "q_new")]
        if theta.shape != (p,) or centre.shape != (k,) or covariance.shape != (p, p):
            raise ValueError
        if not all(np.isfinite(v).all() for v in (theta, centre, covariance, numbers)):
            raise ValueError
        none = np.zeros(0)
        engine = Curve(form, math.inf, theta, centre, np.zeros((k, 0)), none, none, none, covariance, numbers[0], 0.0,
                       float(data.get("objective") or 0), 0.0, True, *numbers[1:])
    elif any(estimates[p.name].value is None for p in form.parameters):
        raise ValueError
    ranges = {name: (float(low), float(high)) for name, (low, high) in (data.get("range") or {}).items() if name in form.inputs}
    return Law(form, status, "", tuple(data.get("warnings", ())), parameters=estimates, engine=engine, ranges=ranges,
               name=str(data.get("name", "")), condition=data.get("condition"))

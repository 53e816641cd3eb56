"""Every claim the book makes: what the paper says, how ours is computed from runs, and the verdict.

A claim is measured from a table of runs (`sweeps.store.run_table`) and from nothing else: from the
committed tables for the book, from a run store for a reader's own machine. Each chapter has its module here.
"""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.cache import progress
from ..errors import UserError
from ..sweeps.grid import SCALES, load_spec
from ..sweeps.store import RunStore, reference_table, run_table
from . import allocation, architecture, baidu, compute, efficiency, overfitting, sizes, stopping
from .architecture import depth_points, tightening, trend_scatter
from .baidu import POWER_LAW_REGION, data_law
from .definition import AGREES, DIFFERS, NOT_REACHABLE, Claim, Definition, Measurement, complete, longest
from .sizes import size_law

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AGREES", "DIFFERS", "NOT_REACHABLE", "POWER_LAW_REGION", "Claim", "Definition", "Measurement", "committed", "complete", "data_law",
           "definitions", "depth_points", "drift", "live", "longest", "measure", "runs_behind", "size_law", "tightening", "tour", "trend_scatter"]

CHAPTERS = (sizes, compute, architecture, overfitting, stopping, efficiency, allocation, baidu)  # in the order of the table of claims
DEFINITIONS = tuple(definition for chapter in CHAPTERS for definition in chapter.DEFINITIONS)


def tour() -> list[Definition]:
    """The claims that are measured in a few minutes, where none is named."""
    return [definition for definition in DEFINITIONS if definition.tour]


def definitions(only: tuple[str, ...] = ()) -> list[Definition]:
    """All claims, or those whose id is named or begins with a name given."""
    chosen = [d for d in DEFINITIONS if not only or any(d.id == name or d.id.startswith(name + ".") for name in only)]
    if not chosen:
        raise UserError(f"no claim {only[0]!r}; there are: {', '.join(d.id for d in DEFINITIONS)}")
    return chosen


# --- from tables to claims ---------------------------------------------------------------------------------------


def runs_behind(definition: Definition, store: str | Path | None = None, scale: str | None = None) -> pd.DataFrame | None:
    """The table a claim is measured from: the committed one, or what a run store holds.

    From a store, the largest scale whose runs are all there, or the scale asked for; None where there is none.
    """
    if store is None:
        tables = {name: reference_table(name) for name in definition.specs}
        return _joined(tables)
    if "://" not in str(store) and not Path(store).is_dir():
        return None
    specs = [load_spec(name) for name in definition.specs]
    for candidate in [scale] if scale else SCALES[::-1]:
        if all(candidate in spec.scales for spec in specs):
            configs = {spec.name: spec.configs(candidate) for spec in specs}
            runs = {name: RunStore(store).runs(wanted) for name, wanted in configs.items()}
            if all(len(runs[name]) == len(wanted) for name, wanted in configs.items()):
                return _joined({name: run_table(found, candidate) for name, found in runs.items()})
    return None


def _joined(tables: dict[str, pd.DataFrame | None]) -> pd.DataFrame | None:
    """One table of several specs' runs, with a column `spec`; None where one of them has none."""
    import pandas as pd

    if any(table is None for table in tables.values()):
        return None
    return pd.concat([table.assign(spec=name) for name, table in tables.items()], ignore_index=True)


def measure(store: str | Path | None = None, scale: str | None = None, only: tuple[str, ...] = ()) -> list[Claim]:
    """The claims that the committed tables, or a run store, can support."""
    tables = {d: runs_behind(d, store, scale) for d in definitions(only)}
    found = {d: table for d, table in tables.items() if table is not None}
    return [d.claim(table) for d, table in progress(found.items(), "claims", len(found))]


def committed(only: tuple[str, ...] = ()) -> list[Claim]:
    """The claims as the book has them."""
    return measure(only=only)


def live(store: str | Path, scale: str | None = None, only: tuple[str, ...] = ()) -> list[Claim]:
    """The claims as a run store has them."""
    return measure(store, scale, only)


def drift(claims: list[Claim], tolerance: float = 1e-6, only: tuple[str, ...] = ()) -> list[str]:
    """Where claims differ from the values accepted in reference/claims.json: one line each. only: as in `definitions`."""
    path = resources.files("minitransformer") / "reference" / "claims.json"
    accepted = {claim["id"]: claim for claim in json.loads(path.read_text(encoding="utf-8"))}
    if only:
        accepted = {d.id: accepted[d.id] for d in definitions(only) if d.id in accepted}
    lines = [f"{name}: accepted, but no longer measured" for name in accepted.keys() - {c.id for c in claims}]
    for claim in claims:
        if claim.id not in accepted:
            lines.append(f"{claim.id}: measured, but not among the accepted values")
            continue
        for key, now in json.loads(json.dumps(claim.to_dict())).items():
            before = accepted[claim.id].get(key)
            if not _same(now, before, tolerance):
                lines.append(f"{claim.id}: {key} was {before}, is now {now}")
    return lines


def _same(now: object, before: object, tolerance: float) -> bool:
    """Equal, numbers within the tolerance, in lists and dictionaries too."""
    if isinstance(now, float) and isinstance(before, (int, float)):
        return math.isclose(now, before, rel_tol=tolerance, abs_tol=1e-9)
    if isinstance(now, list) and isinstance(before, list):
        return len(now) == len(before) and all(_same(one, two, tolerance) for one, two in zip(now, before))
    if isinstance(now, dict) and isinstance(before, dict):
        return list(now) == list(before) and all(_same(now[key], before[key], tolerance) for key in now)
    return now == before

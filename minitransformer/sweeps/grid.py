"""A spec, a sweep written as data, becomes a list of RunConfigs.

A spec is a TOML file:

    title = "A ladder of sizes"
    [base]                          # settings of every run (fields of RunConfig)
    n_ctx = 64
    [rules]                         # settings that follow from others: value * (of / at) ** power
    lr = {value = 0.012, of = "d_model", at = 32, power = -0.9}
    warmup_steps = {value = 0.02, of = "steps", at = 1, power = 1}      # a share of the steps; rounded down
    batch_size = {value = 8, of = "steps", at = 1000, power = 0.5, powers_of = 2, least = 4, most = 64}
    [tune]                          # trials find the rate of each group of runs that are equal but for seed: see tune.py
    lr = [0.5, 1.0, 2.0]            # factors of the rate that the rule gives; three to five, evenly spaced in log
    steps = 0.5                     # share of the steps that a trial trains (1 if left out); `seed`: of the trials
    [scales.laptop]                 # a list is an axis: all combinations are run
    d_model = [8, 16, 24]
    seed = [0, 1, 2]
    [scales.gpu]
    points = [{n_layer = 2, d_model = 8}, {n_layer = 4, d_model = [32, 64]}]   # settings that go together

A scale may override anything in [base], and a point anything in its scale, axes included; neither is overridden by a rule. A list in
a point is an axis of that point alone: these sizes on these training sets. A rule may follow from what another rule above it gave;
`powers_of` rounds down to a power of a number, `least` and `most` are bounds.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

from ..data.sources import SOURCES, fingerprint
from ..errors import UserError
from ..training.config import RunConfig
from .tune import Finished, Trials, Tune, tuned

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCALES = ("smoke", "laptop", "hours", "gpu")
SPECS = Path(__file__).parent / "specs"
RULE = {"value", "of", "at", "power"}
RULE_MAY = {"powers_of", "least", "most"}
NUMBERS = {name: f.default for name, f in RunConfig.__dataclass_fields__.items() if type(f.default) in (int, float)}


@dataclass(frozen=True)
class Spec:
    name: str
    title: str
    base: dict[str, Any]
    rules: dict[str, dict[str, Any]]
    scales: dict[str, dict[str, Any]]
    tune: dict[str, Any] = field(default_factory=dict)

    def configs(self, scale: str, finished: Finished | None = None) -> list[RunConfig]:
        """Every run of one scale, in the order of the axes; the same list each time.

        With [tune], every run known to be needed once those in `finished` are there: the trials so far, and the runs of
        each group whose rate they settle. When all of this list is finished, nothing more will be asked for.
        """
        return self._tuned(scale, finished)[0] if self.tune else self._by_rule(scale)

    def tuning(self, scale: str, finished: Finished | None = None) -> list[Trials]:
        """How the rate of each group was found, or how far that is; empty without [tune]."""
        return self._tuned(scale, finished)[1] if self.tune else []

    def final(self, scale: str, finished: Finished | None = None) -> list[RunConfig]:
        """The runs that a law may be fitted to: without those that are only trials."""
        return [run for group in self.tuning(scale, finished) for run in group.runs] if self.tune else self._by_rule(scale)

    def expected(self, scale: str, finished: Finished | None = None) -> list[RunConfig]:
        """For costs: the runs known to be needed and, where a rate is not found yet, the group's at the rule's rate."""
        return list(dict.fromkeys([*self.configs(scale, finished), *self.waiting(scale, finished)]))

    def waiting(self, scale: str, finished: Finished | None = None) -> list[RunConfig]:
        """The final runs whose rate is not found yet, at the rule's rate; empty without [tune]."""
        return [run for group in self.tuning(scale, finished) if group.lr is None for run in group.group]

    def stage(self, scale: str, finished: Finished) -> str:
        """What the missing runs are: trials and of which round, final runs, or both; empty without [tune]."""
        found = self.tuning(scale, finished)
        searching = [len(group.trials) for group in found if group.lr is None]
        settled = any(finished.get(run) is None for group in found for run in group.runs)
        trials = [f"trials, round {max(searching) - len(self.tune['lr']) + 1}"] if searching else []
        return " and ".join([*trials, *["final runs"] * settled])

    def rounds(self, scale: str, finished: Finished) -> Iterator[list[RunConfig]]:
        """What to train, until no more is asked for: `for configs in spec.rounds(scale, store): sweep(configs, store)`."""
        before = None
        while (configs := self.configs(scale, finished)) != before:
            yield configs
            before = configs

    def _tuned(self, scale: str, finished: Finished | None) -> tuple[list[RunConfig], list[Trials]]:
        return tuned(self._by_rule(scale), Tune.from_dict(self.tune), {} if finished is None else finished)

    def _by_rule(self, scale: str) -> list[RunConfig]:
        if scale not in self.scales:
            raise UserError(f"{self.name} has no scale {scale!r}; it has {', '.join(self.scales)}")
        settings = dict(self.scales[scale])
        points = settings.pop("points", [{}])
        configs = []
        for point in points:
            axes = {name: value if isinstance(value, list) else [value] for name, value in {**settings, **point}.items()}
            if empty := [name for name, values in axes.items() if not values]:
                raise UserError(f"{self.name}: {empty[0]} = [] in [scales.{scale}] leaves nothing to run; list at least one value")
            configs += [self._config({**self.base, **dict(zip(axes, values))}, set(axes)) for values in itertools.product(*axes.values())]
        if not configs:
            raise UserError(f"{self.name}: points = [] in [scales.{scale}] leaves nothing to run; list at least one value")
        return list(dict.fromkeys(configs))

    def _config(self, settings: dict[str, Any], chosen: set[str]) -> RunConfig:
        for name in sorted(settings.keys() - RunConfig.__dataclass_fields__.keys()):
            close = difflib.get_close_matches(name, RunConfig.__dataclass_fields__, 1)
            raise UserError(f"{self.name}: unknown setting {name!r}; " + (f"did you mean {close[0]!r}?" if close else "RunConfig lists what there is"))
        for name, rule in self.rules.items():
            if name in chosen:
                continue
            settings[name] = self._follow(name, rule, settings)
        corpus = settings.get("corpus", RunConfig.corpus)
        if corpus not in SOURCES:
            settings["corpus_sha256"] = fingerprint(corpus)
        return RunConfig.from_dict(settings)

    def _follow(self, name: str, rule: dict[str, Any], settings: dict[str, Any]) -> float:
        given = settings.get(rule["of"], NUMBERS[rule["of"]])
        try:
            value = rule["value"] * (given / rule["at"]) ** rule["power"]
            if (base := rule.get("powers_of")) is not None:
                value = base ** math.floor(math.log(value, base) + 1e-9)
            value = min(max(value, rule.get("least", value)), rule.get("most", math.inf))
            return max(1, math.floor(value + 1e-9)) if type(NUMBERS[name]) is int else float(f"{value:.6g}")
        except (ArithmeticError, TypeError, ValueError):
            raise UserError(f"{self.name}: the rule for {name} gives no number where {rule['of']} = {given!r}") from None

    def toml(self) -> str:
        """The text of a file that load_spec reads as this spec."""
        sections = {"base": self.base, "rules": self.rules, **({"tune": self.tune} if self.tune else {}),
                    **{f"scales.{name}": scale for name, scale in self.scales.items()}}
        lines = [f"title = {_toml(self.title)}"]
        for name, section in sections.items():
            lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in section.items())]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def load_spec(spec: str | Path) -> Spec:
    """A spec by the name of one that comes with the kit, or by the path of a TOML file."""
    path = Path(spec)
    if path.suffix != ".toml":
        path = SPECS / f"{spec}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SPECS.glob("*.toml")))
        raise UserError(f"no spec {str(spec)!r}; give the path of a .toml file, or one of: {known}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UserError(f"{path} is not valid TOML: {problem}") from None
    unknown = set(content) - {"title", "base", "rules", "tune", "scales"}
    if unknown:
        raise UserError(f"{path}: unknown section {sorted(unknown)[0]!r}; a spec has title, base, rules, tune and scales")
    if flat := [name for name in content if name != "title" and not isinstance(content[name], dict)]:
        raise UserError(f"{path}: {flat[0]} must be a section, [{flat[0]}]")
    if not content.get("scales"):
        raise UserError(f"{path}: a spec needs at least one [scales.NAME]")
    for name, rule in content.get("rules", {}).items():
        if problem := _mistake(name, rule, content["rules"]):
            raise UserError(f"{path}: the rule for {name!r} {problem}")
    if "tune" in content:
        Tune.from_dict(content["tune"])
    return Spec(path.stem, content.get("title", path.stem), content.get("base", {}), content.get("rules", {}),
                content["scales"], content.get("tune", {}))


def _mistake(name: str, rule: Any, rules: dict[str, Any]) -> str:
    """What is wrong with a rule, or nothing."""
    if name not in NUMBERS:
        return "is for no setting that is a number; RunConfig lists what there is"
    if not isinstance(rule, dict) or not RULE <= set(rule) <= RULE | RULE_MAY:
        return "needs value, of, at, power, and may have powers_of, least, most"
    if str(rule["of"]) not in NUMBERS:
        return f"follows from {rule['of']!r}, which is no setting that is a number; RunConfig lists what there is"
    if not all(type(rule[key]) in (int, float) and (key == "power" or rule[key] > 0) for key in set(rule) - {"of"}):
        return "needs numbers, all but power above 0"
    if rule.get("powers_of", 2) <= 1 or rule.get("least", 0) > rule.get("most", math.inf):
        return "needs powers_of above 1, and least no larger than most"
    if rule["of"] in list(rules)[list(rules).index(name):]:
        return f"follows from {rule['of']}, whose own rule must stand above it"
    return ""

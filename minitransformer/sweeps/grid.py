"""A spec, a sweep written as data, becomes a list of RunConfigs.

A spec is a TOML file:

    title = "A ladder of sizes"
    [base]                          # settings of every run (fields of RunConfig)
    n_ctx = 64
    [rules]                         # settings that follow from others: value * (of / at) ** power
    lr = {value = 0.012, of = "d_model", at = 32, power = -0.9}
    [scales.laptop]                 # a list is an axis: all combinations are run
    d_model = [8, 16, 24]
    seed = [0, 1, 2]
    [scales.gpu]
    points = [{n_layer = 2, d_model = 8}, {n_layer = 4, d_model = 64}]   # settings that go together

A scale may override anything in [base]; a setting named in a scale or point is not overridden by a rule.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.sources import SOURCES, fingerprint
from ..errors import UserError
from ..training.config import RunConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCALES = ("smoke", "laptop", "gpu")
SPECS = Path(__file__).parent / "specs"


@dataclass(frozen=True)
class Spec:
    name: str
    title: str
    base: dict[str, Any]
    rules: dict[str, dict[str, Any]]
    scales: dict[str, dict[str, Any]]

    def configs(self, scale: str) -> list[RunConfig]:
        """Every run of one scale, in the order of the axes; the same list each time."""
        if scale not in self.scales:
            raise UserError(f"{self.name} has no scale {scale!r}; it has {', '.join(self.scales)}")
        settings = dict(self.scales[scale])
        points = settings.pop("points", [{}])
        axes = {name: value for name, value in settings.items() if isinstance(value, list)}
        fixed = {name: value for name, value in settings.items() if name not in axes}
        configs = []
        for point in points:
            for values in itertools.product(*axes.values()):
                chosen = {**fixed, **point, **dict(zip(axes, values))}
                configs.append(self._config({**self.base, **chosen}, set(chosen)))
        return list(dict.fromkeys(configs))

    def _config(self, settings: dict[str, Any], chosen: set[str]) -> RunConfig:
        for name, rule in self.rules.items():
            if name in chosen:
                continue
            try:
                value = rule["value"] * (settings[rule["of"]] / rule["at"]) ** rule["power"]
            except (KeyError, TypeError) as problem:
                raise UserError(f"{self.name}: the rule for {name!r} needs value, of, at, power ({problem})") from None
            whole = isinstance(getattr(RunConfig, name, 0), int)
            settings[name] = max(1, math.floor(value + 1e-9)) if whole else float(f"{value:.6g}")
        corpus = settings.get("corpus", RunConfig.corpus)
        if corpus not in SOURCES:
            settings["corpus_sha256"] = fingerprint(corpus)
        return RunConfig.from_dict(settings)

    def toml(self) -> str:
        """The text of a file that load_spec reads as this spec."""
        sections = {"base": self.base, "rules": self.rules, **{f"scales.{name}": scale for name, scale in self.scales.items()}}
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
    unknown = set(content) - {"title", "base", "rules", "scales"}
    if unknown:
        raise UserError(f"{path}: unknown section {sorted(unknown)[0]!r}; a spec has title, base, rules and scales")
    if not content.get("scales"):
        raise UserError(f"{path}: a spec needs at least one [scales.NAME]")
    return Spec(path.stem, content.get("title", path.stem), content.get("base", {}), content.get("rules", {}),
                content["scales"])

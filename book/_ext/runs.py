"""How the reference runs were made, computed from the committed tables when the page is built.

- ```` ```{reference-runs} tables ```` a row for each table: its runs, sizes, seeds, FLOPs and time, and a row for each scale as a whole;
- ```` ```{reference-runs} machines ```` the devices and versions that the tables name, as a sentence;
- ```` ```{reference-runs} commands ```` the command that makes each table again, with the time it took;
- ```` ```{reference-runs} card ```` what the specs would do at the scale gpu.

The content is the caption. FLOPs of a trunk that several runs share are counted once.
"""

from __future__ import annotations

import json

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from engine import CARD, EngineDirective, cost, duration, spec_configs, specs
from published import NBSP, list_table, markdown
from sphinx.application import Sphinx

from minitransformer import accounting
from minitransformer.data.sources import SOURCES
from minitransformer.laws.law import short
from minitransformer.sweeps.grid import SCALES, SPECS, load_spec
from minitransformer.sweeps.grouping import stack_cost
from minitransformer.sweeps.spent import Spent, spent
from minitransformer.sweeps.store import reference_table

CORES = 2  # of the machine that the times of the commands are for


def tables() -> dict[str, pd.DataFrame]:
    """The committed tables by spec, those of the largest scale first."""
    found = {path.stem: reference_table(path.stem) for path in sorted(SPECS.glob("*.toml"))}
    known = {name: table for name, table in found.items() if table is not None and len(table)}
    return dict(sorted(known.items(), key=lambda one: -SCALES.index(one[1].scale.iloc[0])))


def flops(value: float) -> str:
    return markdown(f"{value:.1e}")


def span(low: float, high: float) -> str:
    return short(low) if low == high else f"{short(low)} to {short(high)}"


def rounded(column: pd.Series) -> tuple[float, float]:
    return tuple(float(f"{value:.2g}") for value in (column.min(), column.max()))


def text_of(table: pd.DataFrame) -> str:
    """`fiction`, or with the tokenizers where they are others than characters."""
    names = [f"`{name}`" if name in SOURCES else "another text" for name in dict.fromkeys(table.corpus)]
    kinds = [name for name in dict.fromkeys(table.tokenizer)]
    return ", ".join(names) + ("" if kinds == ["char"] else f" ({', '.join(kinds)})")


def table_rows() -> list[list[str]]:
    rows = [["Table", "Scale, text", "Runs (seeds)", "*N*", "Tokens seen", "Training, FLOPs", "Measuring, FLOPs", "One core"]]
    total: dict[str, list] = {}
    for name, table in tables().items():
        scale, cost_of = table.scale.iloc[0], spent(table)
        sizes = table.N.nunique()
        rows.append([f"{load_spec(name).title} `{name}`", f"{scale}, {text_of(table)}", f"{len(table):,} ({table.seed.nunique()})",
                     f"{span(table.N.min(), table.N.max())}{f' ({sizes} sizes)' * (sizes > 1)}", span(*rounded(table.D)), flops(cost_of.training),
                     flops(cost_of.measuring), duration(table.seconds.sum())])
        total.setdefault(scale, []).append((len(table), cost_of, table))
    for scale, found in total.items():
        all_of, cost_of = pd.concat([table for *_, table in found]), Spent(*map(sum, zip(*(one for _, one, _ in found))))
        rows.append([f"**All of {scale}**", f"{scale}, {text_of(all_of)}", f"{sum(runs for runs, *_ in found):,}", span(all_of.N.min(), all_of.N.max()),
                     span(*rounded(all_of.D)), flops(cost_of.training), flops(cost_of.measuring), duration(all_of.seconds.sum())])
    return rows


def machines() -> str:
    """One sentence for each device and set of versions."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, table in tables().items():
        for device, versions in dict.fromkeys(zip(table.device, table.versions)):
            found.setdefault((device, versions), []).append(f"`{name}`")
    words = [f"on {device} with " + ", ".join(f"{library}{NBSP}{version}" for library, version in json.loads(versions).items())
             for device, versions in found]
    if len(words) == 1:
        return f"All of them were trained {words[0]}."
    return " ".join(f"Trained {said}: {', '.join(names)}." for said, names in zip(words, found.values()))


def commands() -> str:
    lines = []
    for name, table in tables().items():
        scale, runs = table.scale.iloc[0], len(table)
        lines += [f"# {runs} run{'s' * (runs > 1)}, about {duration(table.seconds.sum() / CORES)} on {CORES} cores",
                  f"minitransformer sweep {name} --scale {scale} --export {name}.parquet"]
    return "\n".join(lines)


def card_rows() -> list[list[str]]:
    rows = [["Spec", "Runs", "*N*", "Tokens seen", "FLOPs", f"One {CARD}"]]
    everything = []
    for name in specs():
        if "gpu" in load_spec(name).scales:
            configs = spec_configs(name, "gpu")
            everything += configs
            N = [accounting.count_parameters(accounting.parameters(config.shape(1)))["N"] for config in configs]
            D = [config.steps * config.tokens_per_step for config in configs]
            spans = [span(*rounded(pd.Series(column))) for column in (N, D)]
            planned = stack_cost(configs)
            rows.append([f"`{name}`", str(len(configs)), *spans, flops(planned), cost(planned, "card")])
    planned = stack_cost(everything)
    rows.append(["**All**", str(len(dict.fromkeys(everything))), "–", "–", flops(planned), cost(planned, "card")])
    return rows


class ReferenceRuns(EngineDirective):
    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged}
    TABLES = {"tables": table_rows, "card": card_rows}

    def run(self) -> list[nodes.Node]:
        what, caption = self.arguments[0], " ".join(self.content)
        if what not in (known := [*self.TABLES, "machines", "commands"]):
            raise self.error(f"there is no {what!r}; there are: {', '.join(known)}")
        self.note()
        self.env.note_dependency(__file__)
        self.env.metadata[self.env.docname]["engine"] = True  # its script writes the headings of a phone's cards
        if what == "machines":
            return self.parse_text_to_nodes(machines())
        if what == "commands":
            return [nodes.literal_block("", commands(), language="sh")]
        return self.parse_text_to_nodes(list_table(self.TABLES[what](), caption, self.options.get("name", ""), look="engine-costs"))


def setup(app: Sphinx) -> dict:
    app.add_directive("reference-runs", ReferenceRuns)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

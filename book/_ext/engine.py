"""What the engine saves, and what trainings cost, for the pages on the engine: computed when they are built.

- ```` ```{engine-figure} NAME ```` draws `stack` or `branches`; the content is the caption, ``:alt:`` the text for those who cannot see it;
- ```` ```{engine-table} NAME ```` prints `specs`, `memory` or `trainings`; the content is the caption. Every time and price follows
  from FLOPs, and ```` ```{engine-prices} ```` lets the reader change what else they follow from;
- ```` ```{engine-speed} ```` shows the table and the last lines of benchmarks/engine.txt; the content is the caption;
- the role ``{engine}`NAME` `` prints one of `inline_facts`.

What is assumed and not known is ASSUMED. Utilisation is model FLOPs per second over the peak on the card's data sheet.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from measured import LawFigure, MeasuredError, fingerprint
from published import NBSP, list_table, markdown
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from minitransformer import accounting, figures, papers
from minitransformer.laws import published
from minitransformer.laws.law import short
from minitransformer.laws.plan import allocate, best_for
from minitransformer.sweeps import execute
from minitransformer.sweeps.grid import SCALES, SPECS, load_spec
from minitransformer.sweeps.spent import spent
from minitransformer.sweeps.store import reference_table
from minitransformer.sweeps.tune import rows as finished
from minitransformer.training.machine import CARDS
from minitransformer.training.schedules import last_constant_step, learning_rate

logger = logging.getLogger(__name__)

PRINTED = Path(__file__).resolve().parents[2] / "benchmarks" / "engine.txt"
CARD = "H100"
ASSUMED = {"utilisation": 40.0, "price": 3.0, "memory": 80e9}  # per cent of the peak; dollars for an hour of a card; its bytes
SIZES = {1e6: (5, 128), 1e7: (8, 320), 1e8: (14, 768), 1e9: (20, 2048)}  # about N: layers and width
EXERCISE = (32, 4096)        # layers and width
VOCABULARY, CONTEXT = 8192, 1024
AT_A_TIME = 16 * CONTEXT     # tokens on a card at a time
OVERTRAINED = 10             # times as many tokens as the rule of thumb
RATIO = "Times as fast"
SPEED = ["*N*", "Sweep", "(a)", "(b)", "(c)", RATIO, "from–to", "Sweep, of limit", "Usual, of limit"]
CELL = re.compile(r"[\d.]+-[\d.]+|[\d.]+%|[\d.]+(?: \(\d+\))?|nan")
STATE = 16                   # bytes for each parameter: float32 weight, gradient and two moments
COPY, LAYER, LOGIT = 2, 38, 8  # bytes in bfloat16: of each parameter; of each layer and unit of width, and each logit, for each token
TIMED = ("depths_longer", "target")  # committed tables, of a machine at rest, whose seconds say how fast a core is at each width
SECONDS = ((31_557_600, "years"), (86_400, "days"), (3600, "h"), (60, "min"), (1, "s"))


# --- counting ----------------------------------------------------------------------------------------------------


def shape_of(n_layer: int, d_model: int) -> accounting.Shape:
    return accounting.Shape("transformer", n_layer, d_model, VOCABULARY, CONTEXT, tie_embeddings=True)


def shape(size: float) -> accounting.Shape:
    return shape_of(*SIZES[size])


def total(size: float) -> int:
    return sum(accounting.parameters(shape(size)).values())


def training(size: float, per_parameter: float) -> tuple[float, float]:
    """Tokens and FLOPs of a training on so many tokens for each parameter, embeddings counted."""
    tokens = per_parameter * total(size)
    return tokens, accounting.count_compute(shape(size), 1)["C_total"] * tokens


def rule_of_thumb() -> int:
    """Tokens for each parameter, from Hoffmann et al. 2022, Table 3."""
    return round(papers.value("hoffmann2022.optimal.D_1B") / 1e9)


def activations(n_layer: int, d_model: int, vocab_size: int, parameters: int, tokens: int) -> float:
    """Bytes that a step in bfloat16 keeps from the forward to the backward pass, with attention that keeps no scores."""
    return COPY * parameters + tokens * (LAYER * n_layer * d_model + LOGIT * vocab_size)


@lru_cache(maxsize=1)
def core_rates() -> pd.Series:
    """FLOPs per second of one core by width, in the committed runs of the specs TIMED: what was measured on the way counted, and what a trunk's
    branches share once, in FLOPs as in seconds."""
    flops, seconds = Counter(), Counter()
    for table in map(reference_table, TIMED):
        for width, runs in table.groupby("d_model"):
            flops[width] += spent(runs).total
            seconds[width] += runs.seconds.sum()
    return pd.Series({width: flops[width] / seconds[width] for width in sorted(flops)})


def core_rate(width: float = math.inf) -> float:
    """FLOPs per second of one core at a width, to two figures; straight in logs between widths, beyond the last as there."""
    rates = core_rates()
    return float(f"{math.exp(np.interp(math.log(width), np.log(rates.index), np.log(rates))):.2g}")


def core_seconds(configs: list) -> float:
    """Of one core, for runs of any widths, from their FLOPs and its rate at each."""
    return sum(execute.stack_cost([c for c in configs if c.d_model == width]) / core_rate(width) for width in {c.d_model for c in configs})


def card_rate() -> float:
    """FLOPs per second at the utilisation that is assumed."""
    return CARDS[CARD][0] * ASSUMED["utilisation"] / 100


def specs() -> list[str]:
    """Those of language models: what other models cost follows from data that would have to be fetched first."""
    names = sorted(path.stem for path in SPECS.glob("*.toml"))
    return [name for name in names if all(config.reads_text for config in load_spec(name).configs("smoke"))]


def spec_configs(name: str, scale: str) -> list:
    """The runs of a spec, on a text that every copy of the kit has: for their cost the text matters only by its alphabet."""
    table = reference_table(name)
    return [replace(config, corpus="sotu", corpus_sha256="") for config in load_spec(name).expected(scale, None if table is None else finished(table))]


# --- numbers as text ---------------------------------------------------------------------------------------------


def figures_of(value: float) -> str:
    """Two figures, with commas: 0.12, 3.4, 56, 7,800."""
    leading = int(f"{value:.1e}".split("e")[1])
    return f"{round(value, 1 - leading):,.{max(0, 1 - leading)}f}"


def duration(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in SECONDS if seconds >= size), SECONDS[-1])
    return f"{figures_of(seconds / size)} {unit}" if seconds >= 1 else "under 1 s"


def money(dollars: float) -> str:
    return "under 1 cent" if dollars < 0.01 else f"${dollars:.2f}" if dollars < 10 else f"${figures_of(dollars)}"


def cost(flops: float, kind: str) -> str:
    """A `core` or `card` time or a `price` as text for a page, which the page's script computes again from the FLOPs it carries."""
    seconds = flops / (core_rate() if kind == "core" else card_rate())
    text = money(seconds / 3600 * ASSUMED["price"]) if kind == "price" else duration(seconds)
    return f'<span class="engine-cost" data-kind="{kind}" data-flops="{flops:.6g}">{text}</span>'.replace("$", r"\$")


def gigabytes(size: float) -> str:
    return f"{figures_of(size / 1e9)} GB" if size >= 1e9 else f"{figures_of(size / 1e6)} MB"


def rate(flops: float) -> str:
    return f"{flops / 1e12:.3g} TFLOP/s" if flops >= 1e12 else f"{flops / 1e9:.2g} GFLOP/s"


def tokens_advised(law: str) -> float:
    """Tokens for each parameter at a billion parameters."""
    return best_for(lambda C: allocate(published(law), C), N=1e9).tokens_per_parameter


def inline_facts() -> dict[str, object]:
    """What the role `engine` prints, by name: functions, so that a page computes only what it asks for."""
    billion, thumb = 1e9, rule_of_thumb()
    alone = lambda: sum(map(execute.cost, spec_configs("budgets", "laptop")))
    return {
        "core-rate": lambda: rate(core_rate()),
        "core-rate-narrowest": lambda: rate(core_rate(core_rates().index[0])),
        "narrowest": lambda: str(core_rates().index[0]),
        "widest": lambda: str(core_rates().index[-1]),
        "card-peak": lambda: rate(CARDS[CARD][0]),
        "card-rate": lambda: rate(card_rate()),
        "utilisation": lambda: f"{ASSUMED['utilisation']:g} %",
        "price": lambda: f"{ASSUMED['price']:g} dollars",
        "thumb": lambda: str(thumb),
        "overtrained": lambda: str(OVERTRAINED * thumb),
        "advised-published": lambda: f"{tokens_advised('chinchilla'):.0f}",
        "advised-corrected": lambda: f"{tokens_advised('chinchilla-corrected'):.0f}",
        "state": lambda: str(STATE),
        "state-billion": lambda: gigabytes(STATE * total(billion)),
        "step-billion": lambda: gigabytes(activations(*SIZES[billion], VOCABULARY, total(billion), AT_A_TIME)),
        "state-on-8": lambda: gigabytes(STATE * total(billion) / 8),
        "card-memory": lambda: gigabytes(ASSUMED["memory"]),
        "largest-state": lambda: short(ASSUMED["memory"] / STATE),
        "card-billion": lambda: duration(training(billion, thumb)[1] / card_rate()),
        "eight-cards-billion": lambda: duration(training(billion, thumb)[1] / card_rate() / 8),
        "core-billion": lambda: duration(training(billion, thumb)[1] / core_rate()),
        "decades": lambda: f"{math.log10(training(max(SIZES), thumb)[1] / training(min(SIZES), thumb)[1]):.1f}",
        "exercise": lambda: figures_of(sum(accounting.parameters(shape_of(*EXERCISE)).values()) / 1e9),
        "speed-mean": lambda: speed_times()[0],
        "speed-least": lambda: speed_times()[1],
        "speed-reached": speed_reached,
        "branches-saved": lambda: f"{100 * (1 - execute.stack_cost(spec_configs('budgets', 'laptop')) / alone()):.0f} %",
    }


# --- tables ------------------------------------------------------------------------------------------------------


def specs_table() -> list[list[str]]:
    """Every spec at the scale of its committed runs, or the largest for a processor, and on a card: the seconds recorded, or those that follow
    from a core's rate."""
    rows = [["Spec", "Scale", "Runs", "FLOPs", "One core", f"One {CARD}"]]
    for name in specs():
        scales = load_spec(name).scales
        runs = reference_table(name)
        processor = [scale for scale in SCALES if scale in scales and scale != "gpu"][-1] if runs is None else runs.scale.iloc[0]
        for scale in dict.fromkeys([processor, *(["gpu"] if "gpu" in scales else [])]):
            configs = spec_configs(name, scale)
            flops = execute.stack_cost(configs)
            recorded = runs is not None and scale == processor
            core = duration(runs.seconds.sum()) if recorded else cost(core_seconds(configs) * core_rate(), "core")
            rows.append([f"`{name}`", scale, str(len(configs)), markdown(f"{flops:.1e}"), core,
                         cost(flops, "card") if scale == "gpu" else "–"])
    return rows


def memory_table() -> list[list[str]]:
    rows = [["Size *N*", "Layers × width", "All parameters", f"State, {STATE} bytes each", f"Kept for a step of {AT_A_TIME:,} tokens"]]
    for size, (n_layer, d_model) in SIZES.items():
        kept = activations(n_layer, d_model, VOCABULARY, total(size), AT_A_TIME)
        cells = [short(size), f"{n_layer} × {d_model}", short(total(size)), gigabytes(STATE * total(size)), gigabytes(kept)]
        rows.append([cell.replace(" ", NBSP) for cell in cells])
    return rows


def trainings_table() -> list[list[str]]:
    rows = [["Size *N*", "Tokens per parameter", "Tokens", "FLOPs", "One core", f"One {CARD}", "Price"]]
    for size in SIZES:
        for per_parameter in (rule_of_thumb(), OVERTRAINED * rule_of_thumb()):
            tokens, flops = training(size, per_parameter)
            costs = [cost(flops, kind) for kind in ("core", "card", "price")]
            rows.append([short(size), str(per_parameter), short(float(f"{tokens:.2g}")), markdown(f"{flops:.1e}"), *costs])
    return rows


TABLES = {"specs": specs_table, "memory": memory_table, "trainings": trainings_table}


# --- figures -----------------------------------------------------------------------------------------------------


def stack_figure(members: int = 4, calls: int = 3):
    """A sketch of calls in time, what each costs in itself and what it computes: models one after another, and in a stack."""
    waiting, work = 1.0, 0.45
    with figures.drawing(size=(5.6, 2.6)) as (figure, (axis,)):
        def bar(y: float, start: float, width: float, colour: str) -> float:
            axis.barh(y, width, left=start, height=0.5, color=colour, edgecolor="white", linewidth=0.8)
            return start + width

        end = 0.0
        for member in range(members):
            for _ in range(calls):
                end = bar(1, bar(1, end, waiting, "#C9C9C9"), work, figures.SERIES[member])
        stacked = 0.0
        for _ in range(calls):
            stacked = bar(0, stacked, waiting, "#C9C9C9")
            for member in range(members):
                stacked = bar(0, stacked, work, figures.SERIES[member])
        axis.set_yticks([0, 1], ["as a\nstack", "one after\nanother"])
        axis.set_xticks([])
        axis.set_xlabel("time →", loc="right")
        axis.set_xlim(0, end)
        axis.set_ylim(-0.4, 1.75)
        axis.grid(False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        for member in range(members):
            axis.text((member + 0.5) * end / members, 1.36, f"model {member + 1}", color=figures.SERIES[member], ha="center", va="bottom")
        axis.text(stacked + 0.4, 0, "grey: what every call\ncosts in itself", color=figures.GREY, va="center")
        return figure


def branch_row() -> list:
    """One row of the spec budgets: trainings of one size that differ in length alone."""
    configs = spec_configs("budgets", "laptop")
    first = configs[0]
    return [c for c in configs if replace(c, steps=first.steps) == first]


def branch_steps(row: list) -> tuple[int, int]:
    """Steps of the row's trainings one by one, and as a trunk with branches."""
    return sum(c.steps for c in row), max(map(last_constant_step, row)) + sum(c.steps - last_constant_step(c) for c in row)


def branches_figure():
    row = branch_row()
    alone, together = branch_steps(row)
    longest = max(row, key=lambda c: c.steps)
    with figures.drawing(size=(5.6, 3.2)) as (figure, (axis,)):
        trunk = range(1, last_constant_step(longest) + 1)
        axis.plot(trunk, [learning_rate(longest, step) for step in trunk], color=figures.GREY, linewidth=5, solid_capstyle="butt")
        for config, colour in zip(row, figures.SERIES):
            branch = range(last_constant_step(config), config.steps + 1)
            axis.plot(branch, [learning_rate(config, step) for step in branch], color=colour)
        axis.set_xticks([c.steps for c in row][1:], [f"{c.steps:,}" for c in row][1:])
        axis.set_yticks([])
        axis.set_ylim(0, longest.lr * 1.45)
        axis.set_xlim(0, longest.steps * 1.02)
        axis.set_xlabel("step")
        axis.set_ylabel("learning rate")
        axis.text(0.015 * longest.steps, longest.lr * 1.08, "trunk", color=figures.GREY, va="bottom")
        axis.text(0.99 * longest.steps, longest.lr * 1.4, f"{len(row)} trainings one by one: {alone:,} steps\ntrunk with branches: {together:,} steps",
                  ha="right", va="top", color="#222222")
        return figure


FIGURES = {"stack": stack_figure, "branches": branches_figure}


# --- Sphinx ------------------------------------------------------------------------------------------------------


class EngineFigure(LawFigure):
    def build(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in FIGURES:
            raise MeasuredError(f"there is no figure {name!r}; there are: {', '.join(FIGURES)}")
        if not self.options.get("alt"):
            raise MeasuredError("a figure needs :alt: text")
        self.env.metadata[self.env.docname]["measured"] = fingerprint(self.env.srcdir)
        self.env.note_dependency(__file__)
        image = nodes.image(uri=self.save(FIGURES[name](), f"engine-{name}"), alt=self.options["alt"], classes=["law-figure"])
        figure = nodes.figure("", image, nodes.caption("", "", *self.parse_inline(" ".join(self.content))[0]))
        self.add_name(figure)
        return [figure]


class EngineDirective(SphinxDirective):
    def note(self) -> None:
        self.env.metadata[self.env.docname]["measured"] = fingerprint(self.env.srcdir)  # read again when the package changes
        self.env.note_dependency(__file__)


class EngineTable(EngineDirective):
    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] not in TABLES:
            raise self.error(f"there is no table {self.arguments[0]!r}; there are: {', '.join(TABLES)}")
        self.note()
        if "`" in "".join(self.content):
            raise self.error("the caption of a table cannot hold a backtick")
        table = list_table(TABLES[self.arguments[0]](), " ".join(self.content), self.options.get("name", ""), look="engine-costs")
        return self.parse_text_to_nodes(table)


def prices_form() -> str:
    """Fields for the reader's own assumptions, hidden until the page's script shows them."""
    fields = (
        ("core", "One core, GFLOP/s", core_rate() / 1e9), ("peak", f"{CARD}, peak TFLOP/s", CARDS[CARD][0] / 1e12),
        ("utilisation", "of which used, %", ASSUMED["utilisation"]), ("price", "An hour of a card, $", ASSUMED["price"]),
    )  # fmt: skip
    labels = "".join(f'<label>{label} <input type="number" min="0" step="any" data-name="{name}" value="{value:g}"></label>'
                     for name, label, value in fields)
    return f'<form class="engine-prices" hidden aria-label="Your own assumptions">{labels}</form>'


class EnginePrices(EngineDirective):
    def run(self) -> list[nodes.Node]:
        self.note()
        self.env.metadata[self.env.docname]["engine"] = True
        return [nodes.raw("", prices_form(), format="html")]


def speed(text: str) -> tuple[list[list[str]], str, str]:
    """The rows of rates, the line on other processes, and the last, which sums up, from what benchmarks/engine.py printed.

    Raises: MeasuredError where it printed no such table.
    """
    lines = text.rstrip().splitlines()
    starts = [i for i, line in enumerate(lines) if "thousand tokens per second" in line]
    ends = [i for i, line in enumerate(lines) if line.startswith("other processes")]
    rows = [CELL.findall(line) for line in lines[starts[0] + 2:ends[0]]] if starts and ends else []
    if not rows or {len(row) for row in rows} != {len(SPEED)}:
        raise MeasuredError("benchmarks/engine.txt holds no table of rates; write it with: python benchmarks/engine.py > benchmarks/engine.txt")
    return rows, lines[ends[0]], lines[-1].strip()


def printed() -> str:
    if not PRINTED.is_file():
        raise MeasuredError("there is no benchmarks/engine.txt; write it with: python benchmarks/engine.py > benchmarks/engine.txt")
    return PRINTED.read_text(encoding="utf-8")


def speed_times() -> tuple[str, str]:
    """How many times the usual ways the sweep was: the geometric mean over sizes, and the least, as the last line says."""
    found = re.search(r"([\d.]+) times the tokens.*?([\d.]+) times at the least", speed(printed())[2])
    if not found:
        raise MeasuredError("the last line of benchmarks/engine.txt says no number of times")
    mean, least = map(float, found.groups())
    return f"{mean:.1f}", f"{least:.1f}"


def speed_reached(aim: float = 2.0) -> str:
    """At how many sizes the sweep was so many times the better of the usual ways."""
    ratios = [float(row[SPEED.index(RATIO)]) for row in speed(printed())[0]]
    reached = sum(ratio >= aim for ratio in ratios)
    return f"{reached or 'none'} of {len(ratios)} sizes"


def speed_cells(rows: list[list[str]]) -> list[list[str]]:
    """The table for the page; a column in which nothing was measured is left out."""
    whole = str.maketrans({"-": "\u2060–\u2060", " ": NBSP})  # on one line
    cells = [[f"{int(size):,}", *(cell.replace("nan", "–").translate(whole) for cell in row)] for size, *row in rows]
    measured = [i for i in range(len(SPEED)) if any(row[i] != "–" for row in cells)]
    return [[row[i] for i in measured] for row in [SPEED, *cells]]


class EngineSpeed(EngineDirective):
    has_content = True
    option_spec = {"name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        self.note()
        self.env.note_dependency(str(PRINTED))
        self.env.metadata[self.env.docname]["engine"] = True
        try:
            rows, others, last = speed(printed())
        except MeasuredError as error:
            logger.warning("%s", error, location=self.get_location())
            return []
        table = list_table(speed_cells(rows), " ".join(self.content), self.options.get("name", ""), look="engine-costs")
        said = nodes.paragraph("", f"{others[0].upper()}{others[1:]}. {last}.")
        return [*self.parse_text_to_nodes(table), said]


class EngineFact(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.metadata[self.env.docname]["measured"] = fingerprint(self.env.srcdir)
        self.env.note_dependency(__file__)
        if self.text.startswith("speed-"):
            self.env.note_dependency(str(PRINTED))
        known = inline_facts()
        if self.text not in known:
            logger.warning("engine `%s`: there is no such number; there are: %s", self.text, ", ".join(known), location=self.get_location())
            return [], []
        try:
            return [nodes.inline("", known[self.text]().replace(" ", NBSP), classes=["measured"])], []
        except MeasuredError as error:
            logger.warning("engine `%s`: %s", self.text, error, location=self.get_location())
            return [], []


def load(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    if "engine" in app.env.metadata.get(page, {}):
        app.add_js_file("engine.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.add_directive("engine-figure", EngineFigure)
    app.add_directive("engine-table", EngineTable)
    app.add_directive("engine-prices", EnginePrices)
    app.add_directive("engine-speed", EngineSpeed)
    app.add_role("engine", EngineFact())
    app.connect("html-page-context", load)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

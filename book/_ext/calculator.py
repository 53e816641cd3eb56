"""The calculator page: laws as data for a script, and as a table for readers without one.

- ```` ```{calculator} ```` puts the laws into the page as JSON and leaves a place for ``_static/calculator.js`` to fill;
- ```` ```{calculator-laws} ```` prints the same laws as a table: equation, what it was fitted on, what its band is.

The script and the style sheet are loaded by that page only. A law is given to the script by its `theta`, `centre` and
`covariance`, as in ``Law.to_dict()["curve"]``; a published one has its centre at 0 and no covariance.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from minitransformer import papers
from minitransformer.laws import published
from minitransformer.laws.law import Law, short
from minitransformer.sweeps.grid import load_spec

logger = logging.getLogger(__name__)

WITHOUT_SCRIPT = (
    "This place holds a calculator for browsers that run JavaScript: sliders for size, tokens, compute and batch, the loss that each "
    "law expects, and the best size for the compute. The laws themselves are in the table below."
)


@dataclass(frozen=True)
class Choice:
    """A law of the calculator, with what a reader has to know about it.

    ranges: N and D of the runs behind it. batch: tokens per step that the slider first shows.
    data, counts, band: MyST Markdown.
    """

    id: str
    label: str
    law: Law
    ranges: dict[str, tuple[float, float]]
    batch: float
    tokens: str
    data: str
    counts: str
    band: str

    def to_dict(self) -> dict[str, Any]:
        curve = self.law.to_dict()["curve"]
        if curve is None:
            values = {name: estimate.value for name, estimate in self.law.parameters.items()}
            curve = {"theta": self.law.form.internal(values).tolist(), "centre": [0.0, 0.0], "covariance": None}
        return {
            "id": self.id, "label": self.label, "form": self.law.form.name, "tokens": self.tokens,
            "ranges": self.ranges, "start": {**{x: float(f"{max(self.ranges[x][1] / 10, math.sqrt(self.ranges[x][0] * self.ranges[x][1])):.2g}") for x in "ND"}, "B": self.batch}, "warnings": self.law.warning_texts(), **curve,
        }  # fmt: skip


def choices() -> list[Choice]:
    """The laws on offer; the kit's own is fitted to its committed runs."""
    kaplan, hoffmann = (lambda key, paper=paper: papers.value(f"{paper}.{key}") for paper in ("kaplan2020", "hoffmann2022"))
    batch = kaplan("setup.batch")
    massive = {x: (hoffmann(f"{x}_smallest"), hoffmann(f"{x}_largest")) for x in "ND"}
    none = "none: the paper gives no joint uncertainty of its constants"
    corrected = published("chinchilla-corrected")
    corrected_band = (
        "95 %, from the kit's own fit to the points that the authors read off Hoffmann's figure; it knows nothing of errors "
        "made in reading them"
    )
    return [
        Choice(
            "kaplan", "Kaplan 2020", published("kaplan-nd"),
            {x: (kaplan(f"setup.{x}_smallest"), kaplan(f"setup.{x}_largest")) for x in "ND"},
            batch, "WebText2 tokens", "WebText2, byte-pair tokens {cite:p}`kaplan2020`", "without embeddings", none,
        ),
        Choice(
            "chinchilla", "Chinchilla, as published", published("chinchilla"), massive, batch,
            "MassiveText tokens", "MassiveText, SentencePiece tokens {cite:p}`hoffmann2022`", "of all parameters", none,
        ),
        Choice(
            "corrected", "Chinchilla, corrected", corrected, corrected.ranges, batch,
            "MassiveText tokens", "Runs of the same paper, read off its figure and fitted again {cite:p}`besiroglu2024`",
            "of all parameters", corrected_band,
        ),
        _own(),
    ]  # fmt: skip


def _own() -> Choice:
    law = published("kit")
    config = load_spec("budgets").configs("laptop")[0]
    missed = ""
    if law.holdout:
        h = law.holdout
        missed = (
            f". Fitted without its dearest runs, the law puts the dearest of them {abs(h.error_percent):.2g} % too "
            f"{'high' if h.error_nats > 0 else 'low'}; no band covers that"
        )
    return Choice(
        "kit", "This kit", law, law.ranges, float(config.tokens_per_step),
        "characters", f"{law.n_runs} small Transformers on State of the Union addresses; tokens are characters", "without embeddings",
        f"95 %, from these runs{missed}",
    )  # fmt: skip


def rules() -> dict[str, Any]:
    """Kaplan's Table 6 (compute in PF-days), the loss of eq. 1.3, and the critical batch of eq. 1.4."""
    get = lambda key: papers.value(f"kaplan2020.{key}")
    return {
        "pf_day": get("setup.pf_day"),
        **{x: [get(f"optimum.{x}_scale"), get(f"optimum.{x}_exponent")] for x in "NBS"},
        "loss": [get("C_c_min"), get("alpha_C_min")],
        "critical": [get("B_star"), get("alpha_B")],
    }


def markup(offered: list[Choice]) -> str:
    data = json.dumps({"laws": [choice.to_dict() for choice in offered], "kaplan": rules()}, allow_nan=False).replace("</", r"<\/")
    return (
        f'<div class="calculator" id="scaling-calculator"><p class="calc-off">{WITHOUT_SCRIPT}</p></div>\n'
        f'<script type="application/json" id="scaling-laws">{data}</script>'
    )


# --- the table ---------------------------------------------------------------------------------------------------


def tex(value: float) -> str:
    """1.8e13 as 1.8 × 10^13, in at most four figures."""
    mantissa, _, power = f"{value:.4g}".partition("e")
    return mantissa + (rf" \times 10^{{{int(power)}}}" if power else "")


def equation(law: Law) -> str:
    v = {name: tex(estimate.value) for name, estimate in law.parameters.items()}
    if law.form.name == "chinchilla":
        return rf"L = {v['E']} + \frac{{{v['A']}}}{{N^{{{v['alpha']}}}}} + \frac{{{v['B']}}}{{D^{{{v['beta']}}}}}"
    ratio = f"{v['alpha_N']}/{v['alpha_D']}"
    return (
        rf"L = \left[\left(\frac{{{v['N_c']}}}{{N}}\right)^{{{ratio}}} + \frac{{{v['D_c']}}}{{D}}\right]^{{{v['alpha_D']}}}"
    )


def table(offered: list[Choice]) -> str:
    lines = ["```{list-table} The laws of the calculator, with $L$ in nats per token of their own tokens.", ":name: tab-calculator-laws",
             ":header-rows: 1", ":widths: 34 36 30", ":align: left", ":class: calculator-laws", "",
             "* - Law", "  - Fitted on", "  - Band"]  # fmt: skip
    for c in offered:
        spans = "; ".join(f"${x}$ from {short(low)} to {short(high)}" for x, (low, high) in c.ranges.items())
        lines += [f"* - **{c.label}**", "", f"    ${equation(c.law)}$", f"  - {c.data}.", f"    {spans}.", f"    $N$ {c.counts}.",
                  f"  - {c.band[0].upper()}{c.band[1:]}."]  # fmt: skip
    return "\n".join([*lines, "```"])


# --- Sphinx ------------------------------------------------------------------------------------------------------


class CalculatorDirective(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        from measured import fingerprint

        metadata = self.env.metadata[self.env.docname]
        metadata["measured"] = fingerprint(self.env.srcdir)  # read the page again when the package changes
        metadata["calculator"] = True
        self.env.note_dependency(__file__)
        return self.build()

    def build(self) -> list[nodes.Node]:
        return [nodes.raw("", markup(choices()), format="html")]


class LawsDirective(CalculatorDirective):
    def build(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table(choices()))


def load(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    if "calculator" in app.env.metadata.get(page, {}):
        app.add_css_file("calculator.css")
        app.add_js_file("calculator.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.add_directive("calculator", CalculatorDirective)
    app.add_directive("calculator-laws", LawsDirective)
    app.connect("html-page-context", load)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

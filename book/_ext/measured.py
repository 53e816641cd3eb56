"""Measured numbers, tables and figures for the book, computed from the package when a page is built.

A page never contains a typed measurement. It asks for one:

- the directive ``{claims}`` renders the table of claims from the committed runs, with ``:live:`` from your own run store;
- the directive ``{law-figure} ID`` draws a claim's figure, with ``:live:`` from your own run store;
- the role ``{measured}`ID FIELD``` prints one field of a committed claim, e.g. ``{measured}`kaplan.L_N value```;
  a third word is a Python format, e.g. ``{measured}`kaplan.L_N value .2f```.

A page that uses any of them is read again when the package or the run store changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from pathlib import Path

import matplotlib
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib import pyplot
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

import minitransformer
from minitransformer.errors import UserError

logger = logging.getLogger(__name__)

SYMBOLS = {"agrees": "✓", "differs": "≠", "not reachable at this scale": "○"}
MINUS = "\N{MINUS SIGN}"
NO_RUNS = (
    "There are no runs of your own yet. `make book`, or `minitransformer replicate --scale laptop`, "
    "trains them in a few minutes; this part of the page then shows your own numbers."
)


class MeasuredError(Exception):
    """What a page asked for does not exist; the text says what does."""


# --- numbers as text ---------------------------------------------------------------------------------------------


def decimals(value: float, low: float | None = None, high: float | None = None) -> int:
    """Decimal places that show two figures of the interval's half-width, or three of a number without interval."""
    width = (high - low) / 2 if low is not None and high is not None else 0.0
    leading, digits = (width, 2) if width > 0 else (abs(value), 3)
    return max(0, digits - 1 - int(f"{leading:e}".split("e")[1])) if leading else 1


def number(value: float, places: int) -> str:
    return f"{value:,.{places}f}".replace("-", MINUS)


def field_text(claim, field: str, spec: str = "") -> str:
    """One field of a claim as text. `interval` is the 95 % interval; a range of two numbers becomes ``a to b``."""
    if field == "interval":
        if claim.low is None or claim.high is None:
            raise MeasuredError(f"the claim {claim.id} has no interval")
        places = decimals(claim.value, claim.low, claim.high)
        return f"[{number(claim.low, places)}, {number(claim.high, places)}]"
    names = [f.name for f in dataclasses.fields(claim)]
    if field not in names:
        raise MeasuredError(f"a claim has no field {field!r}; it has: interval, {', '.join(names)}")
    value = getattr(claim, field)
    if value is None:
        raise MeasuredError(f"the claim {claim.id} has no {field}")
    if spec:
        return format(value, spec).replace("-", MINUS) if isinstance(value, (int, float)) else format(value, spec)
    if isinstance(value, (list, tuple)):
        return " to ".join(number(v, 0 if abs(v) >= 100 else decimals(v)) for v in value)
    if isinstance(value, int):
        return number(value, 0)
    if isinstance(value, float):
        if field in ("value", "low", "high"):
            return number(value, decimals(claim.value, claim.low, claim.high))
        return f"{value:g}".replace("-", MINUS) if field == "paper_value" else number(value, decimals(value))
    return str(value)


# --- where claims come from, and noticing that they changed ------------------------------------------------------


def store(srcdir: str | Path) -> Path:
    """The run store: MINITRANSFORMER_STORE, or ``runs/`` at the root of the repository."""
    return Path(srcdir, os.environ.get("MINITRANSFORMER_STORE") or "runs")


def claims(env: BuildEnvironment, live: bool) -> list:
    from minitransformer import claims as module

    env.metadata[env.docname]["measured"] = fingerprint(env.srcdir)
    try:
        return module.live(store(env.srcdir)) if live else module.committed()
    except UserError as error:
        raise MeasuredError(str(error)) from error


def find(env: BuildEnvironment, claim_id: str, live: bool):
    """The claim of that id; None where the run store holds nothing for it yet."""
    known = {claim.id: claim for claim in claims(env, live)}
    if claim_id in known:
        return known[claim_id]
    committed = {claim.id for claim in claims(env, live=False)} if live else set(known)
    if claim_id in committed:
        return None
    raise MeasuredError(f"there is no claim {claim_id!r}; there are: {', '.join(sorted(committed)) or 'none'}")


_fingerprints: dict[str, str] = {}


def fingerprint(srcdir: str | Path) -> str:
    """A hash of everything a claim depends on: the package's files and the run store's."""
    roots = [Path(minitransformer.__file__).parent, store(srcdir)]
    key = "|".join(map(str, roots))
    if key not in _fingerprints:
        digest = hashlib.sha256()
        for root in roots:
            for path in sorted(root.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
                    digest.update(path.read_bytes())
        _fingerprints[key] = digest.hexdigest()
    return _fingerprints[key]


def outdated(app: Sphinx, env: BuildEnvironment, added, changed, removed) -> list[str]:
    """Pages whose measured parts were made from another state of the package or the run store."""
    used = {doc: data["measured"] for doc, data in env.metadata.items() if "measured" in data}
    return [doc for doc, state in used.items() if state != fingerprint(env.srcdir)] if used else []


def forget_fingerprints(app: Sphinx) -> None:
    _fingerprints.clear()


# --- the directives and the role ---------------------------------------------------------------------------------


class MeasuredDirective(SphinxDirective):
    option_spec = {"live": directives.flag}

    def run(self) -> list[nodes.Node]:
        self.live = "live" in self.options
        try:
            return self.build()
        except MeasuredError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
            return []

    def no_runs(self) -> list[nodes.Node]:
        """How to make runs, said once a page."""
        if self.env.temp_data.setdefault("measured_no_runs", self.lineno) != self.lineno:
            return []
        paragraph = nodes.paragraph("", "", *self.parse_inline(NO_RUNS)[0], classes=["no-runs"])
        return [paragraph]


class Claims(MeasuredDirective):
    """The table of claims: statement, the paper's value, ours with a 95 % interval, scale, verdict."""

    HEADINGS = ("Claim", "Paper", "Ours, 95 % interval", "Scale", "Verdict")
    WIDTHS = (34, 17, 19, 9, 21)

    def build(self) -> list[nodes.Node]:
        rows = claims(self.env, self.live)
        if not rows:
            if self.live:
                return self.no_runs()
            raise MeasuredError("the package has no committed claims")
        group = nodes.tgroup(cols=len(self.WIDTHS))
        group += [nodes.colspec(colwidth=width) for width in self.WIDTHS]
        group += nodes.thead("", self.row([[nodes.Text(text)] for text in self.HEADINGS]))
        group += nodes.tbody("", *(self.row(self.cells(claim)) for claim in rows))
        return [nodes.table("", group, classes=["claims"])]

    @staticmethod
    def row(cells: list[list[nodes.Node]]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))

    def cells(self, claim) -> list[list[nodes.Node]]:
        page = f"notebooks/{Path(claim.notebook).stem}"
        unit = f" {claim.unit}" if claim.unit else ""
        paper = "–" if claim.paper_value is None else f"{claim.paper_value:g}".replace("-", MINUS) + unit
        ours = "–" if claim.value is None else number(claim.value, decimals(claim.value, claim.low, claim.high)) + unit
        known = claim.value is not None and claim.low is not None and claim.high is not None
        interval = [nodes.Text(" "), nodes.inline("", field_text(claim, "interval"), classes=["interval"])] if known else []
        return [
            [*self.inline(claim.statement), *self.below("where", f"{{doc}}`/{page}`")],
            [nodes.inline("", paper, classes=["value"]), *self.citation(claim.paper)],
            [nodes.inline("", ours, classes=["value"]), *interval],
            [nodes.Text(claim.scale)],
            [self.verdict(claim.verdict), *(self.below("reason", claim.reason) if claim.reason else [])],
        ]

    def below(self, kind: str, text: str) -> list[nodes.Node]:
        """A further line of a cell."""
        return [nodes.Text(" "), nodes.inline("", "", *self.inline(text), classes=[kind])]

    def citation(self, paper: str) -> list[nodes.Node]:
        """``kaplan2020, eq. 1.1`` as a citation and the place in the paper."""
        key, _, place = paper.partition(",")
        return [nodes.Text(" "), *self.inline(f"{{cite:t}}`{key.strip()}`" + (f",{place}" if place else ""))] if key else []

    def inline(self, text: str) -> list[nodes.Node]:
        return self.parse_inline(text)[0]

    @staticmethod
    def verdict(text: str) -> nodes.inline:
        if text not in SYMBOLS:
            raise MeasuredError(f"unknown verdict {text!r}; a verdict is one of: {', '.join(SYMBOLS)}")
        return nodes.inline("", f"{SYMBOLS[text]}\N{NO-BREAK SPACE}{text}", classes=["verdict", f"verdict-{text.split()[0]}"])


class LawFigure(MeasuredDirective):
    """The figure of one claim; the content of the directive is the caption, ``:alt:`` the text for those who cannot see it."""

    required_arguments = 1
    has_content = True
    option_spec = {"live": directives.flag, "alt": directives.unchanged_required, "name": directives.unchanged}

    def build(self) -> list[nodes.Node]:
        if not self.options.get("alt"):
            raise MeasuredError("a figure needs :alt: text")
        claim_id = self.arguments[0]
        if find(self.env, claim_id, self.live) is None:
            return self.no_runs()
        from minitransformer.figures import claim_figure

        try:
            drawing = claim_figure(claim_id, store=store(self.env.srcdir) if self.live else None)
        except UserError as error:
            raise MeasuredError(str(error)) from error
        image = nodes.image(uri=self.save(drawing, claim_id), alt=self.options["alt"], classes=["law-figure"])
        figure = nodes.figure("", image)
        if self.content:
            figure += nodes.caption("", "", *self.parse_inline(" ".join(self.content))[0])
        self.add_name(figure)
        return [figure]

    def save(self, drawing, claim_id: str) -> str:
        """Writes the picture beside the build under a name made of its content; returns its path seen from the page."""
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "minitransformer", "svg.fonttype": "path"}):
            drawing.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        pyplot.close(drawing)
        picture = buffer.getvalue()
        folder = Path(self.env.app.doctreedir).parent / "measured"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{claim_id.replace('.', '-')}-{hashlib.sha256(picture).hexdigest()[:12]}.svg"
        if not path.exists():
            path.write_bytes(picture)
        page_folder = Path(self.env.doc2path(self.env.docname)).parent
        return Path(os.path.relpath(path, page_folder)).as_posix()


class Measured(SphinxRole):
    """``{measured}`ID FIELD [FORMAT]```: one field of a committed claim."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            claim_id, field, *spec = self.text.split()
            text = field_text(find(self.env, claim_id, live=False), field, "".join(spec))
        except MeasuredError as error:
            return self.failed(str(error))
        except ValueError as error:
            return self.failed(f"{error}; write {{measured}}`claim-id field` or {{measured}}`claim-id field format`")
        return [nodes.inline("", text, classes=["measured"])], []

    def failed(self, message: str) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        logger.warning("measured `%s`: %s", self.text, message, location=self.get_location())
        return [], []


def setup(app: Sphinx) -> dict:
    app.add_directive("claims", Claims)
    app.add_directive("law-figure", LawFigure)
    app.add_role("measured", Measured())
    app.connect("builder-inited", forget_fingerprints)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

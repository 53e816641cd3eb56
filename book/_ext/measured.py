"""Measured numbers, tables and figures for the book, computed from the package when a page is built.

A page never contains a typed measurement. It asks for one:

- the directive ``{claims}`` renders the tables of claims from the committed runs, with ``:live:`` from your own run store: one for
  each part of the book, as the table of contents has them;
- the directive ``{law-figure} ID`` draws a claim's figure, with ``:live:`` from your own run store;
- the role ``{measured}`ID FIELD``` prints one field of a committed claim, e.g. ``{measured}`kaplan.L_N value```;
  a third word is a Python format, e.g. ``{measured}`kaplan.L_N value .2f```;
- of a claim's other numbers the name goes after ``more.``, as in ``{measured}`kaplan.L_ND more.alpha_D```, and before ``interval``,
  ``low``, ``high`` or ``paper_value`` where that is what is wanted.

A page that uses any of them is read again when the package or the run store changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import io
import math
import os
import re
from collections import Counter
from pathlib import Path

import matplotlib
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib import pyplot
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

import minitransformer
from minitransformer.errors import UserError

logger = logging.getLogger(__name__)

SYMBOLS = {"agrees": "✓", "differs": "≠", "not reachable at this scale": "○"}
PLURAL = {"agrees": "agree", "differs": "differ", "not reachable at this scale": "not reachable at this scale"}
MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "sigma": "σ"}
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


def power_of(*values: float | None) -> int:
    """The power of ten that numbers are printed with: 0, unless they are too large or too small to be read without."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return math.floor(math.log10(largest)) if largest >= 1e7 or 0 < largest < 1e-4 else 0


def scaled(text: str, power: int) -> str:
    return f"{text}{NBSP}×{NBSP}10{str(power).translate(SUPERSCRIPT)}" if power else text


def estimate(value: float, low: float | None = None, high: float | None = None) -> tuple[str, str]:
    """A value as text, to the figures that its interval leaves, and the interval; no text where there is none."""
    known = low is not None and high is not None
    power = power_of(value, low, high) if known else power_of(value)
    scale = 10.0**power
    places = decimals(value / scale, low / scale, high / scale) if known else decimals(value / scale)
    interval = scaled(f"[{number(low / scale, places)}, {number(high / scale, places)}]", power) if known else ""
    return scaled(number(value / scale, places), power), interval


def printed(value: float) -> str:
    """A number as a paper prints it: 0.076, 2 × 10⁸."""
    mantissa, _, exponent = f"{value:g}".partition("e")
    return scaled(mantissa.replace("-", MINUS), int(exponent or 0))


def rounded(value: float) -> str:
    """A number that has no interval: 163, 1,536, 5.52 × 10¹²."""
    power = power_of(value)
    return scaled(number(value / 10**power, 0 if not power and abs(value) >= 100 else decimals(value / 10**power)), power)


def field_text(claim, field: str, spec: str = "") -> str:
    """One field of a claim as text. `interval` is the 95 % interval; a range of two numbers becomes ``a to b``."""
    if field.startswith("more."):
        return more_text(claim, field, spec)
    if field == "interval":
        if claim.low is None or claim.high is None:
            raise MeasuredError(f"the claim {claim.id} has no interval")
        return estimate(claim.value, claim.low, claim.high)[1]
    names = [f.name for f in dataclasses.fields(claim)]
    if field not in names:
        raise MeasuredError(f"a claim has no field {field!r}; it has: interval, {', '.join(names)}")
    value = getattr(claim, field)
    if value is None:
        raise MeasuredError(f"the claim {claim.id} has no {field}")
    if spec:
        return format(value, spec).replace("-", MINUS) if isinstance(value, (int, float)) else format(value, spec)
    if isinstance(value, (list, tuple)):
        return " to ".join(map(rounded, value))
    if isinstance(value, int):
        return number(value, 0)
    if isinstance(value, float):
        if field in ("value", "low", "high"):
            power = power_of(claim.value, claim.low, claim.high)
            places = decimals(*(None if v is None else v / 10**power for v in (claim.value, claim.low, claim.high)))
            return scaled(number(value / 10**power, places), power)
        return printed(value) if field == "paper_value" else rounded(value)
    return str(value)


def more_text(claim, field: str, spec: str = "") -> str:
    """Of another number of the claim: ``more.NAME``, ``more.NAME interval`` and the like. Names may hold spaces."""
    wanted, known = field.removeprefix("more."), {one["name"]: one for one in claim.more}
    name = max((name for name in known if wanted == name or wanted.startswith(f"{name} ")), key=len, default=None)
    if name is None:
        raise MeasuredError(f"the claim {claim.id} has no more.{wanted}; it has: {', '.join(f'more.{name}' for name in known) or 'no others'}")
    one = claim.more[list(known).index(name)]
    part = dataclasses.make_dataclass("Part", ["id", "value", "low", "high", "paper_value"])
    words = wanted.removeprefix(name).split()
    asked = words.pop(0) if words and words[0] in ("interval", "value", "low", "high", "paper_value") else "value"
    return field_text(part(f"{claim.id} more.{name}", one["value"], one["low"], one["high"], one["paper_value"]), asked, " ".join(words) or spec)


def symbols(text: str, subscript: str) -> str:
    """alpha_S and N_c as symbols with their subscripts, each put where {} stands; formulas and code stay as they are."""
    pieces = re.split(r"(\$[^$]*\$|`[^`]*`)", text)
    pieces[::2] = [re.sub(rf"\b({'|'.join(GREEK)}|[A-Z])_([A-Za-z]+)\b", lambda found: GREEK.get(found[1], found[1]) + subscript.format(found[2]),
                          piece) for piece in pieces[::2]]
    return "".join(pieces)


def name_html(name: str) -> str:
    """The name of a number: other underscores are spaces."""
    return symbols(html.escape(name), "<sub>{}</sub>").replace("_", " ")


# --- where claims come from, and noticing that they changed ------------------------------------------------------


def store(srcdir: str | Path) -> Path:
    """The run store: MINITRANSFORMER_STORE, or ``runs/`` at the root of the repository."""
    return Path(srcdir, os.environ.get("MINITRANSFORMER_STORE") or "runs")


def claims(env: BuildEnvironment, live: bool) -> list:
    from minitransformer import claims as module

    state = env.metadata[env.docname]["measured"] = fingerprint(env.srcdir)
    if (state, live) not in _claims:
        try:
            _claims[state, live] = module.live(store(env.srcdir)) if live else module.committed()
        except UserError as error:
            raise MeasuredError(str(error)) from error
    return _claims[state, live]


def parts(srcdir: str | Path) -> dict[str, str]:
    """The part of the book that each notebook stands in, by the table of contents; none where there is no such table."""
    contents = Path(srcdir, "_toc.yml")
    toc = yaml.safe_load(contents.read_text(encoding="utf-8")) if contents.is_file() else {}
    return {chapter["file"]: part["caption"] for part in toc.get("parts", []) for chapter in part["chapters"]}


def by_part(rows: list, part_of: dict[str, str]) -> dict[str, list]:
    """Claims by part, in the order of the book. One of the first part, a tour, goes with those of its family (kaplan.L_N with kaplan.L_C)."""
    order = list(dict.fromkeys(part_of.values()))
    place = {claim.id: part_of.get(str(Path(claim.notebook).with_suffix("")), "") for claim in rows}
    families: dict[str, Counter] = {}
    for claim in rows:
        if place[claim.id] not in ("", *order[:1]):
            families.setdefault(claim.id.split(".")[0], Counter())[place[claim.id]] += 1
    for name, part in place.items():
        if part in order[:1] and name.split(".")[0] in families:
            place[name] = min(families[name.split(".")[0]], key=order.index)
    found = {part: [claim for claim in rows if place[claim.id] == part] for part in (*order, "")}
    return {part: claims for part, claims in found.items() if claims}


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
_claims: dict[tuple[str, bool], list] = {}  # by the state they were computed from


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
    _claims.clear()


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
    """The tables of claims: statement, the paper's value, ours with a 95 % interval and its other numbers, scale, verdict."""

    HEADINGS = ("Claim", "Paper", f"Ours, 95{NBSP}% interval", "Scale", "Verdict")
    WIDTHS = (26, 15, 22, 10, 27)

    def build(self) -> list[nodes.Node]:
        rows = claims(self.env, self.live)
        if not rows:
            if self.live:
                return self.no_runs()
            raise MeasuredError("the package has no committed claims")
        self.env.metadata[self.env.docname]["claims"] = True
        groups = by_part(rows, parts(self.env.srcdir))
        found = [] if self.live else [self.counts(rows)]
        for part, some in groups.items():
            heading = nodes.rubric("", part, classes=["claims-part"])
            heading["level"] = heading["heading-level"] = 3  # for MyST, and for Sphinx without it
            found += [heading, self.table(some)] if len(groups) > 1 and part else [self.table(some)]
        if not self.live:
            import downloads

            self.env.metadata[self.env.docname]["claims_csv"] = downloads.claims_csv(rows)
            link = downloads.links(self.env.docname, [downloads.CLAIMS], "The same as data: ")
            found.append(nodes.paragraph("", "", *link, classes=["figure-data"]))
        return found

    def counts(self, rows: list) -> nodes.paragraph:
        """How many claims there are of each verdict."""
        verdicts = Counter(claim.verdict for claim in rows)
        words = [f"{len(rows)} claim{'s' * (len(rows) != 1)}: "]
        for text in SYMBOLS:
            if verdicts[text]:
                words += [self.verdict(text, verdicts[text]), " "]
        return nodes.paragraph("", "", *(nodes.Text(word) if isinstance(word, str) else word for word in words), classes=["claims-counts"])

    def table(self, rows: list) -> nodes.table:
        group = nodes.tgroup(cols=len(self.WIDTHS))
        group += [nodes.colspec(colwidth=width) for width in self.WIDTHS]
        group += nodes.thead("", self.row([[nodes.Text(text)] for text in self.HEADINGS]))
        group += nodes.tbody("", *(self.row(self.cells(claim), self.more(claim)) for claim in rows))
        return nodes.table("", group, classes=["claims", "colwidths-given"])

    @staticmethod
    def row(cells: list[list[nodes.Node]], more: nodes.Node | None = None) -> nodes.row:
        """more: goes below the third cell."""
        entries = [nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells]
        if more is not None:
            entries[2] += more
        return nodes.row("", *entries)

    def cells(self, claim) -> list[list[nodes.Node]]:
        page = f"notebooks/{Path(claim.notebook).stem}"
        share = claim.unit == "relative"  # in per cent, as the pages of published numbers have it
        unit = f"{NBSP}%" if share else f" {claim.unit}" if claim.unit else ""
        in_unit = lambda value: value if value is None or not share else 100 * value
        paper = "–" if claim.paper_value is None else printed(in_unit(claim.paper_value)) + unit
        ours, interval = ("–", "") if claim.value is None else estimate(*map(in_unit, (claim.value, claim.low, claim.high)))
        beside = [nodes.Text(" "), nodes.inline("", interval, classes=["interval"])] if interval else []
        return [
            [*self.inline(claim.statement), *self.below("where", f"{{doc}}`/{page}`")],
            [nodes.inline("", paper, classes=["value"]), *self.citation(claim.paper)],
            [nodes.inline("", ours + unit * (ours != "–"), classes=["value"]), *beside],
            [nodes.Text(claim.scale)],
            [self.verdict(claim.verdict), *(self.below("reason", claim.reason) if claim.reason else [])],
        ]

    @staticmethod
    def more(claim) -> nodes.raw | None:
        """The claim's other numbers, folded away."""
        lines = []
        for one in getattr(claim, "more", ()):
            ours, interval = ("–", "") if one["value"] is None else estimate(one["value"], one["low"], one["high"])
            paper = "" if one["paper_value"] is None else f"; paper {printed(one['paper_value'])}"
            lines.append(f"<li>{name_html(one['name'])}: <b>{ours}</b>{f' <span>{interval}</span>' * bool(interval)}{paper}</li>")
        if not lines:
            return None
        said = f"{len(lines)} more number{'s' * (len(lines) > 1)}"
        return nodes.raw("", f'<details class="more"><summary>{said}</summary><ul>{"".join(lines)}</ul></details>', format="html")

    def below(self, kind: str, text: str) -> list[nodes.Node]:
        """A further line of a cell."""
        return [nodes.Text(" "), nodes.inline("", "", *self.inline(text), classes=[kind])]

    def citation(self, paper: str) -> list[nodes.Node]:
        """``kaplan2020, eq. 1.1`` as a citation and the place in the paper."""
        key, _, place = paper.partition(",")
        return [nodes.Text(" "), *self.inline(f"{{cite:t}}`{key.strip()}`" + (f",{place}" if place else ""))] if key else []

    def inline(self, text: str) -> list[nodes.Node]:
        return self.parse_inline(symbols(text, "{{sub}}`{}`"))[0]

    @staticmethod
    def verdict(text: str, count: int | None = None) -> nodes.inline:
        if text not in SYMBOLS:
            raise MeasuredError(f"unknown verdict {text!r}; a verdict is one of: {', '.join(SYMBOLS)}")
        words = f"{SYMBOLS[text]}{NBSP}{text}" if count is None else f"{SYMBOLS[text]}{NBSP}{count}{NBSP}{text if count == 1 else PLURAL[text]}"
        return nodes.inline("", words, classes=["verdict", f"verdict-{text.split()[0]}"])


class LawFigure(MeasuredDirective):
    """The figure of one claim; the content of the directive is the caption, ``:alt:`` the text for those who cannot see it."""

    required_arguments = 1
    has_content = True
    option_spec = {"live": directives.flag, "alt": directives.unchanged_required, "name": directives.unchanged, "class": directives.class_option}

    def build(self) -> list[nodes.Node]:
        if not self.options.get("alt"):
            raise MeasuredError("a figure needs :alt: text")
        claim_id = self.arguments[0]
        if find(self.env, claim_id, self.live) is None:
            return self.no_runs()
        try:
            drawing = self.draw(claim_id)
        except UserError as error:
            raise MeasuredError(str(error)) from error
        image = nodes.image(uri=self.save(drawing, claim_id), alt=self.options["alt"], classes=["law-figure"])
        figure = nodes.figure("", image, classes=self.options.get("class", []))
        if self.content:
            figure += nodes.caption("", "", *self.parse_inline(" ".join(self.content))[0])
        self.add_name(figure)
        return [figure]

    def draw(self, claim_id: str) -> Figure:
        from minitransformer.figures import claim_figure

        return claim_figure(claim_id, store=store(self.env.srcdir) if self.live else None)

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
            if field.startswith("more."):
                field, spec = " ".join([field, *spec]), []
            text = field_text(find(self.env, claim_id, live=False), field, "".join(spec))
        except MeasuredError as error:
            return self.failed(str(error))
        except ValueError as error:
            return self.failed(f"{error}; write {{measured}}`claim-id field` or {{measured}}`claim-id field format`")
        return [nodes.inline("", text, classes=["measured"])], []

    def failed(self, message: str) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        logger.warning("measured `%s`: %s", self.text, message, location=self.get_location())
        return [], []


def load(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    if "claims" in app.env.metadata.get(page, {}):
        app.add_js_file("claims.js", loading_method="defer")


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", load)
    app.add_directive("claims", Claims)
    app.add_directive("law-figure", LawFigure)
    app.add_role("measured", Measured())
    app.connect("builder-inited", forget_fingerprints)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Print the numbers of ``minitransformer.papers`` in the book, so that none is typed twice.

In MyST Markdown:

``{published}`kaplan2020.alpha_N` ``
    the number as the paper prints it.
``{calc}`1 / kaplan2020.alpha_B : .2f` ``
    arithmetic on keys (with ``exp``, ``log`` and ``sqrt``), in a Python number format.
```` ```{published} kaplan2020.L_ND kaplan2020.L_NS ````
    a table of the groups named; the group of ``kaplan2020.L_ND.alpha_N`` is ``kaplan2020.L_ND``. Wildcards work.
    The body is the caption. ``:groups: columns`` (or ``rows``) lays out like quantities of several groups side by side;
    there each quantity reads "group: quantity".
```` ```{confidence} ````
    the grades of ``minitransformer.papers.CONFIDENCE``.
"""

import fnmatch
import math
import re
from pathlib import Path
from types import SimpleNamespace

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from minitransformer import papers
from minitransformer.errors import UserError

logger = logging.getLogger(__name__)

MISSING = "–"
NBSP = "\N{NO-BREAK SPACE}"
SOURCE = str(Path(papers.__file__).with_name("papers.csv"))


def group(entry: papers.Published) -> str:
    return entry.key.rpartition(".")[0]


def parts(number: str) -> tuple[str, str]:
    """A printed number as (plain text, power of ten): "8.8e13" gives ("8.8 × 10", "13"), "0.050" gives ("0.050", "")."""
    mantissa, _, exponent = number.lower().replace("-", "−").partition("e")
    if exponent:
        sign = "−" if exponent[0] == "−" else ""
        power = sign + exponent.lstrip("+−").lstrip("0")
        return ("10" if mantissa == "1" else f"{mantissa}{NBSP}×{NBSP}10"), power
    if re.fullmatch(r"−?\d{5,}", mantissa):
        return f"{int(mantissa.replace('−', '-')):,}".replace("-", "−"), ""
    return mantissa, ""


def inline(number: str) -> list[nodes.Node]:
    text, power = parts(number)
    return [nodes.Text(text)] + ([nodes.superscript("", power)] if power else [])


def markdown(number: str) -> str:
    text, power = parts(number)
    return text + (f"{{sup}}`{power}`" if power else "")


def printed(entry: papers.Published, unit: bool = True) -> str:
    if entry.unit == "relative":
        return f"{100 * entry.value:g}{NBSP}%".replace("-", "−")
    text = markdown(entry.printed)
    if entry.low is not None:
        text += f" [{markdown(f'{entry.low:g}')}, {markdown(f'{entry.high:g}')}]"
    return f"{text} {entry.unit}".strip() if unit else text


def labelled(symbol: str, quantity: str) -> str:
    """The quantity with its symbol before it, and with the symbols inside it typeset."""
    text = re.sub(r"L\((\w+)\)", r"$L(\1)$", quantity).replace("C_min", r"C_{\min}")
    text = re.sub(r"\b([nd])_([a-z]+)(²?)", r"$\1_{\\text{\2}}\3$", text).replace("²$", "^2$")
    return f"${symbol}$, {text}" if symbol else text


def list_table(rows: list[list[str]], caption: str, name: str, widths: str = "", look: str = "published") -> str:
    """A MyST list-table; cells are MyST Markdown and may hold line breaks."""
    options = {"name": name, "header-rows": "1", "widths": widths, "align": "left", "class": look}
    lines = [f"```{{list-table}} {caption}", *(f":{key}: {value}" for key, value in options.items() if value), ""]
    for row in rows:
        lines += [("* - " if i == 0 else "  - ") + cell.replace("\n", "\n    ") for i, cell in enumerate(row)]
    return "\n".join([*lines, "```"])


def namespace() -> dict:
    """The table as nested objects, so that ``kaplan2020.L_ND.alpha_N`` is an expression."""
    root = SimpleNamespace(exp=math.exp, log=math.log, sqrt=math.sqrt)
    for entry in papers.TABLE.values():
        *path, name = entry.key.split(".")
        place = root
        for step in path:
            if not hasattr(place, step):
                setattr(place, step, SimpleNamespace())
            place = getattr(place, step)
        setattr(place, name, entry.value)
    return vars(root) | {"__builtins__": {}}


def calculate(text: str) -> str:
    """The text of a ``calc`` role, evaluated and formatted."""
    expression, _, form = text.rpartition(":")
    return format(eval(" ".join(expression.split()), namespace()), form.strip())


class PublishedRole(SphinxRole):
    def text_of(self) -> str:
        return papers.get(self.text).printed

    def run(self):
        self.env.note_dependency(SOURCE)
        try:
            return inline(self.text_of()), []
        except (UserError, AttributeError, NameError, SyntaxError, ValueError) as error:
            logger.warning("%s `%s`: %s", self.name, self.text, error, location=self.get_location())
            return [], []


class CalcRole(PublishedRole):
    def text_of(self) -> str:
        return calculate(self.text)


class PublishedDirective(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = {"name": directives.unchanged, "groups": lambda text: directives.choice(text, ("rows", "columns"))}

    def run(self):
        self.env.note_dependency(SOURCE)
        patterns = self.arguments[0].split()
        entries = [e for e in papers.TABLE.values() if any(fnmatch.fnmatchcase(group(e), p) for p in patterns)]
        if not entries:
            raise self.error(f"no published number belongs to {self.arguments[0]!r}")
        caption, name = " ".join(self.content), self.options.get("name", "")
        if "groups" in self.options:
            table = self.side_by_side(entries), caption, name
        else:
            table = self.one_below_the_other(entries), caption, name, "58 22 20", "published published-rows"
        return self.parse_text_to_nodes(list_table(*table).replace(" %", f"{NBSP}%"))

    @staticmethod
    def one_below_the_other(entries):
        rows = [["Quantity", "Value", "Where · grade"]]
        for e in entries:
            quantity = labelled(e.symbol, e.quantity + (f" ({e.note})" if e.note else ""))
            source = f"{e.where}{NBSP}·{NBSP}{e.confidence}" if e.where else e.confidence
            rows.append([f"{quantity}\\\n`{e.key}`", printed(e), source])
        return rows

    def side_by_side(self, entries):
        cells = {tuple(e.key.rsplit(".", 1)): e for e in entries}
        groups, names = (list(dict.fromkeys(axis)) for axis in zip(*cells))
        titles = {g: e.quantity.split(": ")[0] for (g, _), e in cells.items()}
        labels, shared = {}, {}
        for name in names:
            like = [e for (_, n), e in cells.items() if n == name]
            units = {e.unit for e in like}
            shared[name] = len(units) == 1
            quantity, unit = like[0].quantity.split(": ", 1)[1], like[0].unit
            labels[name] = labelled(like[0].symbol, quantity + (f" ({unit})" if shared[name] and unit else ""))

        def cell(g, name):
            entry = cells.get((g, name))
            return MISSING if entry is None else printed(entry, unit=not shared[name]) + (" †" if entry.note else "")

        def titled(text, key):
            return f"{text}\\\n`{key.rpartition('.')[2]}`"

        corner = "Domain" if self.options["groups"] == "rows" else "Quantity"
        table = [[corner, *(titled(labels[n], n) for n in names)]]
        table += [[titled(titles[g], g), *(cell(g, n) for n in names)] for g in groups]
        return table if self.options["groups"] == "rows" else [list(column) for column in zip(*table)]


class ConfidenceDirective(SphinxDirective):
    option_spec = {"name": directives.unchanged}

    def run(self):
        self.env.note_dependency(papers.__file__)
        rows = [["Grade", "Meaning"], *map(list, papers.CONFIDENCE.items())]
        return self.parse_text_to_nodes(list_table(rows, "How a number was read.", self.options.get("name", ""), "15 85"))


def setup(app):
    app.add_directive("confidence", ConfidenceDirective)
    app.add_role("published", PublishedRole())
    app.add_role("calc", CalcRole())
    app.add_directive("published", PublishedDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

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
SOURCE = str(Path(papers.__file__).with_name("papers.csv"))


def group(entry: papers.Published) -> str:
    return entry.key.rpartition(".")[0]


def parts(number: str) -> tuple[str, str]:
    """A printed number as (plain text, power of ten): "8.8e13" gives ("8.8 × 10", "13"), "0.050" gives ("0.050", "")."""
    mantissa, _, exponent = number.lower().replace("-", "−").partition("e")
    if exponent:
        sign = "−" if exponent[0] == "−" else ""
        power = sign + exponent.lstrip("+−").lstrip("0")
        return ("10" if mantissa == "1" else f"{mantissa} × 10"), power
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
    text = markdown(entry.printed)
    if entry.low is not None:
        text += f" ({markdown(f'{entry.low:g}')}, {markdown(f'{entry.high:g}')})"
    return f"{text} {entry.unit}".strip() if unit else text


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
        rows = self.side_by_side(entries) if "groups" in self.options else self.one_below_the_other(entries)
        head, *body = ["| " + " | ".join(row) + " |" for row in rows]
        lines = [f"```{{table}} {' '.join(self.content)}", ":align: left", ":class: published"]
        if "name" in self.options:
            lines.append(f":name: {self.options['name']}")
        return self.parse_text_to_nodes("\n".join([*lines, "", head, "|" + " --- |" * len(rows[0]), *body, "```"]))

    def one_below_the_other(self, entries):
        rows = [["Quantity", "Value", "Where", "Read", "Key"]]
        for e in entries:
            quantity = f"${e.symbol}$, {e.quantity}" if e.symbol else e.quantity
            if e.note:
                quantity += f" ({e.note})"
            rows.append([quantity, printed(e), e.where or MISSING, e.confidence, f"`{e.key}`"])
        return rows

    def side_by_side(self, entries):
        cells = {tuple(e.key.rsplit(".", 1)): e for e in entries}
        groups, names = (list(dict.fromkeys(axis)) for axis in zip(*cells))
        title = {g: e.quantity.split(": ")[0] for (g, _), e in cells.items()}
        label = {}
        for (_, name), e in cells.items():
            quantity = e.quantity.split(": ", 1)[1]
            label.setdefault(name, f"${e.symbol}$, {quantity}" if e.symbol else quantity)

        def cell(g, name):
            entry = cells.get((g, name))
            return MISSING if entry is None else printed(entry) + (" †" if entry.note else "")

        if self.options["groups"] == "columns":
            rows = [["Quantity", *(title[g] for g in groups), "Key"]]
            rows += [[label[n], *(cell(g, n) for g in groups), f"`….{n}`"] for n in names]
            return rows + [["Key", *(f"`{g}.…`" for g in groups), ""]]
        rows = [["", *(label[n] for n in names), "Key"]]
        rows += [[title[g], *(cell(g, n) for n in names), f"`{g}.…`"] for g in groups]
        return rows + [["Key", *(f"`….{n}`" for n in names), ""]]


def setup(app):
    app.add_role("published", PublishedRole())
    app.add_role("calc", CalcRole())
    app.add_directive("published", PublishedDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

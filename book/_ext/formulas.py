"""How wide MathJax sets a formula within a line, from its TeX and the widths of MathJax's own letters, before the formula is set.

Of what the book uses: letters, numbers, signs with TeX's spaces about them, scripts, fractions, roots, text. Widths in em of the
surrounding text at `SCALE`, which `_config.yml` gives to MathJax too. An unknown command counts as a letter.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

SCALE = 1.2  # of formulas to the text about them; MathJax's own choice would depend on the reader's fonts
TABLES = Path(__file__).parents[1] / "_static" / "mathjax" / "tex-mml-chtml.js"
LETTER = re.compile(r"[{,](12\d{4}|11\d{4}|8462):\[-?[\d.]+,-?[\d.]+,([\d.]+)(?:,\{ic:([\d.]+))?")
ITALIC = {**{chr(65 + i): 119860 + i for i in range(26)}, **{chr(97 + i): 119886 + i for i in range(26)}, "h": 8462,
          **{name: 120572 + i for i, name in enumerate((
              "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau upsilon "
              "varphi chi psi omega partial epsilon vartheta varkappa phi").split())}}  # fmt: skip
ROMAN = dict(zip("abcdefghijklmnopqrstuvwxyz -–'", (
    .5, .556, .444, .556, .444, .306, .5, .556, .278, .306, .528, .278, .833, .556, .5, .556, .528, .392, .394, .389, .556, .528, .722, .528,
    .528, .444, .25, .333, .5, .278)))  # fmt: skip
RELATIONS = dict.fromkeys("= < > : propto approx le leq ge geq lt gt gtrsim lesssim sim simeq equiv ne neq".split(), 0.778) | {
    "in": 0.667, "to": 1.0, "ll": 1.0, "gg": 1.0, "mid": 0.278}  # fmt: skip
BINARIES = dict.fromkeys(["+", "-", "times", "pm", "mp"], 0.778) | {"cdot": 0.278, "*": 0.5}
OPERATORS = {"log": 1.278, "ln": 0.834, "exp": 1.472, "min": 1.667, "max": 1.861, "arg": 1.392, "lim": 1.389}
OTHERS = dict.fromkeys("()", 0.389) | dict.fromkeys("[]|.,;", 0.278) | {"/": 0.5, "'": 0.32, "infty": 1.0, "ldots": 1.172, "dots": 1.172, "cdots": 1.172,
          "Sigma": 0.722, "Delta": 0.833, "Omega": 0.722, "{": 0.5, "}": 0.5, "%": 0.833, "sum": 1.056, "prod": 0.944, "int": 0.6, "~": 0.25}  # fmt: skip
SPACES = {",": 0.167, ":": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, "quad": 1.0, "qquad": 2.0}
NOTHING = {"left", "right", "big", "bigl", "bigr", "Big", "Bigl", "Bigr", "limits", "nolimits", "displaystyle", "textstyle"}
TEXTS = {"text", "mathrm", "operatorname", "textbf", "mathbf", "texttt", "mathsf"}
THROUGH = {"hat", "bar", "tilde", "mathcal", "boldsymbol", "mathit", "overline", "vec"}
SMALL, AFTER_SCRIPT, FRACTION, ROOT = 0.707, 0.05, 0.24, 0.853
TOKEN = re.compile(r"\s*(\\[A-Za-z]+|\\.|\d+(?:[.,]\d+)*|\S)", re.S)


@lru_cache(maxsize=1)
def letters() -> dict[int, tuple[float, float]]:
    """Code point → width and italic correction, of MathJax's italic letters."""
    return {int(code): (float(wide), float(more or 0)) for code, wide, more in LETTER.findall(TABLES.read_text(encoding="utf-8"))}


def width(tex: str) -> float:
    """How wide a formula will be, in em of the text about it."""
    return SCALE * _Row(tex).width()


class _Row:
    """A row of a formula: its atoms one after another as (kind, width, italic correction); kinds as in The TeXbook, chapter 18."""

    def __init__(self, tex: str, script: bool = False):
        self.tex, self.at, self.script = tex, 0, script

    def width(self) -> float:
        atoms = self.atoms()
        total, before = 0.0, "open"
        for i, (kind, wide, more) in enumerate(atoms):
            if kind == "binary" and (before in ("open", "relation", "binary", "operator", "punctuation") or i + 1 == len(atoms)):
                kind = "letter"
            space = {"relation": 0.278, "binary": 0.222}.get(kind, 0.0)
            after = space + (0.167 if kind == "punctuation" else 0.0)
            if kind == "operator":
                space = 0.167 if before in ("letter", "close") else 0.0
                after = 0.167 if i + 1 < len(atoms) and atoms[i + 1][0] in ("letter", "operator") else 0.0
            at_end = i + 1 == len(atoms)
            total += wide + more + (0.0 if self.script and kind != "operator" else (space if i else 0.0) + (0.0 if at_end else after))
            before = kind
        return total

    def atoms(self) -> list[tuple[str, float, float]]:
        found: list[tuple[str, float, float]] = []
        while (token := self.next()) is not None:
            if token in ("^", "_"):
                self.add_script(found, token)
            elif token == "'":
                kind, wide, more = found.pop() if found else ("letter", 0.0, 0.0)
                found.append((kind, wide + more + SMALL * OTHERS["'"] + AFTER_SCRIPT, 0.0))
            elif (atom := self.atom(token)) is not None:
                found.append(atom)
        return found

    def next(self) -> str | None:
        match = TOKEN.match(self.tex, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match[1]

    def argument(self) -> str:
        """What stands in the braces that follow, or the one token."""
        token = self.next()
        if token != "{":
            if token and token[0].isdigit():  # of x^12 only the 1 is raised
                self.at -= len(token) - 1
                token = token[0]
            name = (token or "").removeprefix("\\")
            return f"{token}{{{self.argument()}}}" if name in TEXTS | THROUGH else token or ""
        start, depth = self.at, 1
        while depth and (token := self.next()) is not None:
            depth += (token == "{") - (token == "}")
        return self.tex[start : self.at - 1] if depth == 0 else self.tex[start:]

    def inner(self, tex: str, script: bool = False) -> float:
        return _Row(tex, script or self.script).width()

    def add_script(self, found: list[tuple[str, float, float]], token: str) -> None:
        kind, wide, more = found.pop() if found else ("letter", 0.0, 0.0)
        scripts = {token: self.inner(self.argument(), True)}
        saved, other = self.at, self.next()
        if other in ("^", "_") and other != token:
            scripts[other] = self.inner(self.argument(), True)
        else:
            self.at = saved
        raised = scripts.get("^", -1.0) * SMALL + more
        found.append((kind, wide + max(raised, scripts.get("_", -1.0) * SMALL) + AFTER_SCRIPT, 0.0))

    def atom(self, token: str) -> tuple[str, float, float] | None:
        name = token.removeprefix("\\")
        if token == "{":
            self.at -= 1
            return "letter", self.inner(self.argument()), 0.0
        if token[0] == "\\":
            if name in SPACES:
                return "space", SPACES[name], 0.0
            if name in NOTHING:
                if name in ("left", "right") and self.tex[self.at : self.at + 1] == ".":
                    self.at += 1
                return None
            if name in TEXTS:
                kind = "operator" if name == "operatorname" else "letter"
                return kind, sum(ROMAN.get(sign, 0.5 if not sign.isupper() else 0.74) for sign in self.argument()), 0.0
            if name in THROUGH:
                return "letter", self.inner(self.argument()), 0.0
            if name in ("frac", "tfrac", "dfrac"):
                parts = self.inner(self.argument(), True), self.inner(self.argument(), True)
                return "letter", (1.0 if name == "dfrac" else SMALL) * max(parts) + FRACTION, 0.0
            if name == "sqrt":
                return "letter", self.inner(self.argument()) + ROOT, 0.0
        if name[0].isdigit():
            return "letter", sum(0.5 if sign.isdigit() else 0.278 for sign in name), 0.0
        for kind, table in (("relation", RELATIONS), ("binary", BINARIES), ("operator", OPERATORS)):
            if name in table:
                return kind, table[name], 0.0
        if name in OTHERS:
            kind = {"(": "open", "[": "open", ")": "close", "]": "close", ",": "punctuation", ";": "punctuation"}.get(name, "letter")
            return kind, OTHERS[name], 0.0
        wide, more = letters().get(ITALIC.get(name, 0), (0.6, 0.0))
        return "letter", wide, more

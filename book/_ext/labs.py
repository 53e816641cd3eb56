"""```` ```{labs} ````: a table of the course labs, made from their sources when the page is built.

```` ```{labs-seconds} ````: the seconds that their solutions take, from what benchmarks/labs.py printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Mapping

from published import list_table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from minitransformer.labs import Lab, find_labs
from minitransformer.labs.source import FOLDER

ROOT = Path(__file__).resolve().parents[2]
SOURCES, PRINTED = ROOT / FOLDER / "source", ROOT / "benchmarks" / "labs.txt"


def row(lab: Lab) -> list[str]:
    """The lab, the question under its title, what its exercises are about, minutes and points."""
    question = re.search(r"^\*\*(.+?)\*\*", lab.notebook["cells"][0]["source"], re.M)
    topics = "; ".join(exercise.title for exercise in lab.exercises)
    return [f"[{lab.title}](../{(FOLDER / lab.name).as_posix()}.ipynb)", f"{question[1]} *{topics}*" if question else topics, str(lab.minutes), str(lab.points)]


class LabsDirective(SphinxDirective):
    def run(self):
        labs = find_labs(SOURCES)
        for name in labs:
            self.env.note_dependency(str(SOURCES / f"{name}.ipynb"))
        rows = [["Lab", "What it asks, and its exercises", "Minutes", "Points"], *map(row, labs.values())]
        return self.parse_text_to_nodes(list_table(rows, "The labs, counted from their sources.", "labs-table", "24 56 10 10"))


def seconds(text: str, labs: Mapping[str, Lab]) -> list[list[str]]:
    """A head and a row for each lab, as `PROCESSOR (CLOCK)` at each scale, or a dash. The text may hold what was printed for some labs or scales
    after another; the last one counts. Raises ValueError where there is nothing at all."""
    timed: dict[tuple[str, str], str] = {}
    scales: list[str] = []
    for first, *rest in filter(None, map(str.split, text.splitlines())):
        if first == "lab":
            scales = rest
        elif first in labs:
            timed.update({(first, scale): f"{rest[2 * i]} {rest[2 * i + 1]}" for i, scale in enumerate(scales)})
    if not timed:
        raise ValueError("benchmarks/labs.txt has no seconds of any lab; write it with: python benchmarks/labs.py > benchmarks/labs.txt")
    every = dict.fromkeys(scale for _, scale in timed)
    return [["Lab", *(f"At `{scale}` scale" for scale in every)], *([lab.title, *(timed.get((name, scale), "–") for scale in every)] for name, lab in labs.items())]


class SecondsDirective(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(PRINTED))
        try:
            rows = seconds(PRINTED.read_text(encoding="utf-8"), find_labs(SOURCES))
        except (OSError, ValueError) as problem:
            raise self.error(str(problem)) from None
        caption = "Seconds of processor time that the solutions of each lab take as a whole; in parentheses those by the clock, on two cores. A dash: not timed."
        return self.parse_text_to_nodes(list_table(rows, caption, "labs-seconds-table"))


def setup(app: Sphinx) -> dict:
    app.add_directive("labs", LabsDirective)
    app.add_directive("labs-seconds", SecondsDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

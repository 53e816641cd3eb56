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
    topics = "; ".join(exercise.title[0].lower() + exercise.title[1:] for exercise in lab.exercises)
    return [f"[{lab.title}](../{(FOLDER / lab.name).as_posix()}.ipynb)", f"{question[1]} *{topics}*" if question else topics, str(lab.minutes), str(lab.points)]


class LabsDirective(SphinxDirective):
    def run(self):
        labs = find_labs(SOURCES)
        for name in labs:
            self.env.note_dependency(str(SOURCES / f"{name}.ipynb"))
        rows = [["Lab", "What it asks, and its exercises", "Minutes", "Points"], *map(row, labs.values())]
        return self.parse_text_to_nodes(list_table(rows, "The labs, counted from their sources.", "labs-table", "24 56 10 10"))


def seconds(text: str, labs: Mapping[str, Lab]) -> list[list[str]]:
    """A head and a row for each lab, as `PROCESSOR (CLOCK)` at each scale. Raises ValueError where a lab was not timed."""
    lines = text.splitlines()
    scales = next((line.split()[1:] for line in lines if line.startswith("lab ")), [])
    timed = {line.split()[0]: re.findall(r"\d+ \(\d+\)", line) for line in lines if line.split()[:1] and line.split()[0] in labs}
    missing = [name for name in labs if not scales or len(timed.get(name, ())) != len(scales)]
    if missing:
        raise ValueError(f"benchmarks/labs.txt has no seconds of {', '.join(missing)}; write it with: python benchmarks/labs.py > benchmarks/labs.txt")
    return [["Lab", *(f"At `{scale}` scale" for scale in scales)], *([lab.title, *timed[name]] for name, lab in labs.items())]


class SecondsDirective(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(PRINTED))
        try:
            rows = seconds(PRINTED.read_text(encoding="utf-8"), find_labs(SOURCES))
        except (OSError, ValueError) as problem:
            raise self.error(str(problem)) from None
        caption = "Seconds of processor time that the solutions of each lab take as a whole; in parentheses those by the clock, on a machine busy with other work."
        return self.parse_text_to_nodes(list_table(rows, caption, "labs-seconds-table"))


def setup(app: Sphinx) -> dict:
    app.add_directive("labs", LabsDirective)
    app.add_directive("labs-seconds", SecondsDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

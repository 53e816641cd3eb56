"""```` ```{labs} ````: a table of the course labs, made from their sources when the page is built."""

from __future__ import annotations

import re
from pathlib import Path

from published import list_table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from minitransformer.labs import Lab, find_labs
from minitransformer.labs.source import FOLDER

SOURCES = Path(__file__).resolve().parents[2] / FOLDER / "source"


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


def setup(app: Sphinx) -> dict:
    app.add_directive("labs", LabsDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

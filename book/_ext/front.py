"""The front page's figure: ```` ```{front-figure} kaplan.L_N ```` draws the claim in few words; options and caption as of `law-figure`.

`found` draws the same claim under the title of the book, as the picture of a link to it.
"""

from __future__ import annotations

import downloads
from docutils import nodes
from matplotlib.figure import Figure
from measured import LawFigure
from sphinx.application import Sphinx

from minitransformer import claims
from minitransformer.figures.front import front_figure


class FrontFigure(LawFigure):
    option_spec = {name: check for name, check in LawFigure.option_spec.items() if name != "live"}

    def build(self) -> list[nodes.Node]:
        found = super().build()
        (definition,) = claims.definitions(tuple(self.arguments))
        for figure in found:
            downloads.note(self.env, self.env.docname, list(definition.specs))
            figure += downloads.legend(self.env.docname, list(definition.specs))
        return found

    def draw(self, claim_id: str) -> Figure:
        self.env.metadata[self.env.docname]["front_claim"] = claim_id
        return front_figure(claims.runs_behind(*claims.definitions((claim_id,))))


def setup(app: Sphinx) -> dict:
    app.add_directive("front-figure", FrontFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""The front page's figure: ```` ```{front-figure} kaplan.L_N ```` draws the claim in few words; options and caption as of `law-figure`.

The same figure, with the title of the book above it, is the picture that is shown where a page of the book is linked to.
"""

from __future__ import annotations

from measured import LawFigure
from matplotlib.figure import Figure
from sphinx.application import Sphinx

from minitransformer import claims
from minitransformer.figures.front import front_figure


class FrontFigure(LawFigure):
    option_spec = {name: check for name, check in LawFigure.option_spec.items() if name != "live"}

    def draw(self, claim_id: str) -> Figure:
        return front_figure(claims.runs_behind(*claims.definitions((claim_id,))))


def setup(app: Sphinx) -> dict:
    app.add_directive("front-figure", FrontFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

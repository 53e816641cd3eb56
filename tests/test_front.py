"""The front page's figure: our points and the slope that the paper printed, said in words at the lines."""

import math

import pytest

from minitransformer import claims, papers
from minitransformer.claims import sizes
from minitransformer.figures.front import front_figure


@pytest.fixture(scope="module")
def runs():
    (definition,) = (d for d in claims.DEFINITIONS if d.published == "kaplan2020.alpha_N" and d.specs == ("ladder",))
    return claims.runs_behind(definition)


def test_points_are_the_committed_runs_and_the_dashed_line_has_the_papers_slope(runs):
    (axis,) = front_figure(runs).axes
    law = sizes.size_law(claims.complete(runs))
    drawn = [sorted(line.get_xdata()) for line in axis.lines]
    assert sorted(law.runs.x) in drawn and sorted(law.means.x) in drawn
    (dashed,) = (line for line in axis.lines if len(line.get_xdata()) == 2)
    (x0, x1), (y0, y1) = dashed.get_data()
    assert math.log(y1 / y0) / math.log(x1 / x0) == pytest.approx(-papers.value("kaplan2020.alpha_N"))


def test_it_says_in_words_what_is_whose_and_its_axes_have_units(runs):
    (axis,) = front_figure(runs).axes
    words = [text.get_text().replace("\n", " ") for text in axis.texts]
    assert any("trained here" in text for text in words) and any("Kaplan" in text for text in words)
    assert "parameters" in axis.get_xlabel() and "nats" in axis.get_ylabel()


def test_words_stay_inside_the_picture(runs):
    for size, fonts in (((6.2, 3.2), 1.0), ((10, 5.25), 1.5)):
        figure = front_figure(runs, size, fonts)
        figure.draw_without_rendering()
        (axis,) = figure.axes
        for text in axis.texts:
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= axis.bbox.y0


def test_too_few_sizes_are_drawn_as_the_chapter_draws_them(runs):
    few = runs[runs.N.isin(sorted(set(runs.N))[:2])]
    assert any("no law fitted" in text.get_text() for text in front_figure(few).axes[0].texts)

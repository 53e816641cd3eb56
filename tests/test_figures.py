import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from minitransformer.errors import UserError
from minitransformer.figures import (
    Curve, PlainLog, curves_figure, diagnosis_figure, ends_figure, isoflop_figure, law_figure, learning_curve_figure,
    plain, scientific, style, two_axes_figure,
)
from minitransformer.figures.style import apart
from minitransformer.laws import fit, published
from minitransformer.laws.diagnose import diagnose
from minitransformer.laws.frontier import argmin, by_budget, parabolas



def fit_power_law(x, loss, seed=None, name="N", within=None):
    return fit("power", loss, seed=seed, within=within, **{name: x})


def ladder(k=6, n=3):
    random = np.random.default_rng(2)
    x = np.repeat(np.geomspace(1568, 98816, k), n)
    return x, 1.52 * (1e5 / x) ** 0.097 * np.exp(0.004 * random.standard_normal(k * n))


@pytest.fixture
def law():
    x, loss = ladder()
    return fit_power_law(np.append(x, 400), np.append(loss, 3.2), within=(1000, None))


def curves():
    t = np.geomspace(10, 1000, 12)
    return [Curve(n, t, f + 2 * (t / 10) ** -0.7) for n, f in ((1568, 2.27), (6272, 1.9), (98816, 1.52)) for _ in range(2)]


def training(law):
    """A curve 10 % above the law until its learning rate comes down, diagnosed half-way and at the end."""
    step = np.geomspace(100, 16000, 30)
    loss = 1.1 * law.predict(N=2e5, D=512 * step).value
    loss[-1] /= 1.1
    found = [diagnose(step[:k], loss[:k], 2e5, law=law, tokens_per_step=512, planned_steps=16000, decayed=k == 30) for k in (24, 30)]
    return step, loss, found


def grid_law():
    N, D = (v.ravel() for v in np.meshgrid([1e4, 3e4, 1e5], [2.5e5, 1e6, 4e6]))
    N, D = np.tile(N, 2), np.tile(D, 2)
    return fit("chinchilla", (0.9 + 12 / N**0.35 + 330 / D**0.49) * np.exp(0.003 * np.random.default_rng(1).standard_normal(18)), N=N, D=D)


def valleys(slope=0.6):
    """Four budgets with their best size at 1e4 (C / 1e11)^slope."""
    C, x = (v.ravel() for v in np.meshgrid(np.geomspace(3e10, 3e11, 4), np.linspace(-1.5, 1.5, 7)))
    N = 1e4 * (C / 1e11) ** slope * np.exp(x)
    return by_budget({"N": N, "D": C / (6 * N), "C": C, "loss": 2 * (C / 1e11) ** -0.05 * np.exp(0.02 * x**2)})


def texts(figure):
    return " | ".join(t.get_text() for a in figure.axes for t in a.texts)


def drawn(axis):
    return {(round(x, 6), round(y, 6)) for line in axis.lines for x, y in zip(*map(np.atleast_1d, line.get_data()))
            if isinstance(x, (float, int, np.floating))}


def figures(law):
    yield law_figure(law, paper=0.076, paper_name="Kaplan 2020", to=1e6)
    yield learning_curve_figure(fit_power_law(*ladder(), name="D"), vocab_size=79, unigram=2.9, paper=0.094)
    yield curves_figure(curves())
    yield curves_figure([Curve(c.size, c.x * c.size * 1e7, c.loss) for c in curves()], xlabel="training compute (FLOPs)")
    yield two_axes_figure([3e3, 9e3, 4e3, 1e4], [1e3, 6e3, 1e3, 6e3], [2.2, 2.0, 2.3, 2.1], [1, 1, 2, 2])
    yield law_figure(fit_power_law(*ladder(3)))
    yield isoflop_figure(valleys(), parabolas(valleys()), argmin(valleys()))
    yield ends_figure({"mean": [(0.1, 0.3), (1.4, 2.0)], "sum": [(0.35, 0.37)]}, (0.35, 0.37))
    yield diagnosis_figure(*training(grid_law()), grid_law(), 512)


def test_every_axis_is_labelled_with_units_and_ticks_that_can_be_read(law):
    for figure in figures(law):
        figure.draw_without_rendering()
        for axis in figure.axes:
            for side in (axis.xaxis, axis.yaxis):
                low, high = sorted(side.get_view_interval())
                ticks = [t for t in side.get_majorticklocs() if low <= t <= high]
                assert 2 <= len(ticks) <= 8
                if side.get_scale() == "log":
                    assert low > 0 and len(side.get_minorticklocs()) == 0
                    assert "10^{0}" not in "".join(t.get_text() for t in side.get_ticklabels())
                assert all(t.label1.get_fontsize() >= 10 for t in side.get_major_ticks())
        assert "(" in figure.axes[0].get_ylabel()
        last = figure.axes[-1].get_xlabel()
        assert "(" in last or last == "training step"
        assert all(t.get_fontsize() >= 10 for a in figure.axes for t in a.texts)
        assert figure.get_facecolor() == (1, 1, 1, 1)
        assert figure.get_figwidth() <= 6.5


def test_figures_are_not_left_open_for_pyplot_to_show_twice(law):
    before = plt.get_fignums()
    list(figures(law))
    assert plt.get_fignums() == before


def test_style_does_not_leak_and_survives_saving(law, tmp_path):
    before = dict(matplotlib.rcParams)
    figure = law_figure(law)
    assert dict(matplotlib.rcParams) == before
    figure.savefig(tmp_path / "law.png")
    assert all(t.label1.get_fontsize() == 11 for t in figure.axes[0].xaxis.get_major_ticks())
    assert plt.imread(tmp_path / "law.png").shape[:2] == (648, 672)


def test_law_figure_draws_every_run_mean_and_excluded_point(law):
    points = drawn(law_figure(law).axes[0])
    for group in (law.runs, law.means, law.excluded):
        assert {(round(x, 6), round(y, 6)) for x, y in zip(group.x, group.loss)} <= points


def test_law_figure_draws_intervals_paper_and_hold_out(law):
    figure = law_figure(law, paper=0.076, paper_name="Kaplan 2020")
    top, below = figure.axes
    band = top.collections[0].get_paths()[0].vertices
    value, low, high = law.predict(law.range[0])
    at_left = band[np.isclose(band[:, 0], law.range[0]), 1]
    assert at_left.min() == pytest.approx(low) and at_left.max() == pytest.approx(high)
    dashed = next(l for l in top.lines if l.get_linestyle() == "--")
    x, y = dashed.get_data()
    assert np.diff(np.log(y)) / np.diff(np.log(x)) == pytest.approx(-0.076)
    assert np.sqrt(y[0] * y[1]) == pytest.approx(law.predict(np.sqrt(x[0] * x[1])).value)
    assert (round(law.holdout.x, 6), round(law.holdout.predicted, 6)) in drawn(top)
    assert len(top.containers) == 1
    said = texts(figure)
    assert f"{law.exponent.value:.3f} (95 %" in said and "Kaplan 2020, dashed" in said
    assert f"{abs(law.holdout.error_percent):.1f} % too" in said and "left out" in said
    assert len(below.collections) == 1


def test_residual_panel_is_in_per_cent(law):
    below = law_figure(law).axes[1]
    residuals = below.lines[-1].get_ydata()
    assert residuals == pytest.approx(100 * np.expm1(law.residuals))
    assert below.get_ylabel() == "residual (%)"


def test_refused_law_shows_points_and_says_why():
    figure = law_figure(fit_power_law(*ladder(3)), paper=0.076)
    assert len(figure.axes) == 1 and "no law fitted" in texts(figure) and "dashed" not in texts(figure)
    with pytest.raises(UserError, match="nothing to draw"):
        law_figure(fit_power_law([], []))


def test_learning_curve_draws_guessing_and_unigram():
    figure = learning_curve_figure(fit_power_law(*ladder(), name="D"), vocab_size=79, unigram=2.9)
    levels = {l.get_ydata()[0] for l in figure.axes[0].lines if len(l.get_xdata()) == 2 and list(l.get_xdata()) == [0, 1]}
    assert levels == {np.log(79), 2.9}
    assert figure.axes[0].get_ylim()[1] > np.log(79)
    assert "log V" in texts(figure)


def test_curves_have_one_colour_and_one_label_per_size():
    axis = curves_figure(curves()).axes[0]
    assert len(axis.lines) == 6 and len({l.get_color() for l in axis.lines}) == 3
    assert [t.get_text() for t in axis.texts] == ["N = 1.57k", "6.27k", "98.8k"]
    with pytest.raises(UserError):
        curves_figure([])


def test_labels_are_moved_apart():
    heights = np.array([10.0, 11, 12, 90])
    moved = np.sort(heights + apart(heights, 14))
    assert (np.diff(moved) > 13.9).all() and moved[3] == pytest.approx(90)
    above = np.sort(heights + apart(heights, 14, least=5))
    assert (np.diff(above) > 13.9).all() and above[0] == pytest.approx(5) and above[3] == pytest.approx(90)


def test_two_axes_share_losses_and_differ_in_n():
    total, non = np.array([3e3, 9e3, 4e3, 1e4, 1e4]), np.array([1e3, 6e3, 1e3, 6e3, 6e3])
    loss, depth = np.array([2.2, 2.0, 2.3, 2.1, 2.2]), [1, 1, 2, 2, 2]
    figure = two_axes_figure(total, non, loss, depth)
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    for axis, n in ((left, total), (right, non)):
        assert set(zip(n, loss)) <= drawn(axis)
        assert (n[4], round(np.sqrt(2.1 * 2.2), 6)) in drawn(axis)
    assert "1 layer" in texts(figure) and "2 layers" in texts(figure)
    with pytest.raises(UserError):
        two_axes_figure([1], [1, 2], [1], [1])


@pytest.mark.parametrize("value, text", [(1500, "1.5k"), (1e4, "10k"), (98600, "98.6k"), (1e6, "1M"), (1.6, "1.6"), (-2, "\N{MINUS SIGN}2"), (0, "0"), (1e-4, "0.0001")])
def test_plain_numbers(value, text):
    assert plain(value) == text


@pytest.mark.parametrize(
    "low, high, ticks",
    [
        (1.45, 2.35, [1.6, 1.8, 2.0, 2.2]),
        (1.4e3, 1.1e5, [3e3, 1e4, 3e4, 1e5]),
        (9e2, 1.1e6, [1e3, 1e4, 1e5, 1e6]),
    ],
)
def test_log_ticks_are_round(low, high, ticks):
    assert PlainLog().tick_values(low, high) == pytest.approx(ticks)


def test_style_is_a_context():
    with style():
        assert matplotlib.rcParams["font.size"] >= 10 and not matplotlib.rcParams["axes.spines.top"]


def test_figures_never_import_torch():
    code = "import sys, minitransformer.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_diagnosis_marks_each_moment_and_the_expected_end():
    law = grid_law()
    step, loss, found = training(law)
    figure = diagnosis_figure(step, loss, found, law, 512)
    top, below = figure.axes
    assert {(round(d.step, 6), round(d.loss, 6)) for d in found} <= drawn(top)
    assert f"1: {found[0].stage} | 2: {found[1].stage}" in texts(figure)
    assert len(top.containers) == 1 and top.containers[0].lines[0].get_ydata()[0] == pytest.approx(law.predict(N=2e5, D=512 * 16000).value)
    above = below.lines[0].get_ydata()
    assert above[:-1] == pytest.approx(10) and above[-1] == pytest.approx(0, abs=1e-9)
    assert below.lines[0].get_xdata()[0] * 512 >= law.ranges["D"][0]


def test_diagnosis_is_drawn_against_a_published_law_and_refuses_others():
    law = published("kaplan-ns")
    step = np.geomspace(1000, 1e5, 20)
    loss = law.predict(N=1e8, S=step).value
    found = [diagnose(step, loss, 1e8, law=law, planned_steps=1e5, decayed=True)]
    figure = diagnosis_figure(step, loss, found, law)
    assert not figure.axes[0].collections
    with pytest.raises(UserError, match="tokens_per_step"):
        diagnosis_figure(step, loss, found, published("chinchilla"))
    with pytest.raises(UserError, match="N, D and S only"):
        diagnosis_figure(step, loss, found, published("kaplan-n"))


def test_isoflop_marks_the_minima_and_the_line_through_them():
    slices = valleys()
    found = parabolas(slices)
    left, right = isoflop_figure(slices, found, argmin(slices)).axes
    for minimum in found.minima:
        assert (round(minimum.N.value, 6), round(minimum.loss.value, 6)) in drawn(left)
        assert (round(minimum.C, 6), round(minimum.N.value, 6)) in drawn(right)
    C, N = right.lines[-1].get_data()
    assert np.diff(np.log(N)) / np.diff(np.log(C)) == pytest.approx(0.6)
    assert "best run of each budget" in texts(left.figure)
    assert "best run" not in texts(isoflop_figure(slices, found))


def test_isoflop_without_a_minimum_shows_the_runs_alone():
    C, N = (v.ravel() for v in np.meshgrid([1e10, 1e11], [1e3, 1e4, 1e5, 1e6]))
    slices = by_budget({"N": N, "D": C / N / 6, "C": C, "loss": 3 * N**-0.1})
    left, right = isoflop_figure(slices, parabolas(slices)).axes
    assert len(left.lines) >= 2 and not any(len(line.get_xdata()) for line in right.lines)


def test_ends_are_drawn_in_pairs_with_the_minimum():
    figure = ends_figure({"mean": [(0.1, 0.3), (1.4, 2.0)], "sum": [(0.35, 0.37)]}, (0.36, 0.38))
    assert {(0.1, 0.3), (1.4, 2.0), (0.35, 0.37), (0.36, 0.38)} <= drawn(figure.axes[0])
    assert texts(figure) == "● mean | ■ sum | ✕ the minimum"
    with pytest.raises(UserError, match="no ends"):
        ends_figure({})


def test_scientific_has_no_padding():
    assert [scientific(v) for v in (3.77e10, 1e9, 5.5e-4)] == ["3.8e10", "1.0e9", "5.5e-04"]


def test_a_law_with_a_floor_is_drawn_with_its_hold_out():
    N, loss = ladder(7)
    figure = law_figure(fit("power-floor", loss + 1, N=N))
    assert "largest held out" in texts(figure)

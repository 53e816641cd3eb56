"""The published numbers: complete, well-formed, and doing the arithmetic that their papers do (or fail to do)."""

import csv
import importlib.util
import re
from math import exp, log
from pathlib import Path

import pytest

from minitransformer import papers
from minitransformer.errors import UserError
from minitransformer.papers import value

BOOK = Path(__file__).parents[1] / "book"
kaplan = {key.removeprefix("kaplan2020."): entry.value for key, entry in papers.TABLE.items() if entry.paper == "kaplan2020"}


def test_keys_are_unique_and_usable_as_python_names():
    rows = list(csv.DictReader(Path(papers.__file__).with_name("papers.csv").read_text(encoding="utf-8").splitlines()))
    keys = [row["key"] for row in rows]
    assert len(keys) == len(set(keys)) == len(papers.TABLE)
    assert all(part.isidentifier() for key in keys for part in key.split("."))
    groups = {key.rpartition(".")[0] for key in keys}
    assert not groups & set(keys), "a key may not be the group of another"


def test_every_number_says_how_it_was_read():
    for entry in papers.TABLE.values():
        assert entry.confidence in papers.CONFIDENCE, entry.key
        assert entry.quantity and entry.value == float(entry.printed), entry.key
        assert (entry.low is None) == (entry.high is None), entry.key
        assert entry.low is None or entry.low < entry.high, entry.key
    assert "M" not in papers.CONFIDENCE


def test_every_paper_is_in_the_bibliography():
    entries = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.M))
    assert {entry.paper for entry in papers.TABLE.values()} <= entries


def test_get_and_value():
    entry = papers.get("kaplan2020.alpha_C_min")
    assert (entry.paper, entry.value, entry.printed, entry.confidence) == ("kaplan2020", 0.05, "0.050", "A")
    assert papers.get("hoffmann2022.isoflop.a").low == 0.462
    assert value("hestness2017.char_lm_sgd.beta_g") == -0.0936


def test_unknown_key_names_the_nearest():
    with pytest.raises(UserError, match=r"kaplan2020\.alpha_N"):
        papers.get("kaplan2020.alphaN")
    with pytest.raises(UserError, match="TABLE"):
        papers.value("?")


def rounded(x, digits=2):
    return float(f"{x:.{digits}g}")


@pytest.mark.parametrize("N, loss", [(1e6, 4.02), (1e7, 3.37), (1e8, 2.83), (1e9, 2.38)])
def test_kaplan_loss_against_size(N, loss):
    assert (kaplan["N_c"] / N) ** kaplan["alpha_N"] == pytest.approx(loss, abs=0.005)


@pytest.mark.parametrize("D, loss", [(2.2e7, 4.05), (1e8, 3.50), (1e9, 2.82), (1e10, 2.26)])
def test_kaplan_loss_against_data(D, loss):
    assert (kaplan["D_c"] / D) ** kaplan["alpha_D"] == pytest.approx(loss, abs=0.005)


@pytest.mark.parametrize("L, batch", [(4, 2.7e5), (3, 1.1e6), (2.5, 2.5e6), (2, 7.4e6)])
def test_kaplan_critical_batch(L, batch):
    assert rounded(kaplan["B_star"] / L ** (1 / kaplan["alpha_B"])) == batch


@pytest.mark.parametrize("N, rate", [(1e6, 1.31e-3), (1e7, 9.9e-4), (1e8, 6.7e-4), (1e9, 3.5e-4)])
def test_kaplan_learning_rate_needs_the_natural_logarithm(N, rate):
    assert kaplan["rate.intercept"] + kaplan["rate.slope"] * log(N) == pytest.approx(rate, rel=0.01)
    assert exp(-kaplan["rate.intercept"] / kaplan["rate.slope"]) == pytest.approx(1.2e10, rel=0.02)


def test_kaplan_eq_6_4_gives_less_than_it_prints():
    predicted = 1 / (1 / kaplan["alpha_S"] + 1 / kaplan["alpha_B"] + 1 / kaplan["alpha_N"])
    assert predicted == pytest.approx(0.0520, abs=5e-5)
    assert rounded(predicted) == kaplan["optimum.alpha_C_theory_appendix"] != kaplan["optimum.alpha_C_theory"]
    exponents = [predicted / kaplan[a] for a in ("alpha_N", "alpha_B", "alpha_S")]
    assert exponents == pytest.approx([0.684, 0.248, 0.068], abs=5e-4)


def test_kaplan_overfitting_exponent_comes_from_table_2():
    assert rounded(kaplan["L_ND.alpha_N"] / kaplan["L_ND.alpha_D"]) == kaplan["overfitting.D_exponent"]
    assert kaplan["alpha_N"] / kaplan["alpha_D"] == pytest.approx(0.80)


def test_kaplan_overfitting_prefactor():
    exponent = kaplan["L_ND.alpha_N"] / kaplan["L_ND.alpha_D"]
    tolerated = (1 + kaplan["noise.seed"]) ** (1 / kaplan["L_ND.alpha_D"]) - 1
    assert rounded(kaplan["L_ND.D_c"] / kaplan["L_ND.N_c"] ** exponent / tolerated) == 5.5e3


def test_kaplan_eq_6_7_prefactor_is_half_what_it_prints():
    data = 2 * kaplan["setup.pf_day"] / (6 * kaplan["optimum.N_scale"])
    assert rounded(data) == 2.2e10
    assert rounded(data, 1) == kaplan["optimum.D_scale"] == kaplan["optimum.D_scale_text"] / 2


def test_kaplan_crossing_follows_from_table_6_not_from_eq_6_7():
    def crossing(scale, exponent):
        data_loss = (kaplan["D_c"] / scale) ** kaplan["alpha_D"]
        slope = kaplan["alpha_C_min"] - exponent * kaplan["alpha_D"]
        return (kaplan["C_c_min"] ** kaplan["alpha_C_min"] / data_loss) ** (1 / slope)

    from_table = crossing(kaplan["optimum.D_scale"], kaplan["optimum.D_exponent"])
    assert rounded(from_table, 1) == kaplan["crossing.C"]
    assert rounded((kaplan["C_c_min"] / from_table) ** kaplan["alpha_C_min"]) == kaplan["crossing.L"]
    assert crossing(kaplan["optimum.D_scale_text"], kaplan["optimum.D_exponent_text"]) > 9 * kaplan["crossing.C"]


def test_kaplan_eq_B_8_scale():
    aN, aS, Nc, Sc = (kaplan[f"L_NS.{name}"] for name in ("alpha_N", "alpha_S", "N_c", "S_c"))
    scale = 6 * Nc * kaplan["B_star_table"] * Sc * (1 + aN / aS) ** (1 / aS + 1 / aN) * (aS / aN) ** (1 / aS)
    assert rounded(scale / kaplan["setup.pf_day"]) == 1.6e8


def test_kaplan_appendix_B_ratios():
    aN, aS, near = kaplan["L_NS.alpha_N"], kaplan["L_NS.alpha_S"], 0.02
    f = aN / aS
    size = ((1 + f) / (1 + near)) ** (1 / aN)
    steps = ((1 + 1 / f) / (1 + 1 / near)) ** (1 / aS)
    assert f == pytest.approx(kaplan["efficient.above_converged"], rel=0.02)
    assert rounded(size) == kaplan["efficient.N_ratio"]
    assert rounded(steps) == kaplan["efficient.S_ratio"]
    assert rounded(size * steps) == kaplan["efficient.C_ratio"]


def test_kaplan_trains_six_epochs():
    seen = kaplan["setup.steps"] * kaplan["setup.batch"]
    assert seen == pytest.approx(1.31e11, rel=0.005)
    assert seen / (kaplan["setup.tokens"] - kaplan["setup.test_tokens"]) == pytest.approx(5.9, abs=0.05)


def test_kaplan_L_ND_with_6ND_would_not_give_their_optimum():
    ratio = kaplan["L_ND.alpha_N"] / kaplan["L_ND.alpha_D"]
    assert 1 / (1 + ratio) == pytest.approx(0.575, abs=5e-4)


HAD19 = {"word_lm": True, "char_lm": False, "translation": True, "speech": True, "image": True}


@pytest.mark.parametrize("domain, consistent", HAD19.items())
def test_hestness_2019_learning_curves_pass_through_today(domain, consistent):
    row = lambda name: value(f"hestness2019.{domain}.{name}")
    today = row("alpha") * row("m") ** row("beta_g")
    assert (today == pytest.approx(row("best"), rel=0.011)) is consistent
    assert row("data_growth") ** row("beta_p") == pytest.approx(row("model_growth"), rel=0.025)


def test_hestness_2019_growth_of_data():
    def implied(domain):
        row = lambda name: value(f"hestness2019.{domain}.{name}")
        return (row("best") / row("target")) ** (-1 / row("beta_g"))

    assert [implied(d) for d in HAD19] == pytest.approx([104, 836, 750, 19.5, 80], rel=0.01)


def test_hestness_2019_char_row_agrees_with_itself_at_minus_0_090():
    row = lambda name: value(f"hestness2019.char_lm.{name}")
    from_today = log(row("best") / row("alpha")) / log(row("m"))
    from_growth = -log(row("best") / row("target")) / log(row("data_growth"))
    assert (from_today, from_growth) == pytest.approx((-0.0900, -0.0900), abs=5e-5)


def test_hestness_2019_char_sigma_is_ten_times_too_large():
    row = lambda name: value(f"hestness2019.char_lm.{name}")
    today = row("sigma") * 1e6 * row("m") ** row("beta_p")
    assert today * row("model_growth") / row("target_size") == pytest.approx(11.6, rel=0.01)


def test_hoffmann_optimum_depends_on_rounding():
    A, B, C = value("hoffmann2022.A"), value("hoffmann2022.B"), value("hoffmann2022.gopher_C")

    def optimum(alpha, beta, C=C):
        G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
        return G * (C / 6) ** (beta / (alpha + beta))

    unrounded = value("hoffmann2022.unrounded.alpha"), value("hoffmann2022.unrounded.beta")
    assert optimum(value("hoffmann2022.alpha"), value("hoffmann2022.beta")) == pytest.approx(32.2e9, rel=0.01)
    assert rounded(optimum(*unrounded)) == value("hoffmann2022.gopher_N_parametric")
    assert optimum(*unrounded, C=10 * value("hoffmann2022.appendix.C_175B")) == pytest.approx(175e9, rel=0.1)


def test_besiroglu_exponent_of_the_optimum():
    a = value("besiroglu2024.beta") / (value("besiroglu2024.alpha") + value("besiroglu2024.beta"))
    assert round(a, 3) == value("besiroglu2024.a")


def test_muennighoff_value_of_repeated_data():
    R = value("muennighoff2023.R_star_D")
    worth = [(1 + R * (1 - exp(-(epochs - 1) / R))) / epochs for epochs in (2, 4, 8, 16, 40)]
    assert worth == pytest.approx([0.984, 0.931, 0.828, 0.661, 0.379], abs=5e-4)


def test_the_appendix_prints_every_group_once():
    page = (BOOK / "published.md").read_text(encoding="utf-8")
    printed = [name for line in re.findall(r"^`{3,}\{published\} (.+)$", page, re.M) for name in line.split()]
    groups = {key.rpartition(".")[0] for key in papers.TABLE}
    matched = [g for name in printed for g in groups if re.fullmatch(re.escape(name).replace(r"\*", ".*"), g)]
    assert sorted(matched) == sorted(groups)


@pytest.fixture(scope="module")
def directive():
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("published_directive", BOOK / "_ext" / "published.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "number, text",
    [("8.8e13", "8.8 × 10^13"), ("1e-5", "10^−5"), ("-0.050", "−0.050"), ("524288", "524,288"), ("1.0e+04", "1.0 × 10^4")],
)
def test_numbers_are_printed_as_a_reader_writes_them(directive, number, text):
    mantissa, power = directive.parts(number)
    assert mantissa.replace(directive.NBSP, " ") + (f"^{power}" if power else "") == text


def test_the_book_computes_on_keys_and_nothing_else(directive):
    assert directive.calculate("kaplan2020.L_ND.alpha_N /\n kaplan2020.L_ND.alpha_D : .3f") == "0.738"
    with pytest.raises(NameError):
        directive.calculate("open('x') : s")


def test_every_number_on_the_pages_exists(directive):
    for page in BOOK.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for key in re.findall(r"\{published\}`([^`]+)`(?!`)", text):
            papers.get(key)
        for expression in re.findall(r"\{calc\}`([^`]+)`", text):
            directive.calculate(expression)

"""The published numbers: complete and well-formed. What follows from them is tested in test_known_answers.py."""

import csv
import importlib.util
import re
from math import log
from pathlib import Path

import pytest

from minitransformer import papers
from minitransformer.errors import UserError
from minitransformer.papers import value

BOOK = Path(__file__).parents[1] / "book"


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

"""The calculator page: its script gives the numbers of the Python functions, and its controls do what they say."""

import importlib.util
import math
import sys
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest

from minitransformer import papers
from minitransformer.laws import fit, published
from minitransformer.laws.plan import allocate, kaplan_rules

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static"
spec = importlib.util.spec_from_file_location("calculator", ROOT / "book" / "_ext" / "calculator.py")
calculator = importlib.util.module_from_spec(spec)
sys.modules["calculator"] = calculator  # dataclasses look there
spec.loader.exec_module(calculator)

CHOICES = {choice.id: choice for choice in calculator.choices()}
BANDED = [name for name, choice in CHOICES.items() if choice.law.engine is not None]
BUDGETS = np.geomspace(1e8, 1e27, 39)
CLOSE = 1e-6


def settings(choice, beyond: float = 1e3) -> list[dict[str, float]]:
    """N and D over the runs behind a law and `beyond` times further either way."""
    (n, m), (d, e) = choice.ranges["N"], choice.ranges["D"]
    return [{"N": N, "D": D} for N in np.geomspace(n / beyond, m * beyond, 17) for D in np.geomspace(d / beyond, e * beyond, 13)]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """The calculator alone on a page, as the directive writes it."""
    page = tmp_path_factory.mktemp("calculator") / "page.html"
    page.write_text(
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Calculator</title>'
        f'<link rel="stylesheet" href="{(STATIC / "calculator.css").as_uri()}"><script src="{(STATIC / "calculator.js").as_uri()}" defer></script>'
        f'</head><body><main><h1>Calculator</h1><h2>Ask</h2>{calculator.markup(list(CHOICES.values()))}</main></body></html>',
        encoding="utf-8",
    )
    return page


def opened(browser, path):
    """A page that must end without a word on the console or a request to anywhere else."""
    context = browser.new_context(viewport={"width": 900, "height": 900})
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert said == []
    assert asked and not [url for url in asked if not url.startswith("file:")]
    context.close()


@pytest.fixture
def page(browser, path):
    yield from opened(browser, path)


@pytest.fixture(scope="module")
def script(browser, path):
    """One page for all questions about numbers."""
    yield from opened(browser, path)


def ask(script, function: str, law, inputs: list) -> list:
    """function(law, input) of the script for each input; `law` is a name, a dictionary, or None for functions without one."""
    call = f"scalingLaws.{function}({'law, ' if law else ''}each)"
    return script.evaluate(f"([law, inputs]) => inputs.map((each) => {call})", [law, [clean(each) for each in inputs]])


def clean(value):
    return {k: float(v) for k, v in value.items()} if isinstance(value, dict) else float(value)


def worst(ours, theirs) -> float:
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    assert ours.shape == theirs.shape and np.isfinite(ours).all() and (ours > 0).all()
    return float(np.max(np.abs(theirs / ours - 1)))


# --- the numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHOICES)
def test_loss(script, name):
    at = settings(CHOICES[name])
    assert worst([CHOICES[name].law.predict(**each).value for each in at], ask(script, "loss", name, at)) < CLOSE


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("function", ["band", "predict"])
def test_band_of_the_law_and_interval_of_a_new_run(script, name, function):
    at = settings(CHOICES[name], beyond=30)
    found = ask(script, function, name, at)
    if name not in BANDED:
        assert found == [None] * len(at)
        return
    law = CHOICES[name].law
    wanted = [getattr(law, function)(**each) for each in at]
    assert worst([[w.low, w.high] for w in wanted], [[f["low"], f["high"]] for f in found]) < CLOSE


@pytest.mark.parametrize("name", CHOICES)
def test_optimum(script, name):
    keys = ["N", "D", "loss", *(["low", "high", "N_low", "N_high", "D_low", "D_high"] if name in BANDED else [])]
    budgets = BUDGETS if name not in BANDED else [6 * each["N"] * each["D"] for each in settings(CHOICES[name], beyond=10)[::13]]
    found = ask(script, "optimum", name, budgets)
    wanted = [allocate(CHOICES[name].law, float(C)) for C in budgets]
    assert worst([[getattr(w, k) for k in keys] for w in wanted], [[f[k] for k in keys] for f in found]) < CLOSE
    assert all(("N_low" in f) == (name in BANDED) for f in found)


@pytest.mark.parametrize("name", CHOICES)
def test_no_other_size_is_better(script, name):
    law = CHOICES[name].law
    for C, best in zip(BUDGETS, ask(script, "optimum", name, BUDGETS)):
        others = best["N"] * np.array([0.5, 0.99, 1.01, 2.0])
        assert math.isclose(6 * best["N"] * best["D"], C, rel_tol=1e-12)
        assert (law.predict(N=others, D=C / (6 * others)).value > best["loss"]).all()


@pytest.mark.parametrize("name", ["kaplan-nd", "chinchilla"])
def test_either_form_with_a_covariance(script, name):
    """A law fitted to made-up runs: centred inputs, and derivatives of both forms."""
    true = published(name)
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    noise = np.exp(0.01 * np.random.RandomState(0).standard_normal(len(N)))
    law = fit(name, true.predict(N=N, D=D).value * noise, N=N, D=D)
    data = {"form": name, **law.to_dict()["curve"]}
    at = [{"N": n, "D": d} for n in np.geomspace(1e4, 1e11, 9) for d in np.geomspace(1e6, 1e13, 9)]
    for function in ("band", "predict"):
        wanted = [getattr(law, function)(**each) for each in at]
        found = ask(script, function, data, at)
        assert worst([[w.low, w.high] for w in wanted], [[f["low"], f["high"]] for f in found]) < CLOSE
    budgets = np.geomspace(1e15, 1e24, 10)
    keys = ["N", "D", "loss", "low", "high", "N_low", "N_high", "D_low", "D_high"]
    wanted = [[getattr(allocate(law, float(C)), k) for k in keys] for C in budgets]
    assert worst(wanted, [[f[k] for k in keys] for f in ask(script, "optimum", data, budgets)]) < CLOSE


def test_kaplans_rules(script):
    keys = ["N", "D", "B", "S", "loss"]
    wanted = [[getattr(kaplan_rules(float(C)), k) for k in keys] for C in BUDGETS]
    assert worst(wanted, [[f[k] for k in keys] for f in ask(script, "kaplanRules", None, BUDGETS)]) < CLOSE


def test_critical_batch(script):
    losses = np.geomspace(1.2, 8, 30)
    assert worst(published("kaplan-b-crit").predict(losses).value, ask(script, "criticalBatch", None, losses)) < CLOSE


def test_batch_against_steps_and_compute(script):
    """Kaplan et al. 2020, eqs. 5.1, 5.2, 5.4 and 5.5."""
    at = [{"N": 1e8, "D": 1e10, "B": B, "L": 3.0} for B in np.geomspace(1e3, 1e9, 13)]
    critical = published("kaplan-b-crit").predict(3.0).value
    for given, found in zip(at, ask(script, "batch", None, at)):
        B, S = given["B"], given["D"] / given["B"]
        wanted = [S, critical, S / (1 + critical / B), given["D"] / (1 + B / critical), 6e18 / (1 + B / critical)]
        assert worst(wanted, [found[k] for k in ("S", "critical", "steps", "tokens", "compute")]) < CLOSE
        assert math.isclose((found["S"] / found["steps"] - 1) * (given["D"] / found["tokens"] - 1), 1, rel_tol=1e-9)
        assert math.isclose(found["tokens"] / found["steps"], found["critical"], rel_tol=1e-9)


@pytest.mark.parametrize(
    "text, value",
    [("1500", 1500), ("1,500", 1500), ("1.5k", 1500), ("70B", 7e10), ("70 b", 7e10), ("1.4T", 1.4e12), ("5.76e23", 5.76e23), ("1e-3", 1e-3),
     ("", None), ("-1", None), ("0", None), ("abc", None), ("1e999", None), ("1.2.3", None), ("7x", None),
     ("1,5", None), ("1,5e9", None), ("12,34", None), ("1,500,000", 1.5e6), ("1,500.5", 1500.5), ("1,500k", 1.5e6), ("0,5B", None), (",500", None)],
)  # fmt: skip
def test_typed_numbers(script, text, value):
    assert script.evaluate("(text) => { const n = scalingLaws.parse(text); return Number.isNaN(n) ? null : n; }", text) == value


@pytest.mark.parametrize(
    "value, text", [(1536, "1.54k"), (7e10, "70B"), (999.9, "1k"), (1.4e12, "1.4T"), (0.5, "0.5"), (5.76e23, "5.76 × 10²³"), (1e-5, "10⁻⁵")]
)  # fmt: skip
def test_printed_numbers(script, value, text):
    assert script.evaluate("(value) => scalingLaws.pretty(value)", value) == text


# --- the page ----------------------------------------------------------------------------------------------------


def said(page) -> str:
    page.wait_for_timeout(500)
    return page.inner_text("#calc-said")


def address(page) -> dict[str, str]:
    page.wait_for_timeout(500)
    return {k: v[0] for k, v in parse_qs(page.evaluate("location.hash.slice(1)")).items()}


def typed(page, name: str, text: str) -> None:
    page.fill(f"#calc-{name}", text)
    page.press(f"#calc-{name}", "Tab")


def test_it_starts_with_a_law_and_says_so(page):
    assert page.is_checked("[value=kaplan]")
    assert "Kaplan 2020: loss" in said(page)
    assert address(page) == {}, "an address is only changed by its reader"


def test_compute_follows_size_and_data(page):
    page.check("[value=chinchilla]")
    typed(page, "N", "1B")
    typed(page, "D", "20B")
    assert page.input_value("#calc-C") == "1.2e20"
    expected = published("chinchilla").predict(N=1e9, D=2e10).value
    assert f"loss {expected:.4g}" in said(page)


def test_moving_compute_goes_to_the_optimum(page):
    page.check("[value=chinchilla]")
    typed(page, "C", "1e21")
    best = allocate(published("chinchilla"), 1e21)
    now = address(page)
    assert math.isclose(float(now["N"]), best.N, rel_tol=1e-5) and math.isclose(float(now["D"]), best.D, rel_tol=1e-5)
    assert page.inner_text(".calc-results").count(f"{best.loss:.4g}") == 2


def test_compute_can_be_held(page):
    typed(page, "C", "1e18")
    page.check("#calc-hold")
    typed(page, "N", "1M")
    assert page.input_value("#calc-C") == "1e18"
    assert math.isclose(float(address(page)["D"]), 1e18 / 6e6, rel_tol=1e-5)
    page.uncheck("#calc-hold")
    typed(page, "N", "2M")
    assert page.input_value("#calc-C") == "2e18"


def test_sliders_answer_the_keyboard(page):
    before = float(page.input_value("#calc-N-slider"))
    page.focus("#calc-N-slider")
    page.keyboard.press("ArrowRight")
    assert float(page.input_value("#calc-N-slider")) == pytest.approx(before + 0.01, abs=0.006)
    assert page.get_attribute("#calc-N-slider", "aria-valuetext").endswith(" parameters")


def test_a_setting_can_be_shared(page, path, browser):
    page.check("[value=kit]")
    typed(page, "N", "12345")
    typed(page, "B", "1024")
    page.check("#calc-hold")
    text = said(page)
    other = browser.new_page()
    other.goto(page.url)
    assert said(other) == text and address(other) == address(page)
    assert other.input_value("#calc-B") == "1.024k" and other.is_checked("#calc-hold")
    other.goto(f"{path.as_uri()}#law=none&N=5")
    assert other.is_checked("[value=kit]"), "an address that makes no sense changes nothing"
    other.close()


def test_wrong_numbers_are_named_and_leave_the_setting(page):
    before = page.inner_text(".calc-results")
    page.fill("#calc-N", "-3")
    assert "above zero" in page.inner_text("#calc-N-wrong")
    assert page.get_attribute("#calc-N", "aria-invalid") == "true"
    assert page.inner_text(".calc-results") == before
    page.press("#calc-N", "Tab")
    assert "“-3” was not taken" in page.inner_text("#calc-N-wrong") and page.input_value("#calc-N") != "-3"
    assert page.inner_text(".calc-results") == before
    typed(page, "N", "1,5")
    assert "“1,5” was not taken" in page.inner_text("#calc-N-wrong") and "a point for decimals" in page.inner_text("#calc-N-wrong")
    assert page.inner_text(".calc-results") == before
    typed(page, "N", "1,500")
    assert page.inner_text("#calc-N-wrong") == "" and page.input_value("#calc-N") == "1.5k"


def test_an_address_of_no_law_is_cleaned_and_others_are_left(page, path, browser):
    page.goto(f"{path.as_uri()}#law=foo&N=5")
    page.wait_for_timeout(100)
    assert "#" not in page.url
    other = browser.new_page()
    other.goto(f"{path.as_uri()}#law=foo")
    assert "#" not in other.url and other.is_checked("[value=kaplan]")
    other.goto(f"{path.as_uri()}#calculator-laws")
    assert other.url.endswith("#calculator-laws")
    other.close()


def test_what_the_square_and_either_C_min_mean_is_said(page):
    assert "only its N is drawn" in page.inner_text(".calc-legend")
    said = page.inner_text(".calc-results")
    assert "what this rule’s model would take" in said and "what your own N and loss would take" in said


def test_settings_beyond_the_runs_are_warned_of(page):
    page.check("[value=chinchilla]")
    assert page.inner_text(".calc-warnings") == ""
    assert "Outside" not in said(page)
    typed(page, "N", "1T")
    assert "your N" in page.inner_text(".calc-warnings") and "your D" not in page.inner_text(".calc-warnings")
    assert "your N" in said(page)


def test_the_band_is_drawn_where_there_is_one(page):
    for name in CHOICES:
        page.check(f"[value={name}]")
        assert page.locator(".calc-plot .calc-band").count() == (name in BANDED)
        assert page.locator(".calc-plot .calc-best").count() == page.locator(".calc-plot .calc-here").count() == 1
        assert page.locator(".calc-plot .calc-rule").count() == (name == "kaplan")
        assert "NaN" not in page.inner_html(".calculator") and "undefined" not in page.inner_html(".calculator")


def test_critical_batches_are_shown_for_kaplans_tokens_only(page):
    for name in CHOICES:
        page.check(f"[value={name}]")
        assert ("Critical batch" in page.inner_text(".calc-results")) == (name == "kaplan")


def test_whatever_is_typed_leaves_numbers(page):
    for name in CHOICES:
        page.check(f"[value={name}]")
        for at in ("1e-6", "1e50"):
            for quantity in "NDCB":
                typed(page, quantity, at)
                assert "NaN" not in page.inner_html(".calculator") and "Infinity" not in page.inner_html(".calculator"), (name, quantity, at)


def test_another_law_keeps_your_setting_where_it_can(page):
    page.check("[value=chinchilla]")
    typed(page, "N", "70B")
    page.check("[value=corrected]")
    assert page.input_value("#calc-N") == "70B"
    page.check("[value=kit]")
    law = CHOICES["kit"]
    assert law.ranges["N"][0] < float(address(page)["N"]) < law.ranges["N"][1]
    page.check("[value=corrected]")
    assert page.inner_text(".calc-warnings").count("Outside") == 0


def test_losses_are_said_not_to_compare(page):
    for name, choice in CHOICES.items():
        page.check(f"[value={name}]")
        assert choice.tokens in page.inner_text(".calc-tokens") and "must not be compared" in page.inner_text(".calc-tokens")


def test_without_javascript_a_sentence_stands_there(browser, path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert "JavaScript" in page.inner_text(".calculator") and page.locator("input").count() == 0
    context.close()


# --- the table and the data --------------------------------------------------------------------------------------


def test_the_table_names_every_law_with_its_constants():
    text = calculator.table(list(CHOICES.values()))
    for choice in CHOICES.values():
        assert f"**{choice.label}**" in text
        assert all(calculator.tex(estimate.value) in text for estimate in choice.law.parameters.values())


def test_the_papers_constants_are_the_published_ones():
    for name, law in (("kaplan", "kaplan-nd"), ("chinchilla", "chinchilla")):
        assert CHOICES[name].law.parameters == published(law).parameters
    assert CHOICES["kaplan"].ranges["N"][1] == papers.value("kaplan2020.setup.N_largest")
    at = {"N": 1e9, "D": 2e10}
    assert CHOICES["corrected"].law.predict(**at).value == pytest.approx(published("besiroglu").predict(**at).value, rel=0.01)


def test_the_kits_law_is_the_one_that_plan_uses():
    assert CHOICES["kit"].law is published("kit")
    assert CHOICES["kit"].ranges == published("kit").ranges


def test_inline_data_cannot_end_its_script():
    choice = CHOICES["kit"]
    text = calculator.markup([calculator.Choice(**{**vars(choice), "label": "</script><b>"})])
    assert text.count("</script>") == 1

"""What is said of pages to those who look for them: dates from git, addresses, descriptions; and icons and pictures that load lightly."""

import importlib.util
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(ROOT / "book" / "_ext"))
try:
    import formulas

    found, light = load("found"), load("light")
finally:
    sys.path.remove(str(ROOT / "book" / "_ext"))


# --- dates and addresses -----------------------------------------------------------------------------------------


def git(folder, *words, day="2027-03-04"):
    who = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b", "HOME": str(folder), "PATH": "/usr/bin:/bin",
           "GIT_AUTHOR_DATE": f"{day}T12:00:00Z", "GIT_COMMITTER_DATE": f"{day}T12:00:00Z"}  # fmt: skip
    subprocess.run(["git", *words], cwd=folder, env=who, check=True, capture_output=True)


def test_the_last_change_of_each_file_comes_from_git(tmp_path):
    git(tmp_path, "init", "-q")
    for day, name in (("2027-03-04", "a.md"), ("2027-03-05", "ü b.md"), ("2027-03-06", "ü b.md")):
        (tmp_path / name).write_text(day)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", "x", day=day)
    assert found.changes(tmp_path) == {"a.md": date(2027, 3, 4), "ü b.md": date(2027, 3, 6)}
    assert found.in_words(date(2027, 3, 4)) == "4 March 2027"


def test_a_copy_without_git_says_no_date(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert found.changes(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found.changes(ROOT) == {}


@pytest.mark.parametrize("repository, address", [
    ("https://github.com/Ann/kit", "https://ann.github.io/kit/"), ("https://github.com/Ann/Ann.github.io", "https://ann.github.io/"),
    ("https://github.com/Ann/kit.git", "https://ann.github.io/kit/"), ("https://example.org/a/b", ""), ("", ""),
])  # fmt: skip
def test_the_address_follows_from_the_repository(repository, address):
    assert found.address(repository) == address


def test_a_page_is_described_by_its_first_paragraph():
    document = new_document("page")
    long = "A sentence about what is measured here and how well. " * 9
    document += nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "Too short."), nodes.paragraph("", long))
    text = found.description(document)
    assert long.startswith(text.removesuffix(" …")) and 100 < len(text) <= found.LONGEST + 2
    assert found.description(new_document("empty")) == ""
    document = new_document("page")
    document += nodes.section("", nodes.paragraph("", "", nodes.Text("A page on what "), nodes.raw("", '<a href="x">runs &amp; laws</a>', format="html"), nodes.Text(" are good for, in short.")))
    assert found.description(document) == "A page on what runs & laws are good for, in short."


def test_the_card_is_a_picture_of_the_size_that_others_ask_for(tmp_path):
    from minitransformer import claims

    claim = next(one.id for one in claims.DEFINITIONS if one.published == "kaplan2020.alpha_N" and one.specs == ("ladder",))
    found.draw_card(tmp_path / "card.png", "A title", claim)
    with Image.open(tmp_path / "card.png") as picture:
        assert picture.size == found.CARD_SIZE
        assert picture.convert("L").crop((0, 0, 400, 90)).getextrema()[0] < 100  # the title is there


# --- light pages -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    if not light.theme_script().is_file():
        pytest.skip("this version of the theme draws its icons another way")
    return light.icons(light.theme_script())


def test_icons_are_found_by_each_of_their_names(known):
    assert known["solid", "pencil"] == known["solid", "pencil-alt"] and ("brands", "github") in known
    assert len(known) > 2000 and all(path.startswith(("M", "m")) for *_, path in known.values())


def test_the_sheet_holds_the_icons_that_pages_use_and_no_other(known):
    html = '<i class="fa-solid fa-bars"></i><span class="fas fa-pencil-alt fa-lg"></span><i class="theme-switch fab fa-github"></i><p class="fair">x</p>'
    assert light.used(html) == {("solid", "bars"), ("solid", "pencil-alt"), ("brands", "github")}
    sheet = light.sheet(light.used(html) | {("solid", "no-such-icon")}, known)
    assert sheet.count("--icon: url(") == 3 and ".fa-bars::before" in sheet and "%3Csvg" in sheet and len(sheet) < 6000


def test_an_icon_is_drawn_in_the_colour_of_the_text(known, browser, tmp_path):
    (tmp_path / "icons.css").write_text(light.sheet({("solid", "bars")}, known))
    (tmp_path / "page.html").write_text("<link rel='stylesheet' href='icons.css'><body style='margin: 0; font-size: 40px; color: rgb(200, 0, 0)'><i class='fa-solid fa-bars'></i>")
    page = browser.new_page(viewport={"width": 60, "height": 60})
    page.goto((tmp_path / "page.html").as_uri())
    page.screenshot(path=tmp_path / "shot.png")
    page.close()
    with Image.open(tmp_path / "shot.png") as shot:
        colours = {colour[:3]: count for count, colour in shot.convert("RGB").getcolors(4000)}
    assert 300 < colours[200, 0, 0] < 1200 and colours[255, 255, 255] > 1500


def test_pictures_have_their_size_and_later_ones_come_late(tmp_path):
    (tmp_path / "_images").mkdir()
    Image.new("RGB", (640, 480)).save(tmp_path / "_images" / "a.png")
    (tmp_path / "_images" / "b.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="10pt" viewBox="0 0 446.4 230.4"></svg>')
    html = '<img alt="A" src="_images/a.png" /><img alt="B" class="x" src="_images/b.svg"/><img src="_images/none.png"/><img src="https://a.b/c.png"/>'
    after = light.steady(html, tmp_path)
    assert after == ('<img width="640" height="480" alt="A" src="_images/a.png" /><img width="446" height="230" loading="lazy" alt="B" class="x" src="_images/b.svg"/>'
                     '<img src="_images/none.png"/><img src="https://a.b/c.png"/>')
    assert light.steady(after, tmp_path) == after
    Image.new("RGB", (900, 300)).save(tmp_path / "_images" / "wide.png")
    wide = light.steady('<img alt="W" src="_images/wide.png"/>', tmp_path)
    assert wide == '<span class="wide-picture"><img width="900" height="300" alt="W" src="_images/wide.png"/></span>' == light.steady(wide, tmp_path)


def test_formulas_keep_their_height():
    one = '<div class="math notranslate nohighlight" id="equation-a">\n<span class="eqno">(1)</span>\\[L = 1\\]</div>'
    two = '<div class="amsmath math notranslate nohighlight">\\[\\begin{aligned}a &= \\frac{1}{2} \\\\ b &= 3\\end{aligned}\\]</div>'
    rooms = [float(part.split("rem")[0]) for part in light.room(one + two).split("--room: ")[1:]]
    assert rooms == [4.2, 7.3] and light.room(light.room(one + two)) == light.room(one + two)
    assert 'id="equation-a"' in light.room(one)
    assert 'style="--wide: 1.07em">' in light.room('<span class="math notranslate nohighlight">\\(N\\)</span>')


@pytest.mark.parametrize("tex", [
    "N", r"\alpha_N", "L(N, D)", r"S_\min", r"B_\text{crit}", "C = 6ND", r"d_{\text{model}} / n_{\text{layer}}", "-1.07", r"2^{-0.1}",
    r"L = 0.9191 + \frac{11.87}{N^{0.3505}}", r"\varepsilon(m) = \alpha\, m^{\beta_g} + \gamma", r"\alpha_C^{\min} / \alpha_N", r"N \propto C^{0.5}",
    r"1 + \alpha_N / \alpha_D < 0", r"\log_{10} N", r"E + A/N^\alpha", r"\sqrt{x_0}", r"[0.08, 0.10]", r"\hat N \approx 12 \cdot 64^2 \times 10^3",
])  # fmt: skip
def test_the_width_of_a_formula_is_that_of_mathjax(set_formulas, tex):
    assert formulas.width(tex) == pytest.approx(set_formulas(tex), abs=0.25)


@pytest.fixture(scope="module")
def set_formulas(browser, tmp_path_factory):
    """TeX → the width in em that the book's MathJax gives it, with the book's settings."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]["mathjax3_config"]
    path = tmp_path_factory.mktemp("formulas") / "page.html"
    path.write_text(f"<script>window.MathJax = {json.dumps(settings)}</script><script src='{(ROOT / 'book/_static/mathjax/tex-mml-chtml.js').as_uri()}'></script>"
                    "<body style='font-size: 20px'><p id='here'></p>")  # fmt: skip
    page = browser.new_page()
    page.goto(path.as_uri())
    yield lambda tex: page.evaluate(
        "async (tex) => { here.textContent = `\\\\(${tex}\\\\)`; await MathJax.typesetPromise(); return here.firstElementChild.getBoundingClientRect().width / 20 }", tex)
    page.close()


def test_large_pictures_have_fewer_colours_and_look_the_same(tmp_path):
    figure, axis = plt.subplots(figsize=(6, 4), dpi=120)
    axis.scatter(*np.random.default_rng(0).random((2, 3000)), c=np.linspace(0, 1, 3000))
    for name, transparent in (("a.png", False), ("b.png", True)):
        figure.savefig(tmp_path / name, transparent=transparent)
    plt.close(figure)
    before = {name: (tmp_path / name).read_bytes() for name in ("a.png", "b.png")}
    first = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), int)
    for name in before:
        light.reduce(tmp_path / name)
    assert (tmp_path / "a.png").stat().st_size < 0.7 * len(before["a.png"]) and (tmp_path / "b.png").read_bytes() == before["b.png"]
    assert np.abs(np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), int) - first).mean() < 2
    small = (tmp_path / "a.png").read_bytes()
    light.reduce(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == small


def test_weights_are_what_a_server_sends(tmp_path):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("weights_alone", ROOT / "tools" / "weights.py")
        weights = importlib.util.module_from_spec(spec)
        sys.modules["weights_alone"] = weights
        spec.loader.exec_module(weights)
    finally:
        sys.path.remove(str(ROOT / "tools"))
    (tmp_path / "a.css").write_text("a { color: red }\n" * 1000)
    (tmp_path / "b.png").write_bytes(bytes(5000))
    (tmp_path / "c.woff").write_bytes(bytes(7000))
    urls = [(tmp_path / name).as_uri() for name in ("a.css", "b.png", "c.woff", "gone.js")] + ["data:x", (tmp_path / "b.png").as_uri()]
    assert 5000 < weights.own_weight(urls) < 5500

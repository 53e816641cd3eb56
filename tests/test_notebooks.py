"""What can be seen of a notebook without running it. nbval runs them; it never compares a cell that was cleared."""

import copy
import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LABS = ROOT / "notebooks" / "labs"
SOURCES = sorted((LABS / "source").glob("*.ipynb"))  # run and stored like the notebooks; published are the students' copies
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
SIZE_CAP = 1_500_000

SETUP = f"""\
# Setup: installs the kit where it is missing (Colab); elsewhere it does nothing.
import importlib.util, os, subprocess, sys
if importlib.util.find_spec("minitransformer") is None:
    source = os.environ.get("MINITRANSFORMER_SOURCE", "git+{ADDRESS}")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)
    importlib.invalidate_caches()"""

ABSOLUTE = re.compile(r"(?<![\w./:~-])/(?:home|root|Users|tmp|work|opt|mnt|private|var/folders|content)/\w|\b[A-Z]:\\\\?\w")
MYST = re.compile(r"^\s*(?:```|:::+)\{|\{[a-z][\w:-]*\}`", re.M)
PICTURES = ("image/png", "image/svg+xml", "image/jpeg")


def badge(path: str) -> str:
    """The badge of the notebook at this path from the root of the repository."""
    up = "../" * path.count("/")
    target = ADDRESS.replace("https://github.com/", "https://colab.research.google.com/github/")
    return f"[![Open in Colab]({up}book/_static/colab-badge.svg)]({target}/blob/main/{path})"


def problems(notebook: dict, path: str) -> list[str]:
    """Everything that is wrong with a stored notebook; `path` is its place below the root of the repository."""
    found = []
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    prose = [cell for cell in cells if cell["cell_type"] == "markdown"]
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("execution counts are not 1..n in order: run `make notebooks`")
    if not code or code[0]["source"].rstrip() != SETUP:
        found.append("the first code cell is not the setup cell")
    if not any(cell["source"].startswith("# NBVAL_CHECK_OUTPUT") for cell in code[1:]) and not path.startswith("notebooks/labs/"):
        found.append("no cell is marked # NBVAL_CHECK_OUTPUT")
    if any(cell["source"].startswith("# NBVAL_CHECK_OUTPUT") and not cell["outputs"] for cell in code):
        found.append("a cell marked # NBVAL_CHECK_OUTPUT shows nothing")
    if not prose or cells[0] is not prose[0] or not cells[0]["source"].startswith("# "):
        found.append("the first cell is not the title")
    elif badge(path) not in cells[0]["source"]:
        found.append("the badge under the title is missing or points elsewhere")
    if any(MYST.search(cell["source"]) for cell in prose):
        found.append("a Markdown cell uses MyST syntax, which Colab shows as raw text")
    if "widgets" in notebook["metadata"]:
        found.append("widget state is stored")
    if any("execution" in cell["metadata"] for cell in code):
        found.append("execution times are stored")
    alts = []
    for cell in code:
        pictures = 0
        kinds = [output.get("name") for output in cell["outputs"]]
        if any(one == after == "stdout" for one, after in zip(kinds, kinds[1:])):
            found.append("what a cell printed is stored in pieces: run `make notebooks`")
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append("an error is stored")
            if output.get("name") == "stderr":
                found.append("standard error is stored")
            data = output.get("data", {})
            if any("widget" in kind for kind in data):
                found.append("a widget is stored")
            if "application/vnd.plotly.v1+json" in data:
                found.append("a Plotly output is stored")
            pictures += any(kind in data for kind in PICTURES)
            text = json.dumps({k: v for k, v in data.items() if k not in PICTURES}) + str(output.get("text", ""))
            if ABSOLUTE.search(text):
                found.append(f"an absolute path is stored: {ABSOLUTE.search(text)[0]}")
        if pictures > 1:
            found.append("one cell shows several pictures; alt text belongs to one")
        if pictures:
            alts.append(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", ""))
        if ABSOLUTE.search(cell["source"]):
            found.append(f"an absolute path in the code: {ABSOLUTE.search(cell['source'])[0]}")
    if any(len(alt) < 20 for alt in alts):
        found.append("a picture has no alt text that describes it: cell metadata mystnb.image.alt")
    if len(set(alts)) < len(alts):
        found.append("two pictures have the same alt text")
    if any(re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", cell["source"]) for cell in prose):
        found.append("a picture in a Markdown cell has no alt text")
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS + SOURCES, ids=relative)
def test_notebook_is_as_it_should_be(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook, relative(path).replace("labs/source/", "labs/")) == []
    assert path.stat().st_size < SIZE_CAP, "too large: draw fewer points or use PNG"


def test_contents_list_every_notebook():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:file|root):\s*(notebooks/\S+)", toc))
    assert listed == {relative(path).removesuffix(".ipynb") for path in [*NOTEBOOKS, *LABS.glob("*.ipynb")]}


def test_no_notebook_has_a_namesake_page():
    assert not [path for path in NOTEBOOKS if path.with_suffix(".md").exists() or path.with_suffix(".py").exists()]


def test_badge_picture_is_shipped_and_says_what_it_is():
    text = (ROOT / "book" / "_static" / "colab-badge.svg").read_text(encoding="utf-8")
    assert "<title" in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")


def good() -> dict:
    """A small notebook without a problem."""
    new = nbformat.v4
    picture = new.new_output("display_data", data={"image/png": "aGVsbG8=", "text/plain": "<Figure>"})
    cells = [
        new.new_markdown_cell(f"# A title\n\n{badge('notebooks/good.ipynb')}\n\nDoes $L(N)$ fall?"),
        new.new_code_cell(SETUP, execution_count=1),
        new.new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(4)", execution_count=2, outputs=[new.new_output("stream", name="stdout", text="4\n")]),
        new.new_code_cell("draw()", execution_count=3, outputs=[picture], metadata={"mystnb": {"image": {"alt": "Loss against size, a falling line."}}}),
    ]
    return new.new_notebook(cells=cells)


def broken(change) -> dict:
    notebook = copy.deepcopy(good())
    change(notebook)
    return notebook


def set_source(index, text):
    return lambda nb: nb["cells"][index].update(source=text)


def add_output(**output):
    return lambda nb: nb["cells"][2]["outputs"].append(nbformat.from_dict(output))


def test_a_good_notebook_has_no_problem():
    assert problems(good(), "notebooks/good.ipynb") == []


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda nb: nb["cells"][2].update(execution_count=None), "execution counts"),
        (lambda nb: nb["cells"][2].update(execution_count=7), "execution counts"),
        (set_source(1, SETUP + "\nimport torch"), "setup cell"),
        (set_source(1, SETUP.replace(ADDRESS, "https://github.com/other/place")), "setup cell"),
        (set_source(2, "print(4)"), "no cell is marked"),
        (lambda nb: nb["cells"][2].update(outputs=[]), "shows nothing"),
        (set_source(0, "No title"), "not the title"),
        (set_source(0, "# A title"), "badge"),
        (set_source(0, f"# A title\n\n{badge('notebooks/other.ipynb')}"), "badge"),
        (set_source(0, f"# A title\n\n{badge('notebooks/good.ipynb')}\n\n```{{note}}\nx\n```"), "MyST"),
        (set_source(0, f"# A title\n\n{badge('notebooks/good.ipynb')}\n\nSee {{cite:t}}`kaplan2020`."), "MyST"),
        (set_source(0, f"# A title\n\n{badge('notebooks/good.ipynb')}\n\n![](x.png)"), "Markdown cell has no alt"),
        (lambda nb: nb["metadata"].update(widgets={}), "widget state"),
        (lambda nb: nb["cells"][1]["metadata"].update(execution={"iopub.execute_input": "2026"}), "execution times"),
        (add_output(output_type="error", ename="E", evalue="", traceback=[]), "an error"),
        (add_output(output_type="stream", name="stderr", text="warning"), "standard error"),
        (add_output(output_type="stream", name="stdout", text="saved /home/me/runs"), "absolute path"),
        (add_output(output_type="stream", name="stdout", text="5"), "stored in pieces"),
        (add_output(output_type="display_data", metadata={}, data={"application/vnd.jupyter.widget-view+json": {}}), "a widget"),
        (add_output(output_type="display_data", metadata={}, data={"application/vnd.plotly.v1+json": {}}), "Plotly"),
        (set_source(3, 'open("/tmp/x")'), "absolute path in the code"),
        (lambda nb: nb["cells"][3].update(metadata={}), "no alt text"),
        (lambda nb: nb["cells"].append(copy.deepcopy(nb["cells"][3]) | {"execution_count": 4}), "same alt text"),
        (lambda nb: nb["cells"][3]["outputs"].append(nb["cells"][3]["outputs"][0]), "several pictures"),
    ],
)
def test_each_problem_is_noticed(change, problem):
    found = problems(broken(change), "notebooks/good.ipynb")
    assert any(problem in text for text in found), found

"""The shape of the house: what stands where, and which room may know which."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minitransformer"
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

TOP = {
    "README.md", "LICENSE", "LICENSE-prose", "THIRD_PARTY.md", "CITATION.cff", "Makefile", "pyproject.toml", "requirements.txt",
    "_config.yml", "_toc.yml", "conftest.py", ".gitignore", ".ci", ".github",
    "book", "notebooks", "minitransformer", "benchmarks", "tests", "tools",
}  # fmt: skip

LINE = ["data", "models", "training", "sweeps", "laws", "claims", "capstone", "figures", "labs", "notebook", "cli_laws", "cli_labs",
        "cli_capstone", "cli"]
LEAVES = {"errors", "files", "papers", "accounting"}


def committed_and_new():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy is not a git repository")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def imported_rooms(path: Path, package: Path = PACKAGE) -> set[str]:
    """The rooms of the package (first name below `minitransformer`) that a file imports, relative imports included."""
    here = [package.name, *path.relative_to(package).with_suffix("").parts]
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith(f"{package.name}.")}
    return rooms


def offences(package: Path = PACKAGE) -> list[str]:
    """Imports against the line data → models → training → sweeps → laws → claims → capstone → figures → labs → notebook, then
    cli_laws → cli_labs → cli_capstone → cli; leaves import leaves."""
    found = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).with_suffix("").parts[0]
        for other in sorted(imported_rooms(path, package) - {room, "__version__"}):
            if room == "__init__" or room in LEAVES:
                allowed = other in LEAVES
            elif room in LINE:
                allowed = other in LEAVES or (other in LINE and LINE.index(other) < LINE.index(room))
            else:
                allowed = False
            if not allowed:
                found.append(f"{path.relative_to(package)} imports {other}")
    return found


def test_imports_run_only_leftwards():
    assert offences() == []


def test_every_room_has_its_place_in_the_line():
    rooms = {p.relative_to(PACKAGE).with_suffix("").parts[0] for p in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms <= {*LINE, *LEAVES}


@pytest.mark.parametrize(
    "text, offence",
    [
        ("from minitransformer.laws import fit", "data/a.py imports laws"),
        ("from ..claims import live", "data/a.py imports claims"),
        ("from .. import sweeps", "data/a.py imports sweeps"),
        ("import minitransformer.figures as f", "data/a.py imports figures"),
        ("def late():\n    from minitransformer import training", "data/a.py imports training"),
        ("from ..errors import UserError\nfrom .b import c\nimport minitransformer.data.b", None),
    ],
)
def test_a_wrong_import_is_noticed(tmp_path, text, offence):
    package = tmp_path / "minitransformer"
    (package / "data").mkdir(parents=True)
    (package / "data" / "a.py").write_text(text)
    assert offences(package) == ([offence] if offence else [])


def test_top_level_is_the_agreed_one():
    top = {Path(name).parts[0] for name in committed_and_new()}
    assert top <= TOP, f"new at the top level: {sorted(top - TOP)}"
    assert TOP - {"benchmarks"} <= top, f"missing at the top level: {sorted(TOP - top)}"


def test_package_asks_for_ranges_not_pins():
    project = PROJECT["project"]
    wishes = [*project["dependencies"], *(w for extra in project.get("optional-dependencies", {}).values() for w in extra)]
    assert wishes
    assert not [wish for wish in wishes if "==" in wish.partition(";")[0]]


def test_package_data_exists():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["minitransformer"]
    assert not [pattern for pattern in patterns if not list(PACKAGE.glob(pattern))]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    other = {ROOT / name for name in committed_and_new() if name.startswith("minitransformer/") and not name.endswith(".py")}
    assert other <= shipped, "files in the package that an installed copy would lack"


def test_requirements_install_this_package_and_pin_torch():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert "-e ." in lines
    assert any(line.startswith("torch==") for line in lines)


def test_no_package_host_is_named():
    hosts = re.compile("|".join(["py" + "pi" + r"\.org", "pythonhosted" + r"\.org", "npm" + r"js\.", "download" + r"\.pytorch\.org", "index-url", "jsdelivr" + r"\.net"]))
    ours = [name for name in committed_and_new() if not name.startswith("book/_static/mathjax/")]
    found = []
    for name in ours:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if Path(name) != Path(__file__).relative_to(ROOT) and hosts.search(text):
            found.append(name)
    assert found == []


def test_contents_name_pages_that_exist():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"]] + [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert not [page for page in pages if not list(ROOT.glob(f"{page}.md")) + list(ROOT.glob(f"{page}.ipynb"))]
    assert len(pages) == len(set(pages))


def test_every_page_of_prose_is_in_the_contents():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md") if "_static" not in path.parts]
    assert not [page for page in pages if not re.search(rf"{re.escape(page)}\s*$", toc, re.M)]


def test_citation_file_is_valid():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["cff-version"] == "1.2.0"
    allowed = {"cff-version", "message", "title", "type", "authors", "version", "license", "repository-code", "abstract", "keywords", "date-released", "url", "references", "preferred-citation"}
    assert set(cff) <= allowed
    assert all(author.get("name") or author.get("family-names") for author in cff["authors"])
    assert cff["type"] in ("software", "dataset")
    assert re.fullmatch(r"https://github\.com/[^/\s]+/[^/\s]+", cff["repository-code"])
    spec = importlib.util.spec_from_file_location("mt_version", PACKAGE / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert str(cff["version"]) == module.__version__

"""`make repository`: a fork's address goes everywhere, again and again, and nowhere else."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("repository", ROOT / "tools" / "repository.py")
repository = importlib.util.module_from_spec(spec)
spec.loader.exec_module(repository)


@pytest.fixture
def tree(tmp_path):
    for pattern in repository.NAMED_IN:
        for path in ROOT.glob(pattern):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return tmp_path


def texts(tree):
    return {str(path.relative_to(tree)): path.read_text(encoding="utf-8") for path in tree.rglob("*") if path.is_file()}


def address(tree):
    return "/".join(repository.current(tree))


def test_every_place_names_the_fork(tree):
    old = address(tree)
    changed = {path.relative_to(tree).as_posix() for path in repository.stamp(tree, "https://github.com/a-course/scaling.2027")}
    assert {"README.md", "CITATION.cff", "_config.yml"} <= changed
    assert {p for p in texts(tree) if p.endswith(".ipynb")} <= changed
    after = texts(tree)
    assert not [name for name, text in after.items() if re.search(rf"(github(\.com)?/){old}\b", text)]
    assert yaml.safe_load(after["_config.yml"])["repository"]["url"] == "https://github.com/a-course/scaling.2027"
    for name, text in after.items():
        if name.endswith(".ipynb"):
            json.loads(text)
            assert f"colab.research.google.com/github/a-course/scaling.2027/blob/main/{name.replace('/source/', '/')}" in text
            assert "git+https://github.com/a-course/scaling.2027" in text


def test_stamping_is_repeatable_and_reversible(tree):
    before, old = texts(tree), address(tree)
    repository.stamp(tree, "https://github.com/someone/kit/")
    once = texts(tree)
    assert repository.stamp(tree, "https://github.com/someone/kit.git") == []
    assert texts(tree) == once != before
    repository.stamp(tree, f"https://github.com/{old}")
    assert texts(tree) == before


def test_other_repositories_are_left_alone(tree):
    repository.stamp(tree, "https://github.com/someone/kit")
    page = tree / "book" / "links.md"
    page.parent.mkdir(exist_ok=True)
    others = "https://github.com/someone/kitten https://github.com/someone/kit-2 https://github.com/else/kit https://github.com/someone/kit.js"
    page.write_text(others + "\nhttps://github.com/someone/kit. And git+https://github.com/someone/kit.git, https://someone.github.io/kit/x")
    repository.stamp(tree, "https://github.com/New/book")
    assert page.read_text() == others + "\nhttps://github.com/New/book. And git+https://github.com/New/book.git, https://new.github.io/book/x"


@pytest.mark.parametrize(
    "url",
    ["", "github.com/a/b", "http://github.com/a/b", "https://github.com/a", "https://github.com/a/b/c", "https://github.com/-a/b",
     "https://github.com/a/b c", "https://gitlab.com/a/b", "https://github.com/a/..", "https://github.com/a/b?x=1"],
)
def test_bad_addresses_are_one_clear_line(url):
    done = subprocess.run([sys.executable, ROOT / "tools" / "repository.py", url], capture_output=True, text=True)
    assert done.returncode == 1
    assert "make repository URL=https://github.com/owner/name" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

"""The page of functions and classes: it has what users call, from docstrings, and its examples do what they print."""

import doctest
import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
spec = importlib.util.spec_from_file_location("api", ROOT / "book" / "_ext" / "api.py")
api = importlib.util.module_from_spec(spec)
spec.loader.exec_module(api)
EXAMPLES = dict(api.examples(PAGE))


def test_every_entry_has_an_example_and_no_example_is_left_out():
    assert len(EXAMPLES) == PAGE.count("```{api}") == len(api.examples(PAGE)) > 20
    assert all(">>>" in example for example in EXAMPLES.values())


def test_what_the_readme_and_the_book_name_is_there():
    for name in ("fit_table", "allocate", "predict", "diagnose.diagnose", "design.design", "fit", "published"):
        assert f"laws.{name}" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name, small_text, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the page is of a machine without a card
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key != "MINITRANSFORMER_QUIET"})
    given = {"text": small_text, "folder": str(tmp_path / "runs")}
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], given, name, "book/api.md", 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL, verbose=False)
    runner.run(test, out=said.append)
    assert runner.tries > 1 and runner.failures == 0, "".join(said)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_entry_has_a_signature_and_prose(name):
    found = api.find(name)
    text = api.signature(name.rpartition(".")[2], found)
    assert text.startswith(name.rpartition(".")[2] + "(") and " at 0x" not in text and max(map(len, text.split("\n"))) <= api.WIDTH + 40
    paragraphs = api.prose(found.__doc__)
    assert paragraphs and "`" not in "".join(node.astext() for node in paragraphs if node.tagname == "paragraph")


def test_signatures_of_every_kind():
    def plain(a, b: int = 2, *, c: "str | None" = None, **rest) -> "list[int]": ...

    assert api.signature("plain", plain) == "plain(a, b: int = 2, *, c: str | None = None, **rest) -> list[int]"

    def bare(*some, call=lambda: 0): ...

    assert api.signature("bare", bare) == "bare(*some, call=...)"


def test_a_docstrings_columns_stay_as_they_are():
    kinds = [node.tagname for node in api.prose("One line.\n\n    N   of one kind\n    M   of another\n\nAnd `code` in prose.")]
    assert kinds == ["paragraph", "literal_block", "paragraph"]


def test_methods_are_listed_with_their_first_sentence():
    listed = dict(api.methods(api.find("laws.Law")))
    assert any(call.startswith("predict(") for call in listed) and all(said and not said.endswith(":") for said in listed.values())


def test_a_wrong_example_is_noticed():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "x", "x", 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ImportError):
        api.find("laws.no_such_thing")
    assert not re.search(r"```\{api\}(?! \S+\n)", PAGE)

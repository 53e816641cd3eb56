"""The data that figures offer: every link has its file, a row for each run, and a law can be fitted to it by the command line."""

import importlib.util
import io
from pathlib import Path

import pandas as pd
import pytest
from docutils import nodes
from docutils.utils import new_document

from minitransformer.laws import fit_table
from minitransformer.sweeps.store import reference_table

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def downloads():
    spec = importlib.util.spec_from_file_location("downloads", ROOT / "book" / "_ext" / "downloads.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = sorted(path.stem for path in (ROOT / "minitransformer" / "reference").glob("*.parquet"))


@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_its_runs_and_no_list(downloads, name):
    found, table = pd.read_csv(io.StringIO(downloads.runs_csv(name))), reference_table(name)
    assert len(found) == len(table) and set(found.id) == set(table.id)
    assert {"N", "D", "C", "loss", "seed", "d_model", "lr"} <= set(found) and not [c for c in found if c.startswith("curve") or c in downloads.LEFT_OUT]
    assert (found.loss - table.loss).abs().max() < 1e-12
    assert not found.astype(str).apply(lambda column: column.str.startswith("[")).any(axis=None)


def test_a_law_can_be_fitted_to_what_was_taken_away(downloads, tmp_path):
    (tmp_path / "ladder.csv").write_text(downloads.runs_csv("ladder"))
    longest = reference_table("ladder").groupby("N").steps.max().min()
    law = fit_table(tmp_path / "ladder.csv", "power", x="N", where=[f"steps={longest}"])
    assert law.ok, law.reason
    assert 0.05 < law.exponent.value < 0.15


def page(*parts) -> nodes.document:
    document = new_document("page")
    for part in parts:
        if part.startswith("fig-"):
            document += nodes.figure("", nodes.image(uri="a.png"), nodes.caption("", "What it shows."), names=[part], ids=[part])
        else:
            document += nodes.literal_block(part, part)
    return document


class App:
    def __init__(self, name):
        self.env = type("Env", (), {"docname": name, "metadata": {name: {}}})()


def linked(downloads, name, *parts) -> dict[str, list[str]]:
    app, document = App(name), page(*parts)
    downloads.link_figures(app, document)
    found = {figure["names"][0]: [link["refuri"] for link in figure.findall(nodes.reference)] for figure in document.findall(nodes.figure)}
    assert {Path(link).stem for links in found.values() for link in links} == set(app.env.metadata[name].get("tables", ()))
    return found


def test_figures_are_linked_to_the_tables_that_were_read_above_them(downloads):
    found = linked(downloads, "notebooks/none", "train()", "fig-first", 'a = reference_table("ladder")', "fig-a", "fig-b-live",
                   'b = reference_table(\n    "budgets")', "fig-b", 'reference_table("no_such_spec")', "fig-c")
    assert found == {"fig-first": [], "fig-a": ["../data/ladder.csv"], "fig-b-live": [],
                     "fig-b": ["../data/ladder.csv", "../data/budgets.csv"], "fig-c": ["../data/ladder.csv", "../data/budgets.csv"]}


def test_tables_that_come_through_claims_are_those_of_the_notebook(downloads):
    from minitransformer.claims import DEFINITIONS

    definition = next(one for one in DEFINITIONS if all(reference_table(name) is not None for name in one.specs))
    found = linked(downloads, str(Path(definition.notebook).with_suffix("")), "table = claims.runs_behind(definition)", "fig-a")
    assert {f"../data/{name}.csv" for name in definition.specs} <= set(found["fig-a"])
    assert linked(downloads, "book/page", 'reference_table("ladder")', "fig-a") == {"fig-a": []}

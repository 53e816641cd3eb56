"""The data of the book's figures as CSV files, written beside the pages when the book is built.

Under a figure that is drawn from committed runs stands a link to each of their tables: `data/ladder.csv` has a row for every run of the
spec `ladder`, with its settings, counts and losses; curves, which are lists, are left out. `data/claims.csv` is the table of claims.

In a notebook, the tables of a figure are those that the cells above it have read: by name, or through the claims of that notebook. A
figure whose label ends in `-live` is drawn from runs that the reader trains.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from minitransformer.sweeps.store import reference_table

NAMED = re.compile(r'reference_table\(\s*["\']([\w-]+)["\']')
THROUGH_CLAIMS = re.compile(r"runs_behind\(|reference_table\(\s*\w")
FOLDER = "data"
CLAIMS = "claims"
LEFT_OUT = {"corpus_sha256", "versions"}
COLUMNS = ("id", "statement", "paper", "paper_value", "value", "low", "high", "unit", "holdout_error", "verdict", "reason", "scale", "n_runs",
           "seeds", "notebook", "seconds", "flops")  # fmt: skip


# --- tables ------------------------------------------------------------------------------------------------------


def runs_csv(name: str) -> str:
    """The committed runs of a spec, a row each, without what is a list."""
    table = reference_table(name)
    lists = {column for column in table if table[column].map(lambda value: hasattr(value, "__len__") and not isinstance(value, str)).any()}
    return table.drop(columns=[column for column in table if column in lists | LEFT_OUT]).to_csv(index=False)


def claims_csv(rows: list) -> str:
    return pd.DataFrame([{name: getattr(claim, name, None) for name in COLUMNS} for claim in rows]).to_csv(index=False)


def of_page(page: str) -> list[str]:
    """The specs behind the claims that a notebook measures."""
    from minitransformer import claims  # here, as claims bring torch along

    return list(dict.fromkeys(name for one in claims.DEFINITIONS if one.notebook == f"{page}.ipynb" for name in one.specs))


def committed(names: list[str]) -> list[str]:
    return [name for name in names if reference_table(name) is not None]


# --- links under figures -----------------------------------------------------------------------------------------


def note(env: BuildEnvironment, page: str, names: list[str]) -> None:
    """Has the files written when the build ends."""
    known = env.metadata[page].setdefault("tables", [])
    known += [name for name in names if name not in known]


def links(page: str, names: list[str], before: str = "Data: ") -> list[nodes.Node]:
    """``Data: ladder.csv, budgets.csv`` as inline nodes."""
    found: list[nodes.Node] = []
    for name in names:
        address = "../" * page.count("/") + f"{FOLDER}/{name}.csv"
        found += [nodes.Text(", " if found else before), nodes.reference("", f"{name}.csv", refuri=address, internal=False)]
    return found


def legend(page: str, names: list[str]) -> nodes.legend:
    return nodes.legend("", nodes.paragraph("", "", *links(page, names)), classes=["figure-data"])


def link_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Adds the links to the figures of a notebook."""
    page = app.env.docname
    if not page.startswith("notebooks/") or page.count("/") > 1:
        return
    read: list[str] = []
    for node in list(doctree.findall(lambda one: isinstance(one, (nodes.literal_block, nodes.figure)))):
        if isinstance(node, nodes.figure):
            live = any(name.endswith("-live") for name in node["names"] + node["ids"])
            if read and not live:
                node += legend(page, read)
                note(app.env, page, read)
        else:
            code = node.astext()
            found = NAMED.findall(code) + (of_page(page) if THROUGH_CLAIMS.search(code) else [])
            read += committed([name for name in dict.fromkeys(found) if name not in read])


# --- files -------------------------------------------------------------------------------------------------------


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    pages = app.env.metadata.values()
    wanted = {name for data in pages for name in data.get("tables", ())}
    texts = {CLAIMS: data["claims_csv"] for data in pages if "claims_csv" in data}
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.csv"):
        if path.stem not in wanted | texts.keys():
            path.unlink()
    for name in wanted | texts.keys():
        (folder / f"{name}.csv").write_text(texts.get(name) or runs_csv(name), encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", link_figures)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

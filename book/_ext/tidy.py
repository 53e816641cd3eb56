"""Mends what the theme and its extensions write into every page.

- Code that would run cells in the browser is left out: it names another host, and the book runs nothing there.
- A colour scheme that was never chosen follows the reader's system, without an error on the console.
- Fonts are not fetched ahead: browsers refuse that to pages opened from the disk (the theme that Python 3.10 gets asks for it).
- The line that has nbval check a cell's output is for the tests: the code is shown without it.
- Lists of references and tables of data get roles and headings that screen readers accept.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

REPLACED = {
    '<div role="list" class="citation-list">': '<div class="citation-list">',
    ' role="doc-biblioentry"': "",
}
FONT_AHEAD = re.compile(r'\s*<link rel="preload" as="font"[^>]*>')
MARK = "# NBVAL_CHECK_OUTPUT\n"
EMPTY_HEADING = re.compile(r"<th( [^>]*)?>((?:\s|<p></p>)*)</th>")


def is_thebe(script) -> bool:
    return "thebe" in f"{getattr(script, 'filename', '')}{getattr(script, 'attributes', {}).get('body', '')}".lower()


def tidy(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    context["default_mode"] = "auto"
    context["script_files"] = [script for script in context.get("script_files", []) if not is_thebe(script)]
    if "body" in context:
        for before, after in REPLACED.items():
            context["body"] = context["body"].replace(before, after)
        context["body"] = EMPTY_HEADING.sub(r"<td\1>\2</td>", context["body"])


def drop_fonts_ahead(app: Sphinx, exception: Exception | None) -> None:
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if FONT_AHEAD.search(text):
            path.write_text(FONT_AHEAD.sub("", text), encoding="utf-8")


def unmark(app: Sphinx, doctree: nodes.document) -> None:
    for block in doctree.findall(nodes.literal_block):
        if block.astext().startswith(MARK):
            code = block.astext().removeprefix(MARK)
            block.rawsource = code  # where the two differ, the code is not coloured
            block.children = [nodes.Text(code)]
            block.children[0].parent = block


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", unmark)
    app.connect("html-page-context", tidy, priority=900)
    app.connect("build-finished", drop_fonts_ahead)
    return {"version": "2", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}

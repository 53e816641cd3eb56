"""Definitions that open where a word is: the first mention of each glossary term on a page says what it means, on hover and on focus.

Where a page of prose writes ``{term}`loss` ``, the link gets the definition beside it, hidden until it is asked for; so does
the first word of the running text that is a term, for notebooks are plain Markdown and have no such role. The definition is part of the page: nothing is
fetched, and without the script it is the link to the glossary that remains.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/glossary"
SKIPPED = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.caption, nodes.raw, nodes.math, nodes.math_block, nodes.table,
           nodes.strong, addnodes.pending_xref, nodes.legend)  # fmt: skip
COMMON = {"head", "row", "run", "store", "scale", "form", "law", "claim", "member", "batch", "token", "context", "branch", "interval", "stack",
          "seed", "loss"}  # so common, or meant so often in another sense, that only prose that says {term} explains them
SENTENCES = 2
WITHOUT = {"book/api", "book/bibliography", "book/licence", "book/notation", "book/published"}  # pages of reference


# --- what a term means -------------------------------------------------------------------------------------------


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Keeps the definitions of the glossary, by term."""
    if app.env.docname != GLOSSARY:
        return
    found = {}
    for item in doctree.findall(nodes.definition_list_item):
        terms = [node for node in item.children if isinstance(node, nodes.term)]
        definition = next((node for node in item.children if isinstance(node, nodes.definition)), None)
        if terms and definition is not None and isinstance(item.parent.parent, addnodes.glossary):
            text = first_sentences(definition)
            for term in terms:
                found[term.astext()] = (term["ids"][0], text)
    app.env.glossary_terms = found


def first_sentences(definition: nodes.definition) -> str:
    """The definition's beginning as text; formulas as they are written in TeX's plainest form."""
    words = []
    for node in definition.children[0].findall(lambda one: isinstance(one, (nodes.Text, nodes.math))):
        if isinstance(node, nodes.math):
            words.append(plain_math(node.astext()))
        elif not isinstance(node.parent, nodes.math):
            words.append(node.astext())
    text = " ".join("".join(words).split())
    sentences = re.split(r"(?<=[.:])\s+(?=[A-Z*])", text)
    return " ".join(sentences[:SENTENCES]).rstrip(":")


SYMBOLS = {r"\ln": "ln ", r"\alpha": "α", r"\beta": "β", r"\varepsilon": "ε", r"\infty": "∞", r"\,": " ", "-": "−", r"\text": "", r"\cdot": "·"}


def plain_math(tex: str) -> str:
    for before, after in SYMBOLS.items():
        tex = tex.replace(before, after)
    tex = re.sub(r"_\{([^{}]*)\}", r"_\1", tex)
    return " ".join(tex.replace("{", "").replace("}", "").split())


# --- where it is said --------------------------------------------------------------------------------------------


def terms(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    return getattr(env, "glossary_terms", {})


def explained(name: str, shown: str, target: str, text: str) -> nodes.raw:
    """A link to the glossary with its definition beside it."""
    label = f"{name}: {text}"
    return nodes.raw("", f'<a class="reference internal glossed" href="{html.escape(target)}" data-term="{html.escape(name)}" '
                     f'data-definition="{html.escape(label)}">{html.escape(shown)}</a>', format="html")


def explain(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Turns the first mention of each term into a link that says what it means."""
    known = terms(app.env)
    if page == GLOSSARY or not known or app.builder.name != "html":
        return
    glossary = app.builder.get_relative_uri(page, GLOSSARY)
    seen: set[str] = set()
    for link in list(doctree.findall(nodes.reference)):
        anchor = link.get("refid") or link.get("refuri", "").rpartition("#")[2]
        name = next((name for name, (id_, _) in known.items() if id_ == anchor), None)
        if name and name not in seen and link.get("internal"):
            seen.add(name)
            link.replace_self(explained(name, link.astext(), f"{glossary}#{anchor}", known[name][1]))
    if page not in WITHOUT:
        mention(doctree, {name: known[name] for name in known if name not in seen and name not in COMMON}, glossary)
    app.env.metadata[page]["glossed"] = True


def mention(doctree: nodes.document, known: dict[str, tuple[str, str]], glossary: str) -> None:
    """The first mention in running text, of one word or its plural, in a page that has no role for it."""
    if not known:
        return
    patterns = {name: re.compile(rf"(?<![\w-])({re.escape(name)}(?:s|es)?)(?![\w-])", 0 if name != name.lower() else re.I) for name in known}
    left = dict(patterns)
    for node in list(doctree.findall(nodes.Text)):
        if not left or not in_running_text(node):
            continue
        text, parts = node.astext(), []
        while found := min((m for m in (pattern.search(text) for pattern in left.values()) if m), key=lambda m: (m.start(), -len(m[1])), default=None):
            name = next(one for one, pattern in left.items() if (m := pattern.search(text)) and m.span() == found.span())
            del left[name]
            parts += [nodes.Text(text[: found.start(1)]), explained(name, found[1], f"{glossary}#{known[name][0]}", known[name][1])]
            text = text[found.end(1):]
        if parts:
            node.parent.replace(node, [*parts, nodes.Text(text)])


def in_running_text(node: nodes.Node) -> bool:
    parent, paragraph = node.parent, False
    while parent is not None:
        if isinstance(parent, SKIPPED):
            return False
        paragraph = paragraph or isinstance(parent, nodes.paragraph)
        parent = parent.parent
    return paragraph


def load(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    if "glossed" in app.env.metadata.get(page, {}):
        app.add_js_file("terms.js", loading_method="defer")


def merge(app: Sphinx, env: BuildEnvironment, docnames, other: BuildEnvironment) -> None:
    if terms(other):
        env.glossary_terms = other.glossary_terms


def setup(app: Sphinx) -> dict:
    app.connect("doctree-read", collect)
    app.connect("doctree-resolved", explain, priority=900)
    app.connect("html-page-context", load)
    app.connect("env-merge-info", merge)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}

"""The page of functions and classes, from the package itself.

```` ```{api} laws.fit ```` prints the signature and the docstring of `minitransformer.laws.fit`; of a class, its fields or arguments and
each public method with the first sentence of its docstring. The content of the directive is a worked example, in doctest's form, which
tests/test_api.py runs.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from dataclasses import is_dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = "minitransformer"
WIDTH = 100
CODE = re.compile(r"(``[^`]+``|`[^`]+`)")


def find(name: str) -> Any:
    """What `laws.fit` names: an attribute where there is one, else a module. Raises ImportError."""
    found, path = importlib.import_module(PACKAGE), PACKAGE
    for part in name.split("."):
        path += f".{part}"
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    return found


def annotation(value: Any) -> str:
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text)


def default(value: Any) -> str:
    text = repr(value)
    return "..." if text.startswith("<") or len(text) > 40 else text


def argument(parameter: inspect.Parameter) -> str:
    star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    typed = "" if parameter.annotation is parameter.empty else f": {annotation(parameter.annotation)}"
    given = "" if parameter.default is parameter.empty else (" = " if typed else "=") + default(parameter.default)
    return f"{star}{parameter.name}{typed}{given}"


def signature(name: str, found: Any) -> str:
    """A call of it as Python writes it, over several lines where it is long."""
    asked = inspect.signature(found)
    parts, keyword_only = [], False
    for parameter in asked.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only and "*" not in "".join(parts):
            parts.append("*")
        keyword_only = keyword_only or parameter.kind is parameter.KEYWORD_ONLY
        parts.append(argument(parameter))
    returned = "" if asked.return_annotation in (asked.empty, None, "None") else f" -> {annotation(asked.return_annotation)}"
    line = f"{name}({', '.join(parts)}){returned}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "\n".join(textwrap.wrap(", ".join(parts) + ",", WIDTH, initial_indent="    ", subsequent_indent="    ")) + f"\n){returned}"


def inline(text: str) -> list[nodes.Node]:
    parts = CODE.split(text)
    return [nodes.literal("", part.strip("`")) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def prose(docstring: str) -> list[nodes.Node]:
    """A docstring's paragraphs; what is indented, or set in columns, stays as it is."""
    found: list[nodes.Node] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if re.search(r"^\s{4}|\S\s{2,}\S", block, re.M):
            found.append(nodes.literal_block(block, textwrap.dedent(block), language="none"))
        else:
            found.append(nodes.paragraph("", "", *inline(" ".join(block.split()))))
    return found


def first_sentence(docstring: str) -> str:
    return re.split(r"(?<=[.:])\s", " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split()))[0].rstrip(":")


def methods(found: type) -> list[tuple[str, str]]:
    """Each public method and property that has a docstring, with its first sentence."""
    listed = []
    for name, member in vars(found).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(member, property)) or not inspect.getdoc(function):
            continue
        call = name if isinstance(member, property) else name + "(" + ", ".join(list(inspect.signature(function).parameters)[1:]) + ")"
        listed.append((call, first_sentence(function.__doc__)))
    return listed


class Api(SphinxDirective):
    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            found = find(name)
            source = inspect.getsourcefile(found)
        except (ImportError, TypeError) as problem:
            raise self.error(f"there is no {name!r} in {PACKAGE}: {problem}") from problem
        docstring = found.__doc__
        if not docstring or (is_dataclass(found) and docstring.startswith(f"{found.__name__}(")):
            raise self.error(f"{name} has no docstring")
        if not self.content:
            raise self.error(f"{name} has no example")
        self.env.note_dependency(source)
        self.env.note_dependency(__file__)
        module = found.__module__
        call = nodes.literal_block("", signature(name.rpartition(".")[2], found), language="python", classes=["api-signature"])
        place = nodes.paragraph("", "", nodes.literal("", f"from {module} import {found.__name__}"), classes=["api-place"])
        parts = [place, call, *prose(docstring)]
        if inspect.isclass(found) and (listed := methods(found)):
            items = [nodes.list_item("", nodes.paragraph("", "", nodes.literal("", call), nodes.Text(": "), *inline(said))) for call, said in listed]
            parts.append(nodes.bullet_list("", *items, classes=["api-methods"]))
        example = "\n".join(self.content)
        parts.append(nodes.literal_block(example, example, language="pycon"))
        return parts


def examples(page: str) -> list[tuple[str, str]]:
    """The name and the example of each `api` directive of a page of MyST."""
    return re.findall(r"^```\{api\} (\S+)\n(.*?)^```$", page, re.M | re.S)


def setup(app: Sphinx) -> dict:
    app.add_directive("api", Api)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

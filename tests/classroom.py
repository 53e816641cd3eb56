"""A small lab, and what a class of thirty hands in for it: every kind of trouble, and the marks it should get. For tests and benchmarks."""

from pathlib import Path
from typing import Iterable

from minitransformer.labs.source import cell_id, kind, notebook_text

TINY = """
# Lab: a small one

%% given data
import math
numbers = [1.0, 2.0, 4.0]
%% md
### Exercise 1: The mean

*Difficulty 1 of 5 · importance 1 of 5 · 1 minutes · 3 points*
%% answer mean
def mean(x):
    ### BEGIN SOLUTION
    return sum(x) / len(x)
    ### END SOLUTION
%% test mean-1 2
assert mean([2.0, 2.0]) != 4.0, "that is the sum"
### BEGIN HIDDEN TESTS
assert mean([1.0, 2.0, 6.0]) == 3.0, "the sum over the number"
### END HIDDEN TESTS
%% test mean-2 1
assert mean(numbers) > 0
### BEGIN HIDDEN TESTS
assert abs(mean(numbers) - 7 / 3) < 1e-9
### END HIDDEN TESTS
%% md
### Exercise 2: The largest

*Difficulty 1 of 5 · importance 1 of 5 · 1 minutes · 1 point*
%% answer top
### BEGIN SOLUTION
top = max(numbers)
### END SOLUTION
%% test top-1 1
assert isinstance(top, float)
### BEGIN HIDDEN TESTS
assert top == 4.0
### END HIDDEN TESTS
"""
MEAN, TOP = "def mean(x):\n    return sum(x) / len(x)", "top = max(numbers)"


def written(text: str) -> dict:
    """A source notebook from parts that begin with %% and say what they are."""
    cells = [{"cell_type": "markdown", "metadata": {}, "source": text.partition("%%")[0].strip()}]
    for part in text.split("\n%% ")[1:]:
        (what, *words), source = part.partition("\n")[0].split(), part.partition("\n")[2].strip("\n")
        if what == "md":
            cells.append({"cell_type": "markdown", "metadata": {}, "source": source})
            continue
        marks = {"grade_id": words[0], "schema_version": 3, "task": False, "locked": what != "answer", "solution": what == "answer", "grade": what == "test"}
        marks |= {"points": int(words[1])} if what == "test" else {}
        cells.append({"cell_type": "code", "metadata": {"nbgrader": marks}, "source": source, "outputs": [], "execution_count": None})
    for i, cell in enumerate(cells):
        cell["id"] = f"cell{i}"
    return {"cells": cells, "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}


def answered(lab, **answers: str) -> dict:
    notebook = lab.student()
    for cell in notebook["cells"]:
        if kind(cell) == "answer" and cell_id(cell) in answers:
            cell["source"] = answers[cell_id(cell)]
    return notebook


CLASS = {  # answers, or the text of a file that is no notebook; the points of mean and top
    "right": (dict(mean=MEAN, top=TOP), 3, 1),
    "right-too": (dict(mean="import statistics\nmean = statistics.fmean", top="top = numbers[-1]"), 3, 1),
    "magic": (dict(mean="%matplotlib inline\n!ls\n" + MEAN, top=TOP), 3, 1),
    "sum": (dict(mean="mean = sum", top=TOP), 0, 1),
    "median": (dict(mean="mean = lambda x: sorted(x)[len(x) // 2]", top=TOP), 0, 1),
    "partial": (dict(mean="def mean(x):\n    return 7 / 3 if x == numbers else 0", top="top = 0.0"), 1, 0),
    "only-first": (dict(mean=MEAN), 3, 0),
    "only-last": (dict(top=TOP), 0, 1),
    "integer": (dict(mean=MEAN, top="top = 4"), 3, 0),
    "text": (dict(mean=MEAN, top="top = '4.0'"), 3, 0),
    "none": (dict(mean="mean = None", top="top = None"), 0, 0),
    "blank": (dict(), 0, 0),
    "emptied": (dict(mean="", top=""), 0, 0),
    "syntax": (dict(mean="def mean(x)\n    return", top=TOP), 0, 1),
    "crash": (dict(mean=MEAN, top="1 / 0"), 3, 0),
    "crash-inside": (dict(mean="def mean(x):\n    return x[99]", top=TOP), 0, 1),
    "exit": (dict(mean="import sys\nsys.exit(0)", top=TOP), 0, 1),
    "hard-exit": (dict(mean="import os\nos._exit(0)", top=TOP), 0, 1),
    "segfault": (dict(mean="import ctypes\nctypes.string_at(0)", top=TOP), 0, 1),
    "recursion": (dict(mean="def mean(x):\n    return mean(x)", top=TOP), 0, 1),
    "loop": (dict(mean=MEAN, top="while True:\n    pass"), 3, 0),
    "loop-inside": (dict(mean="def mean(x):\n    while True:\n        pass", top=TOP), 0, 1),
    "deaf-loop": (dict(mean=MEAN, top="while True:\n    try:\n        while True: pass\n    except BaseException: pass"), 3, 0),
    "sleep": (dict(mean=MEAN, top="import time\ntime.sleep(10_000)"), 3, 0),
    "memory": (dict(mean=MEAN, top="hog = []\nwhile True:\n    hog.append(bytes(50_000_000))"), 3, 0),
    "memory-at-once": (dict(mean="hog = bytearray(10**12)\n" + MEAN, top=TOP), 0, 1),
    "flood": (dict(mean="for i in range(20_000):\n    print('x' * 1000)\n" + MEAN, top=TOP), 3, 1),
    "malformed": ('{"cells": [', 0, 0),
    "not-json": ("%PDF-1.4", 0, 0),
    "other-json": ('{"cells": [1, 2], "nbformat": 4}', 0, 0),
}


def submissions(lab) -> dict[str, str]:
    """The text of each file that is handed in, by student."""
    return {who: what if isinstance(what, str) else notebook_text(answered(lab, **what)) for who, (what, _, _) in CLASS.items()}


def hand_in(lab, folder: Path, place: str = "{who}/{lab}.ipynb", only: Iterable[str] = CLASS) -> None:
    """Writes them into a folder, where a course has them."""
    texts = submissions(lab)
    for who in only:
        path = folder / place.format(who=who, lab=lab.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[who], encoding="utf-8")


VISIBILITY = {"enum": ["visible", "hidden", "after_due_date", "after_published"]}
FORMAT = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
RESULTS = {  # results.json as Gradescope's documentation of autograders has it ("Autograder Specifications"); what it does not name is refused
    "type": "object",
    "anyOf": [{"required": ["score"]}, {"required": ["tests"]}],
    "additionalProperties": False,
    "properties": {
        "score": {"type": "number"}, "execution_time": {"type": "integer", "minimum": 0}, "output": {"type": "string"},
        "output_format": FORMAT, "test_output_format": FORMAT, "test_name_format": FORMAT,
        "visibility": VISIBILITY, "stdout_visibility": VISIBILITY, "extra_data": {"type": "object"},
        "tests": {"type": "array", "items": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "score": {"type": "number"}, "max_score": {"type": "number"}, "status": {"enum": ["passed", "failed"]},
                "name": {"type": "string"}, "name_format": FORMAT, "number": {"type": "string"},
                "output": {"type": "string"}, "output_format": FORMAT, "tags": {"type": "array", "items": {"type": "string"}},
                "visibility": VISIBILITY, "extra_data": {"type": "object"}}}},
        "leaderboard": {"type": "array", "items": {
            "type": "object",
            "required": ["name", "value"],
            "properties": {"name": {"type": "string"}, "value": {"type": ["number", "string"]}, "order": {"enum": ["asc", "desc"]}}}},
    },
}

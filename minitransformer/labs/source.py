"""A lab is one notebook with nbgrader's markers and metadata; here it is read, checked, and split into what each reader gets.

    kind     metadata "nbgrader"               in the student's copy
    given    locked                            as it is
    answer   solution                          what stands between ### BEGIN SOLUTION and ### END SOLUTION becomes a stub
    test     grade, locked, with its points    without what stands between ### BEGIN HIDDEN TESTS and ### END HIDDEN TESTS

The id (`grade_id`) of an answer is the name of its exercise; its tests are NAME-1, NAME-2, … An exercise begins with a Markdown cell

    ### Exercise 3: The slope

    *Difficulty 2 of 5 · importance 5 of 5 · 10 minutes · 4 points*

Outputs are cleared in the student's copy but those of given cells with the tag `expected`: pictures of what a right answer looks like.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import replacing

STUB = "# YOUR CODE HERE\nraise NotImplementedError()"
EXPECTED = "expected"
FOLDER = Path("notebooks", "labs")
SOLUTION, HIDDEN = ("### BEGIN SOLUTION", "### END SOLUTION"), ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
HEADING = re.compile(r"### Exercise (\d+): (.+)\n\n\*Difficulty (\d) of 5 · importance (\d) of 5 · (\d+) minutes · (\d+) points?\*")

Notebook = dict[str, Any]
Cell = dict[str, Any]


COLUMNS = ("submission", "lab", "marks", "out_of", "status", "seconds")  # of the table of marks; exercises have other names


@dataclass(frozen=True)
class Exercise:
    """What an exercise is called, how hard and how important it is (of 5), and the points of each of its tests by id."""

    name: str
    title: str
    difficulty: int
    importance: int
    minutes: int
    tests: dict[str, int]

    @property
    def points(self) -> int:
        return sum(self.tests.values())


@dataclass(frozen=True)
class Lab:
    name: str
    title: str
    notebook: Notebook
    exercises: tuple[Exercise, ...]

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def minutes(self) -> int:
        return sum(exercise.minutes for exercise in self.exercises)

    def student(self) -> Notebook:
        """The copy that students get."""
        notebook = copy.deepcopy(self.notebook)
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            cell["source"] = without(without(cell["source"], SOLUTION, STUB), HIDDEN)
            cell["execution_count"] = None
            if EXPECTED not in cell["metadata"].get("tags", ()):
                cell["outputs"] = []
                cell["metadata"].pop("mystnb", None)
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = None
        return notebook

    def solution(self) -> Notebook:
        """The page of solutions: everything, hidden tests and outputs included, without the markers; it lies one folder deeper."""
        notebook = copy.deepcopy(self.notebook)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                lines = cell["source"].split("\n")
                cell["source"] = "\n".join(line for line in lines if line.strip() not in (*SOLUTION, *HIDDEN))
            else:
                cell["source"] = re.sub(r"\]\(\.\./", "](../../", cell["source"])
        first = notebook["cells"][0]
        first["source"] = re.sub(r"^# .*", lambda title: title[0] + ": solutions", re.sub(r"\[!\[Open in Colab\].*\n+", "", first["source"]))
        return notebook

    def secrets(self) -> set[str]:
        """Every line of code, stripped, that the student's copy must not hold."""
        open_lines = {line.strip() for cell in self.student()["cells"] for line in cell["source"].split("\n")}
        lines = {line.strip() for cell in self.notebook["cells"] if cell["cell_type"] == "code" for line in cell["source"].split("\n")}
        return {line for line in lines - open_lines if len(line) > 1}


def cell_id(cell: Cell) -> str:
    """The `grade_id` of a cell, or nothing."""
    return str((cell.get("metadata") or {}).get("nbgrader", {}).get("grade_id", ""))


def kind(cell: Cell) -> str:
    """given, answer or test; prose for Markdown, and nothing for code without nbgrader's metadata."""
    if cell["cell_type"] != "code":
        return "prose"
    marks = cell["metadata"].get("nbgrader")
    if marks is None:
        return ""
    return "answer" if marks["solution"] else "test" if marks["grade"] else "given"


def without(text: str, markers: tuple[str, str], instead: str = "") -> str:
    """The text with what stands between the markers replaced, at the indentation of the first; the markers go too."""
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        if line.strip() == markers[0]:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + new for new in instead.split("\n") if instead]
        elif line.strip() == markers[1]:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept).rstrip("\n")


def load_notebook(path: Path) -> Notebook:
    """A notebook of format 4 with the source of each cell as one string; ValueError says why it is none."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as problem:
        raise ValueError(f"not a notebook: {type(problem).__name__}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list) or notebook.get("nbformat") != 4:
        raise ValueError("not a notebook of format 4")
    for cell in notebook["cells"]:
        if not isinstance(cell, dict) or not isinstance(cell.get("metadata", {}), dict) or "cell_type" not in cell:
            raise ValueError("not a notebook: a cell is damaged")
        source = cell.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str) or not isinstance(cell.get("metadata", {}).get("nbgrader", {}), dict):
            raise ValueError("not a notebook: a cell is damaged")
        cell["source"] = source
    return notebook


def notebook_text(notebook: Notebook) -> str:
    """As nbformat writes it, so that what Jupyter saves and what is made here differ in nothing."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def save_notebook(notebook: Notebook, path: Path) -> None:
    with replacing(path, "Free or unlock that folder.") as part:
        part.write_text(notebook_text(notebook), encoding="utf-8", newline="\n")


def read_lab(path: Path) -> Lab:
    """The lab in a source notebook. UserError names the first thing that is wrong with it."""
    try:
        notebook = load_notebook(path)
    except ValueError as problem:
        raise UserError(f"{path}: {problem}") from None

    def check(good: object, problem: str) -> None:
        if not good:
            raise UserError(f"{path}: {problem}")

    cells = notebook["cells"]
    title = re.match(r"# (.+)", cells[0]["source"]) if cells else None
    check(title, "the first cell is not a title")
    exercises: list[Exercise] = []
    heading, seen = None, set()
    for cell in cells:
        text, id_, what = cell["source"], cell_id(cell), kind(cell)
        for begin, end in (SOLUTION, HIDDEN):
            marks = [line.strip() for line in text.split("\n") if line.strip() in (begin, end)]
            check(marks == [begin, end] * (len(marks) // 2), f"{begin} and {end} do not alternate in {id_ or text[:40]!r}")
            check(not marks or what == ("answer" if begin == SOLUTION[0] else "test"), f"{begin} in a cell that is not for it: {id_ or text[:40]!r}")
        if what == "prose":
            if text.startswith("### Exercise"):
                check(heading is None, f"exercise {heading[2] if heading else ''} has no answer")
                heading = HEADING.match(text)
                check(heading, f"a heading is not like the others: {text[:60]!r}")
                check(int(heading[1]) == len(exercises) + 1, f"exercise {heading[1]} is out of order")
            continue
        check(what, f"a code cell has no nbgrader metadata: {text[:60]!r}")
        check(id_ and id_ not in seen, f"cell id {id_!r} is missing or used twice")
        seen.add(id_)
        if what == "answer":
            check(heading, f"answer {id_} has no heading")
            check(SOLUTION[0] in text, f"answer {id_} has no {SOLUTION[0]}")
            check(id_ not in COLUMNS, f"answer {id_} is called like a column of the table of marks: {', '.join(COLUMNS)}")
            exercises.append(Exercise(id_, heading[2].strip(), *map(int, heading.group(3, 4, 5)), tests={}))
            promised, heading = int(heading[6]), None
        elif what == "test":
            check(exercises and re.fullmatch(re.escape(exercises[-1].name) + r"-\d+", id_), f"test {id_} does not follow its answer")
            exercises[-1].tests[id_] = int(cell["metadata"]["nbgrader"]["points"])
            check(exercises[-1].points <= promised, f"the tests of {exercises[-1].name} give more points than its heading says")
        if exercises and what == "answer" and len(exercises) > 1:
            check(exercises[-2].tests, f"exercise {exercises[-2].name} has no tests")
    promises = {answer: int(match[6]) for match, answer in zip((m for m in (HEADING.match(c["source"]) for c in cells) if m), (e.name for e in exercises))}
    for exercise in exercises:
        check(exercise.points == promises[exercise.name], f"exercise {exercise.name} gives {exercise.points} points, its heading says {promises[exercise.name]}")
    return Lab(path.stem, title[1].strip(), notebook, tuple(exercises))


def find_labs(folder: Path | None = None) -> dict[str, Lab]:
    """The labs by name, from a folder of sources: the one given, or that of the checkout around this package or the working folder."""
    places = [folder] if folder else [root / FOLDER / "source" for root in (Path.cwd(), Path(__file__).parents[2])]
    for place in places:
        if labs := {path.stem: read_lab(path) for path in sorted(place.glob("*.ipynb"))}:
            return labs
    raise UserError(f"no labs in {places[0]}: run this in a checkout of the repository, whose {(FOLDER / 'source').as_posix()} holds them, or name that folder with --source")

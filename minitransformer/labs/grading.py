"""From a folder of submissions to marks: each is put together with the lab's own cells, run in a sandbox, and marked test by test."""

from __future__ import annotations

import ast
import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from ..data.cache import progress
from ..errors import UserError
from ..files import replacing
from . import sandbox
from .sandbox import Cell, Limits
from .source import COLUMNS, Lab, Notebook, cell_id, kind, load_notebook

TOO_LARGE = 20 * 2**20


@dataclass
class Marks:
    """Of one submission: points and a remark by exercise, what happened (graded, blank, or why nothing could be run), seconds."""

    submission: str
    lab: Lab
    status: str
    points: dict[str, int]
    remarks: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    alone: bool = False

    @property
    def total(self) -> int:
        return sum(self.points.values())


def together(lab: Lab, notebook: Notebook) -> list[Cell]:
    """What is run: the lab's given cells and tests as they are in its source, the student's answers, and cells the student added.

    A cell is known by its nbgrader id; where an editor has lost that, by its text, and an answer by its place. Added cells run after the
    known cell they follow, so that what a student has deleted, moved or changed in the lab's own cells does not matter.
    """
    ours = {cell_id(cell): cell for cell in lab.notebook["cells"] if kind(cell) not in ("", "prose")}
    by_text = {cell["source"].strip(): cell_id(cell) for cell in lab.student()["cells"] if cell_id(cell) in ours and kind(cell) != "answer"}
    following = {before: after for before, after in zip(["", *ours], ours)}
    answers: dict[str, str] = {}
    added: dict[str, list[str]] = {}
    last = ""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        id_ = cell_id(cell)
        if id_ not in ours:
            id_ = by_text.get(cell["source"].strip(), "")
        if not id_ and "nbgrader" not in cell.get("metadata", {}) and not _has_ids(notebook):
            after = following.get(last, "")
            id_ = after if after and kind(ours[after]) == "answer" else ""
        if not id_:
            added.setdefault(last, []).append(cell["source"])
            continue
        last = id_
        if kind(ours[id_]) == "answer":
            answers[id_] = cell["source"]
    cells = []
    for id_ in ["", *ours]:
        if id_:
            cells.append(Cell(id_, answers.get(id_, "raise NotImplementedError()") if kind(ours[id_]) == "answer" else ours[id_]["source"]))
        cells += [Cell(f"{id_}+{i}", code) for i, code in enumerate(added.get(id_, ()), 1)]
    return cells


def _has_ids(notebook: Notebook) -> bool:
    return any(cell_id(cell) for cell in notebook["cells"])


def grade_notebook(lab: Lab, path: Path, limits: Limits = Limits(), submission: str = "") -> Marks:
    """Marks of one file."""
    marks = Marks(submission or path.stem, lab, "graded", {exercise.name: 0 for exercise in lab.exercises})
    try:
        if path.stat().st_size > TOO_LARGE:
            raise ValueError(f"larger than {TOO_LARGE >> 20} MB")
        cells = together(lab, load_notebook(path))
    except (OSError, ValueError) as problem:
        marks.status = str(problem)
        return marks
    code = {cell.id: cell.code for cell in cells}
    stubs = {cell_id(cell): cell["source"] for cell in lab.student()["cells"] if kind(cell) == "answer"}
    if all(code[name].strip() in ("", "raise NotImplementedError()", stubs[name].strip()) for name in marks.points):
        marks.status = "blank"
        return marks
    outcome = sandbox.run(cells, limits, _imports(lab))
    marks.seconds, marks.alone = outcome.seconds, outcome.alone
    for exercise in lab.exercises:
        passed = {test: points for test, points in exercise.tests.items() if outcome.how.get(test) == "ok"}
        marks.points[exercise.name] = sum(passed.values())
        marks.remarks[exercise.name] = _remark(exercise, passed, outcome, code[exercise.name].strip() in ("", stubs[exercise.name].strip()))
    broken = [cell.id for cell in cells if outcome.how.get(cell.id) != "ok" and cell.id in _given(lab)]
    if broken:
        marks.status = f"graded, but the lab's own cell {broken[0]} failed: {outcome.message.get(broken[0], 'not reached')}"
    return marks


def _imports(lab: Lab) -> list[str]:
    """The modules that the lab's given cells import."""
    names: dict[str, None] = {}
    for cell in lab.notebook["cells"]:
        if kind(cell) == "given":
            for node in ast.parse(cell["source"]).body:
                names |= dict.fromkeys([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else [])
    return list(names)


def _given(lab: Lab) -> set[str]:
    return {cell_id(cell) for cell in lab.notebook["cells"] if kind(cell) == "given"}


def _remark(exercise, passed: Mapping[str, int], outcome: sandbox.Outcome, blank: bool) -> str:
    """Why points are missing, in one line: the answer's own trouble first, else what the first failed test said."""
    if len(passed) == len(exercise.tests):
        return ""
    if blank:
        return "no answer"
    for id_ in (exercise.name, *exercise.tests):
        if outcome.how.get(id_) != "ok":
            return " ".join(outcome.message.get(id_, "not reached: the submission ran out of time before").split())
    return ""


def submissions(folder: Path, labs: Mapping[str, Lab], name: str | None = None) -> Iterator[tuple[str, Lab, Path]]:
    """Who handed in what: FOLDER/LAB/STUDENT.ipynb, FOLDER/STUDENT/LAB.ipynb, or FOLDER/STUDENT.ipynb with the lab named."""
    if name is not None and name not in labs:
        raise UserError(f"no lab {name!r}; there are: {', '.join(labs)}")
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; it should hold the notebooks that were handed in")
    for path in sorted(path for path in folder.rglob("*.ipynb") if not any(part.startswith(".") for part in path.relative_to(folder).parts)):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[-1] in labs and len(parts) > 1:
            lab, who = parts[-1], "/".join(parts[:-1])
        elif len(parts) > 1 and parts[0] in labs:
            lab, who = parts[0], "/".join(parts[1:])
        else:
            lab, who = name or _recognised(path, labs), "/".join(parts)
        if lab is None:
            raise UserError(f"of which lab is {path.relative_to(folder)}? Name it with --lab; there are: {', '.join(labs)}")
        if name in (None, lab):
            yield who, labs[lab], path


def _recognised(path: Path, labs: Mapping[str, Lab]) -> str | None:
    """The lab whose cells a notebook has."""
    try:
        ids = {cell_id(cell) for cell in load_notebook(path)["cells"]}
    except ValueError:
        return None
    shared = {name: sum(exercise.name in ids for exercise in lab.exercises) for name, lab in labs.items()}
    best = max(shared, key=shared.get)
    return best if shared[best] else None


def grade_folder(folder: Path, labs: Mapping[str, Lab], name: str | None = None, limits: Limits = Limits(), workers: int = 1) -> list[Marks]:
    """Marks of everything in a folder, in order of its paths."""
    found = list(submissions(folder, labs, name))
    if not found:
        raise UserError(f"no notebooks{f' of {name}' if name else ''} in {folder}")
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        jobs = [pool.submit(grade_notebook, lab, path, limits, who) for who, lab, path in found]
        return [job.result() for job in progress(jobs, "submissions", len(jobs))]


def write_csv(marks: Sequence[Marks], path: Path) -> None:
    """One row a submission and lab: all its marks, and points and remark of each exercise of any lab graded (empty where it is not of that lab)."""
    names = list(dict.fromkeys((one.lab.name, exercise.name) for one in marks for exercise in one.lab.exercises))
    several = len({one.lab.name for one in marks}) > 1
    title = {pair: f"{pair[0]}.{pair[1]}" if several else pair[1] for pair in names}
    with replacing(path, "Choose another file with --csv.") as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*COLUMNS[:4], *title.values(), *COLUMNS[4:], *(f"{name} remark" for name in title.values())])
        for one in marks:
            mine = {(one.lab.name, name): points for name, points in one.points.items()}
            said = {(one.lab.name, name): text for name, text in one.remarks.items()}
            cells = [one.submission, one.lab.name, one.total, one.lab.points, *(mine.get(pair, "") for pair in names), one.status,
                     f"{one.seconds:.1f}", *(said.get(pair, "") for pair in names)]
            rows.writerow([_harmless(cell) for cell in cells])


def _harmless(cell: object) -> object:
    """Text that a spreadsheet will not take for a formula."""
    return "'" + cell if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def table(marks: Sequence[Marks]) -> str:
    """For people: a block for each lab, a line for each submission, and what went wrong beneath."""
    lines = []
    for lab in {one.lab.name: one.lab for one in marks}.values():
        some = [one for one in marks if one.lab.name == lab.name]
        wide = max(10, *(len(one.submission) for one in some))
        columns = {exercise.name: max(len(exercise.name), 5) for exercise in lab.exercises}
        lines += [f"{lab.title} ({lab.name})", f"{'submission':{wide}}" + "".join(f"  {name:>{width}}" for name, width in columns.items()) + f"  {'marks':>8}  status"]
        lines.append(f"{'out of':{wide}}" + "".join(f"  {exercise.points:>{columns[exercise.name]}}" for exercise in lab.exercises) + f"  {lab.points:>8}")
        for one in some:
            row = "".join(f"  {one.points[name]:>{width}}" for name, width in columns.items())
            lines.append(f"{one.submission:{wide}}{row}  {one.total:>8}  {one.status}")
        lines.append("")
    return "\n".join(lines).rstrip()

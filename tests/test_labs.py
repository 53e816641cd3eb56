"""The labs: each source whole, its copies made from it, no solution in them, and every answer that is kept here graded as it should be."""

import json
import sys
from pathlib import Path

import pytest

from minitransformer.errors import UserError
from minitransformer.labs import find_labs, gradescope, grading, mistaken, near, read_lab
from minitransformer.labs.sandbox import Limits
from minitransformer.labs.source import EXPECTED, FOLDER, cell_id, kind, notebook_text, save_notebook
from test_site import load

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
LABS = find_labs(ROOT / FOLDER / "source")
WRONG = {name: tomllib.loads((ROOT / "tests" / "labs" / f"{name}.toml").read_text(encoding="utf-8")) for name in LABS}
MOST = {name: max(map(len, WRONG[name].values())) for name in LABS}
LIMITS = Limits(cell_seconds=60, seconds=300, memory=gradescope.LIMITS.memory)  # the least that any way gives
each_lab = pytest.mark.parametrize("name", LABS)


def handed_in(lab, answers: dict[str, str]) -> dict:
    """The student's copy with these answers written into it."""
    notebook = lab.student()
    for cell in notebook["cells"]:
        if kind(cell) == "answer" and cell_id(cell) in answers:
            cell["source"] = answers[cell_id(cell)]
    return notebook


def right(lab) -> dict[str, str]:
    return {cell_id(cell): cell["source"] for cell in lab.solution()["cells"] if kind(cell) == "answer"}


def grade(lab, notebook: dict, folder: Path, limits: Limits = LIMITS) -> grading.Marks:
    path = folder / "somebody.ipynb"
    save_notebook(notebook, path)
    return grading.grade_notebook(lab, path, limits)


@each_lab
def test_students_copy_is_the_one_its_source_gives(name):
    path = ROOT / FOLDER / f"{name}.ipynb"
    assert path.exists() and path.read_text(encoding="utf-8") == notebook_text(LABS[name].student()), "run `python tools/labs.py`"


def test_every_students_copy_has_a_source():
    assert {path.stem for path in (ROOT / FOLDER).glob("*.ipynb")} == set(LABS)
    assert load("labs_tool", ROOT / "tools" / "labs.py").students(check=True) == []


@each_lab
def test_lab_takes_the_time_it_should_and_says_so(name):
    lab = LABS[name]
    assert 60 <= lab.minutes <= 120
    assert f"about {lab.minutes} minutes" in lab.notebook["cells"][0]["source"]
    assert all(1 <= exercise.difficulty <= 5 and 1 <= exercise.importance <= 5 for exercise in lab.exercises)


@each_lab
def test_each_exercise_shows_what_a_right_answer_looks_like(name):
    shown, exercises = {}, iter(LABS[name].exercises)
    current = None
    for cell in LABS[name].notebook["cells"]:
        if cell["source"].startswith("### Exercise"):
            current = next(exercises).name
            shown[current] = False
        if current and "*What a right answer looks like:*" in cell["source"]:
            shown[current] = True
        elif current and EXPECTED in cell["metadata"].get("tags", ()):
            pictures = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
            assert len(pictures) == 1 and len(cell["metadata"]["mystnb"]["image"]["alt"]) > 20
            shown[current] = True
    assert shown and all(shown.values()), shown


@each_lab
def test_students_copy_holds_nothing_of_the_solution(name):
    lab = LABS[name]
    text = (ROOT / FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    secrets = lab.secrets()
    assert len(secrets) > 3 * len(lab.exercises)
    lines = {line.strip() for cell in json.loads(text)["cells"] for line in "".join(cell["source"]).split("\n")}
    assert not secrets & lines
    assert not [secret for secret in secrets if len(secret) > 20 and json.dumps(secret, ensure_ascii=False)[1:-1] in text]
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code" and EXPECTED not in cell["metadata"].get("tags", ()):
            assert cell["outputs"] == [] and cell["execution_count"] is None


@each_lab
def test_reference_gets_every_point(name, tmp_path):
    lab = LABS[name]
    marks = grade(lab, handed_in(lab, right(lab)), tmp_path)
    assert marks.total == lab.points and marks.status == "graded", (marks.points, marks.remarks, marks.status)


@each_lab
def test_empty_answers_get_nothing(name, tmp_path):
    lab = LABS[name]
    assert grade(lab, lab.student(), tmp_path).total == 0
    marks = grade(lab, handed_in(lab, {exercise.name: "pass" for exercise in lab.exercises}), tmp_path)
    assert marks.total == 0 and marks.status == "graded", marks.points


@pytest.mark.parametrize("name, which", [(name, i) for name in LABS for i in range(MOST[name])])
def test_wrong_answers_get_what_they_deserve(name, which, tmp_path):
    lab = LABS[name]
    assert set(WRONG[name]) == {exercise.name for exercise in lab.exercises}
    chosen = {exercise: wrong[which] for exercise, wrong in WRONG[name].items() if which < len(wrong)}
    marks = grade(lab, handed_in(lab, right(lab) | {exercise: one["code"] for exercise, one in chosen.items()}), tmp_path)
    expected = {e.name: chosen[e.name]["points"] if e.name in chosen else e.points for e in lab.exercises}
    assert marks.points == expected, marks.remarks
    assert all(chosen[name]["points"] < marks.lab.points and marks.remarks[name] for name in chosen)


@each_lab
def test_there_are_several_wrong_answers_for_each_exercise(name):
    full = {exercise.name: exercise.points for exercise in LABS[name].exercises}
    for exercise, wrong in WRONG[name].items():
        assert len(wrong) >= 3 and len({one["code"] for one in wrong}) == len(wrong), exercise
        assert all(one["points"] < full[exercise] for one in wrong), exercise


@each_lab
def test_no_level_of_headings_is_skipped(name):
    levels = [len(line) - len(line.lstrip("#")) for cell in LABS[name].notebook["cells"] if kind(cell) == "prose"
              for line in cell["source"].split("\n") if line.startswith("#")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))


def test_the_seconds_of_every_lab_are_printed_where_the_book_finds_them(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    table = load("labs_directive", ROOT / "book" / "_ext" / "labs.py")
    head, *rows = table.seconds(table.PRINTED.read_text(encoding="utf-8"), LABS)
    assert head == ["Lab", "At `smoke` scale", "At `laptop` scale"] and [row[0] for row in rows] == [lab.title for lab in LABS.values()]
    assert all(cell == "–" or int(cell.split()[0]) > 0 for row in rows for cell in row[1:]) and rows[0][1] != "–"
    one, *others = LABS
    text = f"lab  smoke  laptop\n{one}  5 (9)  60 (70)\nlab  laptop\n{one}  50 (55)\n"
    assert table.seconds(text, LABS)[1:] == [[LABS[one].title, "5 (9)", "50 (55)"], *([LABS[name].title, "–", "–"] for name in others)]
    with pytest.raises(ValueError, match="no seconds of any lab"):
        table.seconds("lab  smoke\n", LABS)

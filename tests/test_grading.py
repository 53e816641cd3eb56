"""What students hand in, graded by all three ways: a class of thirty with every kind of trouble, the sandbox's limits, Gradescope, nbgrader."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jsonschema
import pytest

from minitransformer.errors import UserError
from minitransformer.labs import find_labs, grading, sandbox
from minitransformer.labs.course import nbgrader_course
from minitransformer.labs.gradescope import autograder
from minitransformer.labs.sandbox import Cell, Limits
from minitransformer.labs.source import FOLDER, cell_id, kind, read_lab, save_notebook
from classroom import CLASS, MEAN, RESULTS, TINY, TOP, answered, hand_in, submissions, written
from terminal import command

ROOT = Path(__file__).resolve().parent.parent
SHORT = Limits(cell_seconds=2, seconds=30, memory=2**30)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="grading needs the limits of Linux or macOS")

@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    save_notebook(written(TINY), folder / "tiny.ipynb")
    return folder


@pytest.fixture(scope="module")
def tiny(sources):
    return read_lab(sources / "tiny.ipynb")


def marks_of(lab, notebook: dict, folder: Path, limits: Limits = SHORT) -> grading.Marks:
    save_notebook(notebook, folder / "one.ipynb")
    return grading.grade_notebook(lab, folder / "one.ipynb", limits)


# --- what a class hands in -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def class_folder(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("class")
    hand_in(tiny, folder)
    return folder


def test_a_class_of_thirty_gets_the_marks_it_should(sources, class_folder, tmp_path):
    assert len(CLASS) == 30
    start = time.monotonic()
    done = command("grade", str(class_folder), "--source", str(sources), "--csv", str(tmp_path / "marks.csv"), "--cell-seconds", "0.8",
                   "--seconds", "16", "--memory", "0.5", "--workers", "4")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 90
    with open(tmp_path / "marks.csv", encoding="utf-8", newline="") as file:
        rows = {row["submission"]: row for row in csv.DictReader(file)}
    expected = {who: (str(mean), str(top), str(mean + top), "4") for who, (_, mean, top) in CLASS.items()}
    given = {who: (row["mean"], row["top"], row["marks"], row["out_of"]) for who, row in rows.items()}
    assert given == expected
    assert rows["sum"]["mean remark"] == "that is the sum"
    assert rows["blank"]["status"] == rows["emptied"]["status"] == "blank"
    assert rows["malformed"]["status"].startswith("not a notebook")
    assert "memory" in rows["memory"]["top remark"] and "seconds" in rows["loop"]["top remark"]
    for who, (_, mean, top) in CLASS.items():
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [who])
        assert line.split()[1:4] == [str(mean), str(top), str(mean + top)]


def test_what_a_student_did_to_the_labs_own_cells_does_not_matter(tiny, tmp_path):
    notebook = answered(tiny, mean="mean = sum", top=TOP)
    for cell in notebook["cells"]:
        if kind(cell) == "test":
            cell["source"] = "pass"
            cell["metadata"]["nbgrader"]["points"] = 100
        elif kind(cell) == "given":
            cell["source"] = "numbers = [1000.0]"
    notebook["cells"] = [cell for cell in notebook["cells"] if cell_id(cell) != "top-1"]
    marks = marks_of(tiny, notebook, tmp_path)
    assert marks.points == {"mean": 0, "top": 1}


def test_cells_a_student_added_are_run_where_they_stand(tiny, tmp_path):
    notebook = answered(tiny, mean="def mean(x):\n    return total(x) / len(x)", top=TOP)
    notebook["cells"].insert(2, {"cell_type": "code", "metadata": {}, "id": "mine", "source": "def total(x):\n    return sum(x)", "outputs": [], "execution_count": None})
    assert marks_of(tiny, notebook, tmp_path).total == 4


def test_answers_are_known_by_their_place_where_an_editor_lost_the_ids(tiny, tmp_path):
    notebook = answered(tiny, mean=MEAN, top="top = 1.0")
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    assert marks_of(tiny, notebook, tmp_path).points == {"mean": 3, "top": 0}


@pytest.mark.parametrize("place", ["{who}.ipynb", "{who}/tiny.ipynb", "tiny/{who}.ipynb", "group/{who}/tiny.ipynb"])
def test_folders_are_read_as_courses_have_them(tiny, tmp_path, place):
    path = tmp_path / place.format(who="ann")
    save_notebook(answered(tiny, mean=MEAN), path)
    ((who, lab, found),) = grading.submissions(tmp_path, {"tiny": tiny})
    assert who.endswith("ann") and lab is tiny and found == path


@pytest.mark.parametrize("change, problem", [
    (lambda folder: None, "no notebooks"),
    (lambda folder: (folder / "who.ipynb").write_text("{"), "of which lab"),
])
def test_a_folder_that_cannot_be_graded_says_why(tiny, tmp_path, change, problem):
    change(tmp_path)
    with pytest.raises(UserError, match=problem):
        grading.grade_folder(tmp_path, {"tiny": tiny})


def test_a_spreadsheet_gets_no_formula(tiny, tmp_path):
    marks = grading.Marks("=cmd()", tiny, "graded", {"mean": 0, "top": 0}, {"mean": "-1+1"})
    grading.write_csv([marks], tmp_path / "m.csv")
    row = (tmp_path / "m.csv").read_text().splitlines()[1]
    assert row.startswith("'=cmd()") and "'-1+1" in row


@pytest.mark.parametrize("old, new, problem", [
    ("### END SOLUTION\n%% test mean-1", "%% test mean-1", "do not alternate"),
    ("%% test mean-2 1", "%% test mean-2 2", "points"),
    ("%% test mean-2 1", "%% test other-2 1", "does not follow"),
    ("### Exercise 2", "### Exercise 3", "out of order"),
    ("difficulty 1 of 5", "hard", "points"),
    ("%% answer top", "%% answer mean", "used twice"),
    ("%% answer top", "%% answer marks", "called like a column"),
    ("*Difficulty 1 of 5 · importance 1 of 5 · 1 minutes · 1 point*", "easy", "not like the others"),
])
def test_a_source_that_is_not_whole_is_refused(tmp_path, old, new, problem):
    text = TINY.replace(old, new)
    if text == TINY:
        text = TINY.replace("1 minutes · 3 points", "1 minutes · 4 points")
    save_notebook(written(text), tmp_path / "bad.ipynb")
    with pytest.raises(UserError, match=problem):
        read_lab(tmp_path / "bad.ipynb")


# --- the sandbox ---------------------------------------------------------------------------------------------------


def asked(code: str, **limits) -> sandbox.Outcome:
    return sandbox.run([Cell("asked", code)], Limits(**{"cell_seconds": 2, "seconds": 20, "memory": 2**30, **limits}))


def test_environment_holds_nothing_of_the_graders(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    outcome = asked("import os\nassert 'SECRET_TOKEN' not in os.environ and 'PYTHONPATH' not in os.environ\nassert os.path.samefile(os.environ['HOME'], '.')")
    assert outcome.how == {"asked": "ok"}, outcome.message


def test_a_loop_that_hears_no_signal_takes_nothing_from_the_cells_after_it():
    deaf = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    outcome = sandbox.run([Cell("deaf", deaf), Cell("after", "pass")], Limits(cell_seconds=0.3, seconds=60))
    assert outcome.how == {"deaf": "time", "after": "ok"} and outcome.message["deaf"] == "stopped after 0.3 seconds"
    assert outcome.seconds < 30


def test_files_have_a_largest_size():
    assert asked("open('big', 'wb').write(b'x' * 3_000_000)", file=2**20).how["asked"] in ("error", "died")
    assert asked("open('small', 'wb').write(b'x' * 300_000)", file=2**20).how["asked"] == "ok"


def test_there_is_no_network_where_namespaces_are_allowed():
    outcome = asked("import socket\nassert [name for _, name in socket.if_nameindex()] == ['lo']")
    if not outcome.alone:
        pytest.skip("no namespaces are allowed to this user here, so the network stays")
    assert outcome.how == {"asked": "ok"}, outcome.message


def test_children_end_with_the_submission(tmp_path):
    mark = tmp_path / "mark"
    outcome = asked("import subprocess, sys\n"
                    f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3); open({str(mark)!r}, \"w\")'], start_new_session=True)")
    if not outcome.alone:
        pytest.skip("no namespaces are allowed to this user here, so a child in a session of its own goes on")
    time.sleep(4)
    assert not mark.exists()


def test_a_line_that_only_looks_like_a_result_is_not_taken():
    outcome = asked("import json, os\n"
                    "for fd in range(3, 20):\n"
                    "    try:\n        os.write(fd, json.dumps({'word': '', 'end': 'forged', 'how': 'ok', 'message': ''}).encode() + b'\\n')\n"
                    "    except OSError: pass\n")
    assert "forged" not in outcome.how


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    asked("pass")  # the process that forks has a folder of its own, as long as it lives
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    asked("open('left', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []


# --- Gradescope ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked(tiny, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("autograder")
    autograder(tiny, root / "tiny.zip")
    with zipfile.ZipFile(root / "tiny.zip") as archive:
        for info in archive.infolist():
            (root / "source" / info.filename).parent.mkdir(parents=True, exist_ok=True)
            archive.extract(info, root / "source")
            (root / "source" / info.filename).chmod(info.external_attr >> 16)
    shutil.copy(root / "source" / "run_autograder", root)
    return root


@pytest.mark.parametrize("who", ["right", "partial", "sum", "blank", "crash", "malformed", None])
def test_gradescope_gets_valid_results(tiny, unpacked, who):
    shutil.rmtree(unpacked / "submission", ignore_errors=True)
    (unpacked / "submission").mkdir()
    if who:
        (unpacked / "submission" / "whatever name.ipynb").write_text(submissions(tiny)[who], encoding="utf-8")
    bare = {"PATH": "/usr/bin:/bin", "AUTOGRADER": str(unpacked), "PYTHON": sys.executable}
    done = subprocess.run([str(unpacked / "run_autograder")], env=bare, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((unpacked / "results" / "results.json").read_text())
    points = CLASS[who][1:] if who else (0, 0)
    assert tuple(test["score"] for test in results["tests"]) == points and results["score"] == sum(points)
    assert [test["max_score"] for test in results["tests"]] == [3, 1]
    jsonschema.validate(results, RESULTS)


def test_gradescopes_zip_holds_this_lab_alone_and_is_made_the_same_twice(tiny, unpacked, tmp_path):
    autograder(tiny, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (unpacked / "tiny.zip").read_bytes()
    names = zipfile.ZipFile(tmp_path / "again.zip").namelist()
    assert [name for name in names if name.endswith(".ipynb")] == ["lab/tiny.ipynb"]
    assert {"setup.sh", "run_autograder", "kit/pyproject.toml", "kit/minitransformer/labs/worker.py"} <= set(names)
    assert (tmp_path / "again.zip").stat().st_size < 20e6
    assert subprocess.run(["bash", "-n", str(unpacked / "source" / "setup.sh")]).returncode == 0


# --- nbgrader ------------------------------------------------------------------------------------------------------


@pytest.mark.opt_in("NBGRADER")
def test_nbgrader_gives_the_same_marks(tiny, tmp_path):
    """NBGRADER: the program, in an environment of its own that has nbgrader 0.9.6, ipykernel and what the labs import."""
    course = tmp_path / "course"
    nbgrader_course({"tiny": tiny}, course)

    def nbgrader(*arguments: str) -> None:
        env = {**os.environ, "PATH": f"{Path(os.environ['NBGRADER']).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run([os.environ["NBGRADER"], *arguments], cwd=course, env=env, capture_output=True, text=True)
        assert done.returncode == 0 or arguments[0] == "autograde", done.stderr[-2000:]

    nbgrader("generate_assignment", "tiny")
    released = json.loads((course / "release" / "tiny" / "tiny.ipynb").read_text(encoding="utf-8"))
    text = ["".join(cell["source"]).rstrip() for cell in released["cells"] if cell["cell_type"] == "code"]
    assert text == [cell["source"].rstrip() for cell in tiny.student()["cells"] if cell["cell_type"] == "code"]
    chosen = ("right", "right-too", "sum", "partial", "only-last", "blank", "crash", "crash-inside", "text")
    for who in chosen:
        notebook = answered(tiny, **CLASS[who][0])
        checksums = {cell["metadata"]["nbgrader"]["grade_id"]: cell["metadata"]["nbgrader"] for cell in released["cells"] if "nbgrader" in cell["metadata"]}
        for cell in notebook["cells"]:
            if cell_id(cell):
                cell["metadata"]["nbgrader"] = checksums[cell_id(cell)]
        save_notebook(notebook, course / "submitted" / who / "tiny" / "tiny.ipynb")
    nbgrader("autograde", "tiny")
    nbgrader("export", "--to", "grades.csv")
    with open(course / "grades.csv", encoding="utf-8", newline="") as file:
        given = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file) if row["assignment"] == "tiny"}
    assert given == {who: sum(CLASS[who][1:]) for who in chosen}


def test_a_course_for_nbgrader_has_every_lab(tmp_path):
    labs = find_labs(ROOT / FOLDER / "source")
    nbgrader_course(labs, tmp_path)
    assert {path.stem for path in tmp_path.glob("source/*/*.ipynb")} == set(labs)
    assert compile((tmp_path / "nbgrader_config.py").read_text(), "config", "exec")


def test_the_class_graded_by_all_three_ways_is_kept_as_it_is_now():
    """What benchmarks/class_of_thirty.py printed: this class, and the marks it should get by the kit's own two ways."""
    text = (ROOT / "benchmarks" / "class_of_thirty.txt").read_text(encoding="utf-8")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()[:1] and line.split()[0] in CLASS and len(line.split()) == 5}
    assert {who: row[:3] for who, row in rows.items()} == {who: [str(mean + top)] * 3 for who, (_, mean, top) in CLASS.items()}
    assert "grade: 30 of 30" in text and "Gradescope: 30 of 30" in text and "nbgrader: " in text

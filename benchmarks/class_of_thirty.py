"""A class of thirty graded by all three ways: the marks each should get, the marks that each way gives, and the seconds.

    python benchmarks/class_of_thirty.py --nbgrader PROGRAM [--cell-seconds 5]

The lab and the class are those of tests/classroom.py: right, wrong, partial and blank answers, crashes, endless loops, memory hogs and
files that are no notebook. Each way is used as a course uses it:

- `minitransformer grade FOLDER` in a process of its own, two submissions at a time;
- the Gradescope zip: unpacked, its setup.sh run once in an environment that holds a PATH and pip's settings, run_autograder run once for
  each submission in one that holds a PATH alone, and each results.json checked against the format that Gradescope documents;
- nbgrader, in the course that the kit makes: generate_assignment, autograde, export to CSV. PROGRAM stands in an environment of its own
  that has nbgrader 0.9.6 and the kit.

The first two have the same seconds of a processor for a cell, and memory for a submission; nbgrader, which knows the clock only, has the
seconds by the clock after which they end a cell that waits. Exit code 1 when a mark of the first two is not the
expected one, or one of nbgrader's other than by failing the whole submission, which the output lists.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable

import jsonschema

from minitransformer.files import cores
from minitransformer.labs.course import nbgrader_course
from minitransformer.labs.gradescope import autograder
from minitransformer.labs.sandbox import PATIENCE, Limits
from minitransformer.labs.source import Lab, read_lab, save_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from classroom import CLASS, RESULTS, TINY, hand_in, written  # noqa: E402

EXPECTED = {who: mean + top for who, (_, mean, top) in CLASS.items()}
BARE = {"PATH": "/usr/bin:/bin"}
TROUBLES = ("loop", "deaf-loop", "sleep", "memory", "memory-at-once", "flood", "exit", "hard-exit", "segfault", "malformed", "not-json", "other-json")


@dataclass
class Way:
    """What one way gave: marks and a remark by student, whole submissions it gave up, its seconds, and what else is to be said."""

    name: str
    marks: dict[str, float] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def succeed(command: list[str], **options) -> None:
    done = run(command, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")


def grade(lab: Lab, folder: Path, limits: Limits) -> Way:
    hand_in(lab, folder / "handed-in")
    way, start = Way("grade"), time.monotonic()
    succeed([sys.executable, "-m", "minitransformer.cli", "grade", "handed-in", "--source", "../source", "--csv", "marks.csv", "--cell-seconds",
             f"{limits.cell_seconds:g}", "--seconds", f"{limits.seconds:g}", "--memory", f"{limits.memory / 2**30:g}", "--workers", "2"], cwd=folder)
    way.seconds = time.monotonic() - start
    with open(folder / "marks.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            way.marks[row["submission"]] = float(row["marks"])
            way.remarks[row["submission"]] = row["mean remark"] or row["top remark"] or row["status"]
    return way


def gradescope(lab: Lab, folder: Path, limits: Limits) -> Way:
    autograder(lab, folder / "tiny.zip", limits)
    with zipfile.ZipFile(folder / "tiny.zip") as archive:
        for info in archive.infolist():
            Path(archive.extract(info, folder / "source")).chmod(info.external_attr >> 16)
    shutil.copy(folder / "source" / "run_autograder", folder)
    way, start = Way("Gradescope"), time.monotonic()
    succeed([str(folder / "source" / "setup.sh")], env={**BARE, **{key: value for key, value in os.environ.items() if key.startswith("PIP_")}}, cwd=folder)
    way.note = f"setup.sh took {time.monotonic() - start:.0f} s, once, and is not counted; every results.json is valid"
    hand_in(lab, folder / "all")
    start = time.monotonic()
    for who in CLASS:
        for name in ("submission", "results"):
            shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(folder / "all" / who, folder / "submission")
        succeed([str(folder / "run_autograder")], env={**BARE, "AUTOGRADER": str(folder)}, cwd=folder)
        results = json.loads((folder / "results" / "results.json").read_text(encoding="utf-8"))
        jsonschema.validate(results, RESULTS)
        way.marks[who] = results["score"]
        way.remarks[who] = next(filter(None, (test["output"] for test in results["tests"])), results["output"])
    way.seconds = time.monotonic() - start
    return way


def nbgrader(program: Path, lab: Lab, folder: Path, limits: Limits) -> Way:
    env = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "JUPYTER_PLATFORM_DIRS": "1"}
    env.pop("PYTHONPATH", None)
    nbgrader_course({lab.name: lab}, folder)
    succeed([str(program), "generate_assignment", lab.name], cwd=folder, env=env)
    hand_in(lab, folder / "submitted", "{who}/{lab}/{lab}.ipynb")
    way, start = Way("nbgrader"), time.monotonic()
    log = run([str(program), "autograde", lab.name, f"--Execute.timeout={PATIENCE * limits.cell_seconds:g}"], cwd=folder, env=env).stdout
    succeed([str(program), "export", "--to", "grades.csv"], cwd=folder, env=env)
    way.seconds = time.monotonic() - start
    (folder / "autograde.log").write_text(log, encoding="utf-8")
    with open(folder / "grades.csv", encoding="utf-8", newline="") as file:
        way.marks = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file) if row["assignment"] == lab.name}
    for who in CLASS:
        path = folder / "autograded" / who / lab.name / f"{lab.name}.ipynb"
        if path.exists():
            outputs = [output for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] for output in cell.get("outputs", ())]
            errors = [f"{output['ename']}: {output['evalue']}" for output in outputs if output["output_type"] == "error"]
            way.remarks[who] = errors[0] if errors else ""
        else:
            way.given_up.append(who)
            way.remarks[who] = f"given up: {why(log, who)}"
    return way


def why(log: str, who: str) -> str:
    """The exception for which nbgrader gave up a submission, from the traceback that it prints."""
    trace = re.search(rf"error processing assignment: \S*/{re.escape(who)}/\S*\n(.*?)(?=^\[\w+ \| (?!ERROR)|\Z)", log, re.S | re.M)
    lines = re.findall(r"^\s*(?:\w+\.)*(\w+(?:Error|Exception)\b.*)", trace[1] if trace else "", re.M)
    return lines[-1] if lines else "the log does not say why"


def known(place: Path, find: Callable[[Path], Way]) -> Way:
    """What a way gave when it was last run in this place, or gives now."""
    kept = place.with_suffix(".json")
    if not kept.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        kept.write_text(json.dumps(asdict(find(place)), indent=1), encoding="utf-8")
    return Way(**json.loads(kept.read_text(encoding="utf-8")))


def report(ways: list[Way], cell_seconds: float, points: int) -> int:
    """Prints the table, the sums and what each way said of the troubles; whether anything is otherwise than it should be."""
    busy = f", {os.getloadavg()[0]:.0f} other processes at work" if hasattr(os, "getloadavg") else ""
    print(f"{cores()} cores{busy}: python benchmarks/class_of_thirty.py --nbgrader PROGRAM --cell-seconds {cell_seconds:g}")
    print(f"marks out of {points}; * is not the expected mark; - is a submission given up, which gets 0\n")
    print(f"{'submission':16}{'expected':>10}" + "".join(f"{way.name:>12}" for way in ways))
    for who, expected in EXPECTED.items():
        print(f"{who:16}{expected:10}" + "".join(f"{way.marks[who]:11g}{'-' if who in way.given_up else ' ' if way.marks[who] == expected else '*'}"
                                               for way in ways))
    print(f"{'seconds':16}{'':10}" + "".join(f"{way.seconds:11.0f} " for way in ways) + "\n")
    wrong = 0
    for way in ways:
        other = [who for who, expected in EXPECTED.items() if way.marks[who] != expected]
        wrong += len(set(other) - set(way.given_up))
        print(f"{way.name}: {len(EXPECTED) - len(other)} of {len(EXPECTED)} marks as expected{'; not: ' + ' '.join(other) if other else ''}"
              f"{f'; given up: {len(way.given_up)}' if way.given_up else ''}{f'; {way.note}' if way.note else ''}")
    print("\nwhat each way says of the troubles")
    for who in TROUBLES:
        print(who, *(f"  {way.name:12}{(way.remarks[who] or 'nothing')[:100]}" for way in ways), sep="\n")
    return bool(wrong or any(way.given_up for way in ways[:2]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Grade a class of thirty by all three ways.")
    parser.add_argument("--nbgrader", type=Path, required=True, help="the program, in an environment of its own that has the kit as well")
    parser.add_argument("--cell-seconds", type=float, default=5, help="of a processor; by the clock four times as many")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it; a way whose results are there is not run again")
    arguments = parser.parse_args()
    limits = Limits(cell_seconds=arguments.cell_seconds, seconds=60 * arguments.cell_seconds, memory=2**29)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        save_notebook(written(TINY), folder / "source" / "tiny.ipynb")
        lab = read_lab(folder / "source" / "tiny.ipynb")
        ways = [known(folder / name, lambda place, way=way: way(lab, place, limits)) for name, way in (
            ("grade", grade), ("gradescope", gradescope), ("nbgrader", partial(nbgrader, arguments.nbgrader.absolute())))]
    return report(ways, arguments.cell_seconds, lab.points)


if __name__ == "__main__":
    sys.exit(main())

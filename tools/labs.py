"""Makes everything that comes from the labs' sources in notebooks/labs/source.

    python tools/labs.py                      the students' copies, notebooks/labs/*.ipynb
    python tools/labs.py --check              says which of them are not what the sources give, and exits with 1
    python tools/labs.py solutions FOLDER     pages with the solutions and the hidden tests
    python tools/labs.py nbgrader FOLDER      a course for nbgrader, ready for `nbgrader generate_assignment`
    python tools/labs.py gradescope FOLDER    for each lab an autograder to upload to Gradescope
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minitransformer.errors import UserError
from minitransformer.labs import find_labs
from minitransformer.labs.course import nbgrader_course
from minitransformer.labs.gradescope import autograder
from minitransformer.labs.source import FOLDER, notebook_text, save_notebook

ROOT = Path(__file__).resolve().parent.parent


def students(check: bool = False) -> list[Path]:
    """Writes the students' copies, or only compares; returns those that changed, or would."""
    labs, folder = find_labs(ROOT / FOLDER / "source"), ROOT / FOLDER
    stale = []
    for path in sorted({*folder.glob("*.ipynb"), *(folder / f"{name}.ipynb" for name in labs)}):
        lab = labs.get(path.stem)
        before = path.read_text(encoding="utf-8") if path.exists() else None
        if lab is None or notebook_text(lab.student()) != before:
            stale.append(path)
            if not check:
                path.unlink() if lab is None else save_notebook(lab.student(), path)
    return stale


def main() -> int:
    parser = argparse.ArgumentParser(description="Make what comes from the labs' sources.")
    parser.add_argument("what", nargs="?", choices=("students", "solutions", "nbgrader", "gradescope"), default="students")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true", help="only say which students' copies are stale")
    arguments = parser.parse_args()
    if arguments.what == "students":
        stale = students(arguments.check)
        for path in stale:
            print(path.relative_to(ROOT))
        return bool(arguments.check and stale)
    if arguments.folder is None:
        parser.error(f"{arguments.what} needs a folder to write to")
    labs = find_labs(ROOT / FOLDER / "source")
    if arguments.what == "solutions":
        for lab in labs.values():
            save_notebook(lab.solution(), arguments.folder / f"{lab.name}.ipynb")
    elif arguments.what == "nbgrader":
        nbgrader_course(labs, arguments.folder)
    else:
        for lab in labs.values():
            autograder(lab, arguments.folder / f"{lab.name}.zip")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as problem:
        sys.exit(str(problem))

"""An autograder for Gradescope: a zip with setup.sh, run_autograder, limits.json, the lab with its hidden tests, and this kit.

Gradescope unpacks the zip into /autograder/source and runs setup.sh once; for each submission it fills /autograder/submission, runs
/autograder/run_autograder, and reads /autograder/results/results.json.
"""

from __future__ import annotations

import json
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import replacing
from .grading import Marks, grade_notebook
from .sandbox import ROOT, Limits
from .source import Lab, notebook_text, read_lab

SETUP = """\
#!/usr/bin/env bash
# Once, when the autograder is built: an environment with the kit in it.
set -euo pipefail
cd "$(dirname "$0")"
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3 python3-venv
fi
python3 -m venv venv
venv/bin/python -m pip install -q ./kit
venv/bin/python -c 'import matplotlib.font_manager'  # its list of fonts, once
"""
RUN = """\
#!/usr/bin/env bash
# For each submission. AUTOGRADER and PYTHON are for trying it elsewhere.
set -euo pipefail
root="${AUTOGRADER:-/autograder}"
cd "$root/source"
exec "${PYTHON:-venv/bin/python}" -c 'import sys; sys.path.insert(0, "kit"); from minitransformer.labs.gradescope import main; main(sys.argv[1])' "$root"
"""
DATED = (2020, 1, 1, 0, 0, 0)
LIMITS = Limits(cell_seconds=60, seconds=480, memory=5 * 2**29)  # of addresses: libraries reserve about a gigabyte that they do not use


def autograder(lab: Lab, path: Path, limits: Limits = LIMITS) -> None:
    """Writes the zip; the same lab, limits and kit give the same bytes."""
    files = {"setup.sh": SETUP.encode(), "run_autograder": RUN.encode(), f"lab/{lab.name}.ipynb": notebook_text(lab.notebook).encode(),
             "limits.json": json.dumps(asdict(limits)).encode()}
    kit = [*(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")),
           *(p for p in (ROOT / "minitransformer").rglob("*") if p.is_file() and "__pycache__" not in p.parts and not p.name.endswith(".part"))]
    files |= {f"kit/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in sorted(kit) if path.exists()}
    with replacing(path, "Name another folder.") as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, DATED)
            info.external_attr = (0o755 if name in ("setup.sh", "run_autograder") else 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


def results(marks: Marks) -> dict[str, Any]:
    """What Gradescope wants to know: a test for each exercise, with what is missing."""
    tests = [{"name": f"Exercise {i}: {exercise.title}", "score": marks.points[exercise.name], "max_score": exercise.points,
              "output": marks.remarks.get(exercise.name, ""), "visibility": "visible"} for i, exercise in enumerate(marks.lab.exercises, 1)]
    return {"score": marks.total, "execution_time": round(marks.seconds), "output": marks.status, "tests": tests}


def main(root: str) -> None:
    """Grades what lies in ROOT/submission: the notebook, or the one among several that has the lab's name."""
    start, folder = time.monotonic(), Path(root)
    (source,) = (folder / "source" / "lab").glob("*.ipynb")
    lab = read_lab(source)
    found = sorted(path for path in (folder / "submission").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    named = [path for path in found if path.stem == lab.name]
    limits = Limits(**json.loads((folder / "source" / "limits.json").read_text(encoding="utf-8")))
    (folder / "results").mkdir(parents=True, exist_ok=True)
    if len(named or found) == 1:
        marks = grade_notebook(lab, (named or found)[0], limits)
    else:
        status = f"hand in one notebook, {lab.name}.ipynb; there {'are several' if found else 'is none'} here"
        marks = Marks("", lab, status, {exercise.name: 0 for exercise in lab.exercises}, seconds=time.monotonic() - start)
    (folder / "results" / "results.json").write_text(json.dumps(results(marks), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

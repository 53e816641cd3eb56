"""A course for nbgrader 0.9 made from the labs: its configuration and one source notebook for each assignment."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

from ..files import replacing
from .source import STUB, Lab, save_notebook

MEMORY = 4 * 2**30  # bytes that a kernel may take; nbgrader itself sets no limit
LIMIT = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY})); del resource"  # what libraries map does not count
CONFIG = f'''\
# Made by `python tools/labs.py nbgrader`. In this folder: nbgrader generate_assignment NAME; nbgrader autograde NAME; nbgrader export
c = get_config()
c.CourseDirectory.course_id = "scaling-laws"
c.ClearSolutions.code_stub = {{"python": {STUB!r}}}
c.Execute.timeout = 120         # seconds by the clock for a cell
c.Execute.iopub_timeout = 60    # and for its outputs to arrive: a busy machine is no reason to give a submission up
c.Execute.extra_arguments = ["--HistoryManager.hist_file=:memory:", {"--IPKernelApp.exec_lines=" + LIMIT!r}]
'''


def nbgrader_course(labs: Mapping[str, Lab], folder: Path) -> None:
    """Writes nbgrader_config.py and source/NAME/NAME.ipynb; answers handed in go to submitted/STUDENT/NAME/NAME.ipynb."""
    with replacing(folder / "nbgrader_config.py", "Name another folder.") as part:
        part.write_text(CONFIG, encoding="utf-8", newline="\n")
    for lab in labs.values():
        save_notebook(lab.notebook, folder / "source" / lab.name / f"{lab.name}.ipynb")

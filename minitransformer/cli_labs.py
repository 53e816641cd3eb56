"""The command for the course labs: `minitransformer grade`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from .cli_laws import AsJson, Workers, print_json


def grade(folder: Annotated[Path, typer.Argument(help="What was handed in: FOLDER/STUDENT.ipynb, FOLDER/STUDENT/LAB.ipynb or FOLDER/LAB/STUDENT.ipynb.")],
          lab: Annotated[Optional[str], typer.Option(help="Only this lab; needed where a file does not show whose lab it is.")] = None,
          csv: Annotated[Optional[Path], typer.Option(help="Write the marks here as well, with a remark for each exercise that lost points.")] = None,
          source: Annotated[Optional[Path], typer.Option(help="The folder of the labs' sources. [default: notebooks/labs/source of the checkout]")] = None,
          cell_seconds: Annotated[float, typer.Option(min=0.1, help="Processor seconds that one cell may take.")] = 60,
          seconds: Annotated[float, typer.Option(min=1, help="Seconds that one submission may take.")] = 600,
          memory: Annotated[float, typer.Option(min=0.5, help="GiB of memory that one submission may take.")] = 4,
          workers: Workers = None, json_: AsJson = False) -> None:
    """Grade a folder of course labs.

    Every notebook runs in a process of its own with limits of time, memory and files, without network where the platform allows. The
    lab's own cells and tests are taken from its source, whatever a student made of them. What that protects against and what not is
    said in the instructor's guide.

    Example: minitransformer grade handed-in --lab lab1_reading --csv marks.csv
    """
    from .files import cores
    from .labs import find_labs
    from .labs.grading import grade_folder, table, write_csv
    from .labs.sandbox import Limits

    limits = Limits(cell_seconds, seconds, int(memory * 2**30))
    marks = grade_folder(folder, find_labs(source), lab, limits, workers or cores())
    if csv:
        write_csv(marks, csv)
    if any(one.seconds and not one.alone for one in marks):
        print("the network could not be shut off here: this platform, or its settings, allow no namespaces to a user", file=sys.stderr)
    if json_:
        print_json([{"submission": one.submission, "lab": one.lab.name, "marks": one.total, "out_of": one.lab.points, "points": one.points,
                     "status": one.status, "remarks": one.remarks, "seconds": round(one.seconds, 1)} for one in marks])
        return
    print(table(marks))

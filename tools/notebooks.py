"""Runs every notebook again and stores its outputs without what changes from run to run; redraws the README's figure.
Of the labs it runs the sources, and makes the students' copies from them.

    python tools/notebooks.py [--scale laptop] [NOTEBOOK.ipynb ...]

A notebook that fails is left as it was.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import labs  # tools/labs.py

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def clean(notebook: nbformat.NotebookNode) -> list[str]:
    """Removes times, widget state and standard error in place, and joins what was printed; numbers the code cells; returns the standard
    error."""
    removed, count = [], 0
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
    )
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        removed += [output.text for output in cell.outputs if output.get("name") == "stderr"]
        kept = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
        cell.outputs = []
        for output in kept:  # what was printed in several pieces, in one
            if cell.outputs and output.output_type == cell.outputs[-1].output_type == "stream":
                cell.outputs[-1].text += output.text
            else:
                cell.outputs.append(output)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return removed


class Took(NamedTuple):
    """Seconds by the clock, and of processor time in the kernel and the processes it waited for (0 on Windows)."""

    clock: float
    processor: float


def execute(path: Path) -> tuple[nbformat.NotebookNode, Took]:
    """One notebook with what it gives when it is run in its own folder."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    start, used = time.monotonic(), sum(os.times()[2:4])
    client.execute()
    return notebook, Took(time.monotonic() - start, sum(os.times()[2:4]) - used)


def run(path: Path) -> Took:
    """Executes one notebook and writes it back."""
    notebook, took = execute(path)
    for text in clean(notebook):
        print(f"{path.name} wrote on standard error (not stored): {text.strip()}", file=sys.stderr)
    temporary = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, temporary)
    temporary.replace(path)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every notebook again and store its outputs.")
    parser.add_argument("--scale", default="laptop", help="MINITRANSFORMER_SCALE for the notebooks (default: laptop)")
    parser.add_argument("notebooks", nargs="*", type=Path, help="only these (default: all)")
    arguments = parser.parse_args()
    os.environ["MINITRANSFORMER_SCALE"] = arguments.scale
    os.environ["MINITRANSFORMER_QUIET"] = "1"  # progress is for people, not for stored outputs
    os.environ.setdefault("MINITRANSFORMER_STORE", str(ROOT / "runs"))
    failed = []
    for path in arguments.notebooks or [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("labs/source/*.ipynb"))]:
        try:
            took = run(path.resolve())
            print(f"{path.name}: {took.clock:.0f} s, {took.processor:.0f} s of a processor", flush=True)
        except CellExecutionError as error:
            failed.append(path.name)
            print(f"{path.name} failed and was left as it was:\n{error}", file=sys.stderr)
    labs.students()
    from minitransformer.figures import claim_figure
    claim_figure("kaplan.L_N").savefig(ROOT / "book" / "_static" / "first-law.png", dpi=120, bbox_inches="tight")
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

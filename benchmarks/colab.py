"""Every notebook and every lab as Colab opens them: the file alone in an empty folder, Colab's versions, the kit from git.

    python benchmarks/colab.py --environment FOLDER [--python python3.13] [--each] [NOTEBOOK.ipynb ...]

FOLDER is a virtual environment with PINS and nothing of the kit; where there is none, it is made with the Python named. The kit is
installed into it by the setup cell of the first notebook, from the last commit of this checkout; the other notebooks have the same cell,
letter by letter, and find it there (--each: the kit is removed before each, so that each installs it). Each notebook is copied into a
folder of its own and run from top to bottom at smoke scale, with a run store that is empty. A student's copy of a lab should
stop at its first exercise, which has no answer; its source, with the solutions, should run through.

Exit code 1 when one does not, or when the versions of PINS have changed in the end. Archives are read from MINITRANSFORMER_DATA, if set.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from minitransformer.files import cores
from minitransformer.labs.source import cell_id, kind

ROOT = Path(__file__).resolve().parent.parent
PINS = {"torch": "2.11.0", "numpy": "2.1.3", "scipy": "1.16.3", "matplotlib": "3.10.0", "ipython": "7.34.0", "ipykernel": "6.17.1"}
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "MINITRANSFORMER_STORE")
LONGEST = 1800  # seconds of a cell


class Colab:
    """The environment, and a kernel in it."""

    def __init__(self, folder: Path, python: str):
        self.python = folder / "bin" / "python"
        self.env = {key: value for key, value in os.environ.items() if key not in FOREIGN} | {"MINITRANSFORMER_SCALE": "smoke"}
        self.env |= {"MINITRANSFORMER_SOURCE": f"git+file://{ROOT}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        if not self.python.exists():
            subprocess.run([python, "-m", "venv", folder], check=True)
            self.pip("install", "-q", *(f"{name}=={version}" for name, version in PINS.items()))
        self.without_kit()
        spec = folder / "kernels" / "colab" / "kernel.json"
        spec.parent.mkdir(parents=True, exist_ok=True)
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "colab", "language": "python"}), encoding="utf-8")
        os.environ["JUPYTER_PATH"] = str(folder)

    def pip(self, *arguments: str) -> None:
        subprocess.run([self.python, "-m", "pip", *arguments], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def without_kit(self) -> None:
        self.pip("uninstall", "-q", "-y", "minitransformer")

    def versions(self) -> dict[str, str]:
        """Of Python and of PINS, without what follows a + (the kind of build)."""
        code = f"import json, platform; from importlib.metadata import version; print(json.dumps({{n: version(n).split('+')[0] for n in {list(PINS)}}} | {{'python': platform.python_version()}}))"
        return json.loads(subprocess.run([self.python, "-c", code], env=self.env, check=True, capture_output=True, text=True).stdout)

    def execute(self, notebook: nbformat.NotebookNode, folder: Path) -> None:
        NotebookClient(notebook, kernel_name="colab", timeout=LONGEST, startup_timeout=600, resources={"metadata": {"path": str(folder)}}).execute(env=self.env)


def outcome(colab: Colab, path: Path) -> tuple[bool, str]:
    """Whether a notebook did what it should, and what it did."""
    student = path.parent.name == "labs"
    with tempfile.TemporaryDirectory() as alone:
        notebook = nbformat.read(shutil.copy(path, alone), as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        try:
            colab.execute(notebook, Path(alone))
        except CellExecutionError as error:
            stopped = next(cell for cell in notebook.cells if any(output.output_type == "error" for output in cell.get("outputs", ())))
            first = next((cell_id(cell) for cell in notebook.cells if kind(cell) == "answer"), "")
            if student and cell_id(stopped).rpartition("-")[0] in ("", first) and kind(stopped) != "given" and error.ename == "NotImplementedError":
                return True, f"stops at its first exercise, {first}"
            return False, f"failed: {error.ename}: {error.evalue}"[:200].replace("\n", " ")
        except (DeadKernelError, TimeoutError) as error:
            return False, f"failed: {type(error).__name__}"
    return not student, "runs through" + (", though it has no answers" if student else "")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every notebook as Colab would.")
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--python", default="python3.13")
    parser.add_argument("--each", action="store_true", help="remove the kit before each notebook")
    parser.add_argument("notebooks", nargs="*", type=Path, help="only these (default: all, and the labs with and without solutions)")
    arguments = parser.parse_args()
    folder = ROOT / "notebooks"
    paths = [path.resolve() for path in arguments.notebooks] or [path for pattern in ("*.ipynb", "labs/*.ipynb", "labs/source/*.ipynb")
                                                                 for path in sorted(folder.glob(pattern))]
    colab = Colab(arguments.environment.absolute(), arguments.python)
    before, bad = colab.versions(), []
    busy = f", {os.getloadavg()[0]:.0f} other processes at work" if hasattr(os, "getloadavg") else ""
    print(f"{cores()} cores{busy}: python benchmarks/colab.py; " + ", ".join(f"{name} {version}" for name, version in before.items()))
    print(f"{'notebook':32}{'seconds':>8}{'of CPU':>8}  what it does")
    for path in paths:
        if arguments.each:
            colab.without_kit()
        start, used = time.monotonic(), sum(os.times()[2:4])
        good, what = outcome(colab, path)
        bad += [] if good else [path]
        print(f"{path.relative_to(folder).as_posix():32}{time.monotonic() - start:8.0f}{sum(os.times()[2:4]) - used:8.0f}  {what}", flush=True)
    after = colab.versions()
    wrong = {name: version for name, version in after.items() if version != PINS.get(name, before[name])}
    print(f"{len(paths) - len(bad)} of {len(paths)} do as they should; "
          + (f"the kit left other versions than Colab's: {wrong}" if wrong else "the kit left Colab's versions as they were"))
    return bool(bad or wrong)


if __name__ == "__main__":
    sys.exit(main())

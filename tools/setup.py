"""Makes .venv and installs requirements.txt into it; does nothing where that is already done.

    python3 tools/setup.py [--use-this-python]

Written so that an old Python can read it far enough to say that it is too old.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed")
PYTHON = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
VERSION = "%d.%d" % sys.version_info[:2]


def wanted():
    """What .venv must have been made from: the place, requirements.txt and pyproject.toml."""
    digest = hashlib.sha256(VENV.encode())
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def venv_version():
    """The Python version of .venv as text, empty where .venv does not work."""
    try:
        out = subprocess.check_output([PYTHON, "-c", "import sys, pip; print('%d.%d' % sys.version_info[:2])"], stderr=subprocess.DEVNULL)
        return out.decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main():
    if sys.version_info < (3, 10):
        sys.exit("Python 3.10 or newer is needed; this is %s. Try: make book PYTHON=python3.12" % VERSION)
    present = venv_version()
    keep = present if "--use-this-python" not in sys.argv else VERSION
    if not present or present != keep:
        try:
            import ensurepip  # noqa: F401
            import venv
        except ImportError:
            sys.exit(
                "This Python %s cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv. "
                "Or name another Python: make book PYTHON=python3.12" % VERSION
            )
        print("Making .venv with Python " + VERSION)
        if os.path.isdir(VENV):
            shutil.rmtree(VENV)
        venv.EnvBuilder(with_pip=True).create(VENV)
    elif os.path.exists(STAMP):
        with open(STAMP) as file:
            if file.read() == wanted():
                return
    print("Installing requirements.txt into .venv: some 200 packages, PyTorch among them", flush=True)
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-r", "requirements.txt"]
    if subprocess.call(command, cwd=ROOT) != 0:
        sys.exit("Installing failed: pip's message above says why. `make` again goes on from here.")
    with open(STAMP, "w") as file:
        file.write(wanted())


if __name__ == "__main__":
    main()

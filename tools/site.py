"""Builds the website, or serves the built one on this machine.

    python tools/site.py [--out FOLDER] [--solutions] [--serve PORT]
"""

from __future__ import annotations

import argparse
import functools
import http.server
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(out: Path = ROOT, solutions: bool = False) -> Path:
    """Builds into ``out/_build/html`` and returns that folder; warnings are errors. solutions: with a page of them after each lab.

    Sphinx warns only about the pages it reads, so a failed build is thrown away: the next one would pass unread.
    """
    pages = ROOT / "notebooks" / "labs" / "solutions"
    try:
        return _build(out, ["--toc", str(with_solutions(pages))] if solutions else [])
    finally:
        shutil.rmtree(pages, ignore_errors=True)


def with_solutions(folder: Path) -> Path:
    """Writes the pages of solutions, and a table of contents that has each of them after its lab."""
    from minitransformer.labs import find_labs
    from minitransformer.labs.source import save_notebook

    for lab in find_labs(folder.with_name("source")).values():
        save_notebook(lab.solution(), folder / f"{lab.name}.ipynb")
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    toc = folder / "_toc.yml"
    toc.write_text(re.sub(r"( *- file: notebooks/labs/)(\w+)\n", r"\g<0>\1solutions/\2\n", contents), encoding="utf-8")
    return toc


def _build(out: Path, options: list[str]) -> Path:
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-q", "-W", "-n", "--keep-going"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}  # warnings come on standard error
    if subprocess.run([*command, "--path-output", str(out), *options], cwd=ROOT, **quiet).returncode != 0:
        shutil.rmtree(out / "_build", ignore_errors=True)
        sys.exit("The website was not built: every WARNING or ERROR above has to be mended.")
    html = out / "_build" / "html"
    shutil.copytree(ROOT / "book" / "_static", html / "_static", dirs_exist_ok=True)  # Sphinx does not where no page changed
    return html


def serve(html: Path, port: int) -> None:
    """Serves a folder on 127.0.0.1, at the given port or the next free one, until interrupted."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(html))
    for candidate in (*range(port, port + 20), 0):
        try:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", candidate), handler)
            break
        except OSError:
            continue
    print(f"http://127.0.0.1:{server.server_port}/  (Ctrl+C stops)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the website, or serve it on this machine.")
    parser.add_argument("--out", type=Path, default=ROOT, help="build under this folder (default: the repository)")
    parser.add_argument("--solutions", action="store_true", help="for instructors: with the labs' solutions; name a folder with --out")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve the website, building it first where needed")
    arguments = parser.parse_args()
    if arguments.solutions and arguments.out.resolve() == ROOT:
        sys.exit("A website with solutions needs a folder of its own, so that it is not published by mistake: --solutions --out FOLDER")
    html = build(arguments.out.resolve(), arguments.solutions)
    print(f"Open {(html / 'index.html').as_uri()}")
    if arguments.serve is not None:
        serve(html, arguments.serve)


if __name__ == "__main__":
    main()

"""Builds the website, or serves the built one on this machine.

    python tools/site.py [--out FOLDER] [--serve PORT]
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(out: Path = ROOT) -> Path:
    """Builds into ``out/_build/html`` and returns that folder; warnings are errors.

    Sphinx warns only about the pages it reads, so a failed build is thrown away: the next one would pass unread.
    """
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-q", "-W", "-n", "--keep-going"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}  # warnings come on standard error
    if subprocess.run([*command, "--path-output", str(out)], cwd=ROOT, **quiet).returncode != 0:
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
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve the website, building it first where needed")
    arguments = parser.parse_args()
    html = build(arguments.out.resolve())
    print(f"Open {(html / 'index.html').as_uri()}")
    if arguments.serve is not None:
        serve(html, arguments.serve)


if __name__ == "__main__":
    main()

"""Puts the address of a fork everywhere the repository is named: badges, setup cells, README, citation, website.

    python tools/repository.py https://github.com/owner/name

The address in force is read from _config.yml, so a stamped tree can be stamped again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMED_IN = ("*.md", "*.cff", "*.toml", "_config.yml", "book/**/*.md", "notebooks/**/*.ipynb", "minitransformer/**/*.py", ".github/**/*.yml")
URL = re.compile(r"https://github\.com/([A-Za-z0-9](?:-?[A-Za-z0-9]){0,38})/([A-Za-z0-9._-]{1,100}?)(?:\.git)?/?")


def parse(url: str) -> tuple[str, str]:
    """Owner and name of ``https://github.com/owner/name``, with or without a closing slash or ``.git``."""
    match = URL.fullmatch(url.strip())
    if match is None or match[2] in (".", ".."):
        sys.exit(f"Not the address of a repository: {url!r}. Write make repository URL=https://github.com/owner/name")
    return match[1], match[2]


def current(root: Path) -> tuple[str, str]:
    """Owner and name in force, from ``repository: url:`` of _config.yml."""
    match = re.search(r"^repository:\s*\n\s+url:\s*(\S+)", (root / "_config.yml").read_text(encoding="utf-8"), re.M)
    if match is None:
        sys.exit("_config.yml names no repository: it needs the lines `repository:` and `  url: https://github.com/owner/name`.")
    return parse(match[1])


def stamp(root: Path, url: str) -> list[Path]:
    """Replaces the address in force by `url` in every file that names it; returns the files that changed."""
    (old_owner, old_name), (owner, name) = current(root), parse(url)
    end = r"(?![A-Za-z0-9_-]|\.(?!git\b)[A-Za-z0-9_-])"
    repository = re.compile(rf"(github(?:\.com)?/){re.escape(old_owner)}/{re.escape(old_name)}{end}")
    pages = re.compile(rf"https://{re.escape(old_owner.lower())}\.github\.io/{re.escape(old_name)}{end}", re.I)
    changed = []
    for path in sorted({path for pattern in NAMED_IN for path in root.glob(pattern)}):
        before = path.read_text(encoding="utf-8")
        after = repository.sub(rf"\g<1>{owner}/{name}", before)
        after = pages.sub(f"https://{owner.lower()}.github.io/{name}", after)
        if after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("Which repository? Write make repository URL=https://github.com/owner/name")
    changed = stamp(ROOT, sys.argv[1])
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(changed)} files name the new address; look at `git diff`, then commit." if changed else "Nothing to change.")


if __name__ == "__main__":
    main()

"""The cache folder, and how a file gets into it: whole, or not at all."""

import os
import re
import secrets
import socket
import sys
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from minitransformer.errors import UserError

LARGEST_MEMBER = 16 * 2**20
T = TypeVar("T")


class DamagedArchive(Exception):
    """An archive that cannot be read or does not hold what it should; `path` is the file."""

    def __init__(self, path: Path, reason: object):
        super().__init__(str(reason))
        self.path = path


def cache_dir() -> Path:
    """The folder of downloads, built corpora and tokens: MINITRANSFORMER_DATA, or else the platform's cache."""
    if folder := os.environ.get("MINITRANSFORMER_DATA"):
        return Path(folder).expanduser().absolute()
    try:
        import pooch
    except ImportError:
        return Path.home() / ".cache" / "minitransformer"
    return Path(pooch.os_cache("minitransformer"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place when the block succeeds and is removed when it fails.

    Any number of processes may do this to one path at once. What a killed process left is removed by the next one.
    """
    part = path.with_name(f".{path.name}~{_host()}~{os.getpid()}~{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        part.touch()
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free or unlock that folder, "
            "or set MINITRANSFORMER_DATA to a folder that can be written."
        ) from error
    finally:
        try:
            part.unlink(missing_ok=True)
        except OSError:
            pass


def download(url: str, path: Path, megabytes: float) -> None:
    """Fetch `url` into `path` through pooch, with a progress bar on a terminal."""
    by_hand = f"Or fetch it by hand ({megabytes:.0f} MB) from {url} and save it as {path}."
    try:
        import pooch
        import requests
    except ImportError:
        raise UserError(f"Downloading {path.name} needs pooch: pip install pooch. {by_hand}") from None
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)
    with replacing(path) as part:
        try:
            fetch(url, str(part), None)
        except requests.RequestException as error:
            raise UserError(
                f"Could not download {path.name} ({type(error).__name__}): "
                f"check the connection and try again. {by_hand}"
            ) from error


def members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every member whose full name matches `pattern`, in order of names.

    Members are read in memory, at most LARGEST_MEMBER bytes each, and never extracted to a path.

    Raises: DamagedArchive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in sorted(name for name in set(opened.namelist()) if re.fullmatch(pattern, name)):
                if opened.getinfo(name).file_size > LARGEST_MEMBER:
                    raise DamagedArchive(archive, f"{name} is too large")
                yield name.rsplit("/", 1)[-1], opened.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedArchive(archive, error) from error


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """The same items, with a progress bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, leave=False)


def _host() -> str:
    return re.sub(r"[^\w.-]", "", socket.gethostname()) or "host"


def _remove_abandoned(folder: Path) -> None:
    for part in folder.glob(".*~*~*~*.part"):
        host, pid = part.name.split("~")[-3:-1]
        try:
            if time.time() - part.stat().st_mtime > 86_400 or (host == _host() and not _alive(int(pid))):
                part.unlink(missing_ok=True)
        except (OSError, ValueError):
            pass


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

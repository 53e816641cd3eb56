"""The cache folder: downloads into it, and reading the archives in it."""

import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from minitransformer.errors import UserError
from minitransformer.files import replacing

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
        import platformdirs  # where pooch, too, keeps its files
    except ImportError:
        return Path.home() / ".cache" / "minitransformer"
    return Path(platformdirs.user_cache_dir("minitransformer"))


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
    """Name and content of every member whose full name matches `pattern`, in order of full names.

    The name is what the first group of the pattern holds, or else the last part of the path. Members are read in
    memory, at most LARGEST_MEMBER bytes each, and never extracted to a path.

    Raises: DamagedArchive.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in sorted(set(opened.namelist())):
                if (match := re.fullmatch(pattern, name)) is None:
                    continue
                if opened.getinfo(name).file_size > LARGEST_MEMBER:
                    raise DamagedArchive(archive, f"{name} is too large")
                yield match[1] if match.re.groups else name.rsplit("/", 1)[-1], opened.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedArchive(archive, error) from error


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """The same items, with a progress bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, leave=False)

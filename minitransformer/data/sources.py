"""Where bytes come from: installed packages, pinned downloads, local files and folders.

A source is known by the SHA-256 of the text built from it, or of the files that its examples are built of, so two
machines that train on a name train on the same data.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from minitransformer.data import catalogue, images, speech, translation
from minitransformer.data.cache import DamagedArchive, cache_dir
from minitransformer.data.catalogue import SOURCES, Archive, Source
from minitransformer.data.splits import Files, Parts, WrongFile
from minitransformer.errors import UserError
from minitransformer.files import replacing

__all__ = ["SOURCES", "Archive", "Source", "build_examples", "cache_dir", "describe", "domain_of", "fingerprint", "get", "read_text"]

IMAGES = (".jpg", ".jpeg", ".png")
T = TypeVar("T")


def describe() -> list[dict[str, str | float | bool]]:
    """What there is, where it comes from and what it costs: one entry for each source, for `data list`."""
    return [
        {
            "name": source.name,
            "domain": source.domain,
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
    """The path of a source's data, downloaded, built and verified where that is needed.

    It is what lies inside a package, a built text, or the archive that examples are built of.

    Raises: UserError when the name is unknown, the network is away, an archive is damaged, or the cache is read-only.
    """
    source = _named(name)
    if source.package or source.files:
        _content(source) if source.build else _made(source, _exhausted)
        return Path(catalogue.installed(source.package).locate_file(source.inside)) if source.package else source.archives[0].path()
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
    if source.domain != "text":
        raise UserError(
            f"{source.name!r} holds {source.domain}, not text: choose a model that reads {source.domain}, or a text "
            f"({', '.join(name for name, known in SOURCES.items() if known.domain == 'text')})."
        )
    content = _content(source) if source.package else get(source.name).read_bytes()
    return content.decode("utf-8")


def fingerprint(corpus: str | Path) -> str:
    """SHA-256 of a corpus, in hexadecimal: of the text, or of the files in a folder. For a name in SOURCES nothing is read."""
    if corpus in SOURCES:
        return SOURCES[str(corpus)].sha256
    if not _is_folder(corpus):
        return _sha256(_read_file(corpus).encode())
    digest = hashlib.sha256()
    _exhausted(_digested(_in_folder(corpus), digest))
    return digest.hexdigest()


def domain_of(corpus: str | Path) -> str:
    """What a corpus holds: text, images, translation or speech.

    A name has its source's domain; a folder holds speech if there are .wav files in it, and images otherwise; a .tsv
    file is for translation, and every other file is text.

    Raises: UserError when a folder holds neither images nor recordings, or when there is no such file or name.
    """
    if corpus in SOURCES:
        return SOURCES[str(corpus)].domain
    if _is_folder(corpus):
        return "speech" if next(_in_folder(corpus))[0].lower().endswith(".wav") else "images"
    if Path(corpus).suffix.lower() == ".tsv":
        return "translation"
    if not Path(corpus).expanduser().exists():
        _read_file(corpus)
    return "text"


def build_examples(corpus: str | Path, sha256: str) -> Parts:
    """The examples of a corpus that is not text, whose files must have this SHA-256. Raises: UserError."""
    if corpus in SOURCES:
        return _made(SOURCES[str(corpus)], SOURCES[str(corpus)].examples)
    digest = hashlib.sha256()
    try:
        if _is_folder(corpus):
            build = speech.recordings if domain_of(corpus) == "speech" else images.from_folders
            parts = build(_digested(_in_folder(corpus), digest))
        else:
            content = _read_file(corpus).encode()
            digest.update(content)
            parts = translation.sentences([(Path(corpus).name, content)])
    except WrongFile as error:
        raise UserError(f"{corpus}: {error}.") from error
    if digest.hexdigest() != sha256:
        raise UserError(f"{corpus} changed while it was being read: try again.")
    return parts


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


def _is_folder(corpus: str | Path) -> bool:
    return Path(corpus).expanduser().is_dir()


def _in_folder(corpus: str | Path) -> Iterator[tuple[str, bytes]]:
    """The recordings in a folder and the folders in it, or else the images, in order of their relative names."""
    root = Path(corpus).expanduser()
    every = sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*") if path.is_file())
    for endings in ((".wav",), IMAGES):
        if chosen := [(name, path) for name, path in every if name.lower().endswith(endings)]:
            break
    else:
        raise UserError(f"{root} is a folder without recordings (.wav) and without images (.jpg or .png, a folder for each class).")
    for name, path in chosen:
        try:
            yield name, path.read_bytes()
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.") from error


def _digested(files: Files, digest: "hashlib._Hash") -> Iterator[tuple[str, bytes]]:
    """The same files; the digest takes up the name, the length and the content of each."""
    for name, content in files:
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
        yield name, content


def _exhausted(files: Files) -> None:
    for _ in files:
        pass


def _made(source: Source, make: Callable[[Files], T]) -> T:
    """What `make` makes of a source's files, verified."""

    def build(paths: Sequence[Path]) -> tuple[T, str]:
        digest = hashlib.sha256()
        try:
            return make(_digested(source.files(paths), digest)), digest.hexdigest()
        except WrongFile as error:
            if paths:
                raise DamagedArchive(paths[0], error) from error
            raise UserError(f"The package of {source.name!r} is damaged ({error}): pip install --force-reinstall '{source.package}'.") from error

    return _verified(source, build)


def _content(source: Source) -> bytes:
    def build(paths: Sequence[Path]) -> tuple[bytes, str]:
        content = source.build(paths)
        return content, _sha256(content)

    return _verified(source, build)


def _verified(source: Source, build: Callable[[Sequence[Path]], tuple[T, str]]) -> T:
    """Build a source and verify the SHA-256 that comes with what is built; what turns out to be damaged is removed."""
    if source.package and catalogue.installed(source.package) is None:
        raise catalogue.missing_package(source.package)
    paths = [archive.path() for archive in source.archives]
    again = f"Try again (minitransformer data get {source.name}) and it is downloaded anew."
    try:
        result, sha256 = build(paths)
    except DamagedArchive as error:
        _remove(error.path)
        raise UserError(f"{error.path} is damaged ({error}) and was removed. {again}") from error
    if sha256 != source.sha256:
        if source.package:
            raise UserError(
                f"The installed package of {source.name!r} holds other data than this kit is pinned to: "
                f"pip install '{source.package}'."
            )
        for path in paths:
            _remove(path)
        files = " and ".join(str(path) for path in paths)
        raise UserError(f"The data built for {source.name!r} is not the pinned one; {files} were removed. {again}")
    return result


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} is damaged and cannot be removed ({error.strerror}): remove it by hand.") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

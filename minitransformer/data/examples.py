"""Images, pairs of sentences and recordings in; fixed and disjoint splits of arrays out."""

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from minitransformer.data.cache import cache_dir
from minitransformer.data.sources import build_examples, domain_of, fingerprint
from minitransformer.data.splits import Parts, Split
from minitransformer.errors import UserError
from minitransformer.files import replacing

VERSION = 1  # of the rules by which examples are built and split: raise it whenever they change
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Examples:
    """A data set of examples in fixed, disjoint splits. Every array of a split has one row for each example.

    Any prefix of the rows of `train` is a random subset of it, and shorter ones are parts of longer ones.

    images: "input" uint8 (n, channels, side, side), or (n, channels, length) for signals; "target" uint8 (n,).
    translation: "input" and "target" uint16 (n, length), padded with 0 at the end. The input ends with </s> (2); the
    target begins with <s> (1) and ends with </s>; 3 is <unk>.
    speech: "input" float16 (n, frames, bands), log-mel energies normalised by the training split, padded with 0 at the
    end; "frames" int32 (n,), the true lengths; "target" uint8 (n, length), letters, padded with 0, the blank.

    `fingerprint` is the SHA-256 of the files that the examples are built of, before decoding. `symbols` says what the
    integers stand for.
    """

    name: str
    fingerprint: str
    domain: str
    train: Split = field(repr=False)
    val: Split = field(repr=False)
    test: Split = field(repr=False)
    symbols: dict[str, tuple[str, ...]] = field(repr=False)


def load_examples(corpus: str | Path) -> Examples:
    """The examples of a corpus that is not text: a name in SOURCES, a folder of images or recordings, or a .tsv file.

    They are built once, kept in the cache folder under the SHA-256 of the files they are built of, and memory-mapped
    from there; a damaged file of the cache is made again.

    Raises: UserError.
    """
    domain = domain_of(corpus)
    if domain == "text":
        raise UserError(f"{str(corpus)!r} is text, which has no examples: choose images, translation or speech, or a model that reads text.")
    return _load(str(corpus), domain, fingerprint(corpus), cache_dir() / "examples")


@lru_cache(maxsize=8)
def _load(corpus: str, domain: str, sha256: str, folder: Path) -> Examples:
    stem = folder / f"{domain}-{sha256[:32]}-v{VERSION}"
    found = _open(stem, corpus, domain, sha256)
    if found is None:
        _write(stem, build_examples(corpus, sha256))
        found = _open(stem, corpus, domain, sha256)
    if found is None:
        raise UserError(f"The examples just written to {folder} cannot be read back: check that disk, then try again.")
    return found


def _write(stem: Path, parts: Parts) -> None:
    """Write STEM-SPLIT-ARRAY.npy for every array and then STEM.json, which says what they are."""
    crc32 = {}
    for split in SPLITS:
        for name, array in getattr(parts, split).items():
            array = np.ascontiguousarray(array)
            with replacing(_beside(stem, f"-{split}-{name}.npy")) as part, part.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            crc32[f"{split}-{name}"] = zlib.crc32(array)
    facts = {"crc32": crc32, "symbols": parts.symbols}
    with replacing(_beside(stem, ".json")) as part:
        part.write_text(json.dumps({"facts": facts, "digest": _digest(facts)}))


def _open(stem: Path, corpus: str, domain: str, sha256: str) -> Examples | None:
    """The examples kept at STEM-SPLIT-ARRAY.npy and STEM.json; None where they are absent or damaged."""
    splits: dict[str, Split] = {split: {} for split in SPLITS}
    try:
        kept = json.loads(_beside(stem, ".json").read_text())
        facts = kept["facts"]
        if kept["digest"] != _digest(facts):
            return None
        for key, crc32 in facts["crc32"].items():
            split, name = key.split("-")
            array = np.load(_beside(stem, f"-{key}.npy"), mmap_mode="r", allow_pickle=False)
            if zlib.crc32(array) != crc32:
                return None
            splits[split][name] = array
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    symbols = {name: tuple(of) for name, of in facts["symbols"].items()}
    return Examples(name=corpus, fingerprint=sha256, domain=domain, symbols=symbols, **splits)


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

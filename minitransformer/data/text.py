"""Text in, fixed and disjoint splits of tokens out."""

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from minitransformer.data import tokenizers
from minitransformer.data.cache import cache_dir
from minitransformer.data.sources import fingerprint, read_text
from minitransformer.data.tokenizers import Tokenizer
from minitransformer.errors import UserError
from minitransformer.files import replacing

VERSION = 1  # of the splitting and encoding rules: raise it whenever they change
SEED = "minitransformer splits"
CHUNK = 8192
LEAST_CHARACTERS = 1000


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts of a text, and how many repeated paragraphs were left out of it."""

    train: str
    val: str
    test: str
    duplicates: int


@dataclass(frozen=True)
class Corpus:
    """The tokens of a text's three splits.

    `train`, `val`, `test`: 1-D arrays of uint16 or uint32, memory-mapped. Any prefix of `train` is a random subset of
    it, and shorter prefixes are parts of longer ones. `bytes_per_token` and `chars_per_token` are measured on `val`.
    """

    name: str
    fingerprint: str
    tokenizer: Tokenizer
    train: np.ndarray = field(repr=False)
    val: np.ndarray = field(repr=False)
    test: np.ndarray = field(repr=False)
    bytes_per_token: float
    chars_per_token: float
    duplicates: int

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def require(self, train_tokens: int = 0, eval_tokens: int = 0) -> None:
        """Check that there are so many tokens to train on, and so many in each held-out split. Raises: UserError."""
        for split, asked in (("train", train_tokens), ("val", eval_tokens), ("test", eval_tokens)):
            there = len(getattr(self, split))
            if there < asked:
                raise UserError(
                    f"Too little text: the {split} split of {self.name!r} has {there:,} {self.tokenizer.kind} tokens, "
                    f"and {asked:,} were asked for. Ask for fewer, or use a larger corpus."
                )


def split_text(text: str) -> Splits:
    """Cut a text into train, validation and test: the same text always gives the same splits.

    1. Paragraphs: the blocks between blank lines, where these are short enough to be paragraphs (2,000 characters on
       average), and the lines otherwise. One longer than a chunk is cut at white space.
    2. Every paragraph is kept once. A later copy (white space aside) is dropped, so nothing stands in two splits.
    3. Chunks of whole paragraphs, up to 8,192 characters, or 1/128 of a text shorter than a million.
    4. The chunks in the order of the SHA-256 of their numbers: a shuffle that no version of Python or NumPy changes.
    5. Test from the end, validation before it, and train is the rest. Each of the first two is 1/16 of the text, but
       at least 160,000 characters (as long as that is no more than 16 %) and at most 2,000,000. So a corpus of a
       megabyte holds evaluation windows of 131,072 characters, and one of twelve megabytes as many words.

    Neighbouring chunks of one document can fall into different splits; passages repeated in other words, or within
    longer paragraphs, are not found.

    Raises: UserError when fewer than 1,000 characters are left.
    """
    blocks = [block.strip("\n") for block in re.split(r"\n[^\S\n]*\n", text) if block.strip()]
    by_blocks = len(blocks) > 1 and len(text) <= 2000 * len(blocks)
    paragraphs, joint = (blocks, "\n\n") if by_blocks else ([line for line in text.split("\n") if line.strip()], "\n")
    size = min(CHUNK, max(256, len(text) // 128))

    kept: dict[str, str] = {}
    pieces = [piece for paragraph in paragraphs for piece in _pieces(paragraph, size) if piece.strip()]
    for piece in pieces:
        kept.setdefault(_digest(" ".join(piece.split())), piece + joint)
    length = sum(map(len, kept.values()))
    if length < LEAST_CHARACTERS:
        raise UserError(
            f"Too little text: {length:,} characters once repeated paragraphs are dropped, "
            f"and at least {LEAST_CHARACTERS:,} are needed for training, validation and test."
        )

    chunks = list(_chunks(kept.values(), size))
    shuffled = [chunks[i] for i in sorted(range(len(chunks)), key=lambda i: _digest(f"{SEED} {i}"))]
    held_out = min(2_000_000, max(length // 16, min(160_000, length * 16 // 100)))
    test = _take_last(shuffled, held_out)
    val = _take_last(shuffled, held_out)
    return Splits("".join(shuffled), val, test, duplicates=len(pieces) - len(kept))


def load_corpus(corpus: str | Path, tokenizer: str = "char", vocab_size: int | None = None) -> Corpus:
    """The tokens of a corpus: a name in SOURCES, or a path to a UTF-8 text file.

    They are computed once, kept in the cache folder under the SHA-256 of the text, the tokenizer and its size, and
    memory-mapped from there; a damaged file of the cache is made again.

    Args: tokenizer: byte, char, bpe or word. vocab_size: for bpe and word, all symbols counted.
    Raises: UserError.
    """
    tokenizers.check(tokenizer, vocab_size)
    return _load(str(corpus), fingerprint(corpus), tokenizer, vocab_size, cache_dir() / "tokens")


@lru_cache(maxsize=32)
def _load(corpus: str, sha256: str, kind: str, vocab_size: int | None, folder: Path) -> Corpus:
    size = vocab_size if kind in ("bpe", "word") else ""
    path = folder / f"{sha256[:32]}-{kind}{size}-v{VERSION}"
    found = _open(path, corpus, sha256)
    if found is None:
        _encode(path, sha256, corpus, kind, vocab_size)
        found = _open(path, corpus, sha256)
    if found is None:
        raise UserError(f"The tokens just written to {folder} cannot be read back: check that disk, then try again.")
    return found


def _encode(path: Path, sha256: str, corpus: str, kind: str, vocab_size: int | None) -> None:
    """Write PATH.npy (the tokens of the three splits, in a row) and then PATH.json, which says what they are."""
    text = read_text(corpus)
    if _digest(text) != sha256:
        raise UserError(f"{corpus} changed while it was being read: try again.")
    splits = split_text(text)
    del text
    tokenizer = tokenizers.learn(kind, splits.train, vocab_size)
    parts = [tokenizer.encode(split) for split in (splits.train, splits.val, splits.test)]
    tokens = np.concatenate(parts)
    facts = {
        "lengths": [len(part) for part in parts],
        "crc32": zlib.crc32(tokens),
        "bytes_per_token": len(splits.val.encode()) / max(1, len(parts[1])),
        "chars_per_token": len(splits.val) / max(1, len(parts[1])),
        "duplicates": splits.duplicates,
        "tokenizer": tokenizers.state(tokenizer),
    }
    with replacing(path.with_name(path.name + ".npy")) as part, part.open("wb") as file:
        np.save(file, tokens, allow_pickle=False)
    with replacing(path.with_name(path.name + ".json")) as part:
        part.write_text(json.dumps({"facts": facts, "digest": _digest(json.dumps(facts))}))


def _open(path: Path, corpus: str, sha256: str) -> Corpus | None:
    """The corpus kept at PATH.npy and PATH.json; None where it is absent or damaged."""
    try:
        kept = json.loads(path.with_name(path.name + ".json").read_text())
        facts = kept["facts"]
        tokens = np.load(path.with_name(path.name + ".npy"), mmap_mode="r", allow_pickle=False)
        sound = kept["digest"] == _digest(json.dumps(facts)) and facts["crc32"] == zlib.crc32(tokens)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if not sound:
        return None
    train, val, test = np.split(tokens, np.cumsum(facts["lengths"])[:2])
    return Corpus(
        name=corpus,
        fingerprint=sha256,
        tokenizer=tokenizers.restore(facts["tokenizer"]),
        train=train,
        val=val,
        test=test,
        bytes_per_token=facts["bytes_per_token"],
        chars_per_token=facts["chars_per_token"],
        duplicates=facts["duplicates"],
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _pieces(paragraph: str, size: int) -> Iterator[str]:
    """The paragraph, or, where it is longer than `size`, parts of it that end at white space if possible."""
    start = 0
    while len(paragraph) - start > size:
        stop = max(paragraph.rfind(space, start + 1, start + size + 1) for space in " \n")
        stop = stop if stop > 0 else start + size
        yield paragraph[start:stop]
        start = stop + paragraph[stop].isspace()
    yield paragraph[start:]


def _chunks(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Runs of whole pieces, each as long as fits in `size` characters (or one piece)."""
    chunk: list[str] = []
    length = 0
    for piece in pieces:
        if chunk and length + len(piece) > size:
            yield "".join(chunk)
            chunk, length = [], 0
        chunk.append(piece)
        length += len(piece)
    yield "".join(chunk)


def _take_last(chunks: list[str], length: int) -> str:
    """Remove chunks from the end until they hold `length` characters; their text."""
    taken: list[str] = []
    while sum(map(len, taken)) < length:
        taken.append(chunks.pop())
    return "".join(reversed(taken))

"""Four ways to turn text into integers.

    byte   256 symbols                                                            loses nothing
    char   the alphabet of the training split, and one symbol for the unknown     loses unknown characters only
    bpe    byte-level byte-pair encoding of any size (Sennrich et al. 2016)        loses nothing
    word   the commonest lower-case words and punctuation marks, and <unk>        loses case, spacing, rare words

A vocabulary is learnt from the training split only, and only from it: validation and test text stay unseen.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from minitransformer.data.cache import progress
from minitransformer.errors import UserError

BPE_TRAINING_CHARACTERS = 2**24
_SIZES = {"byte": None, "char": None, "bpe": 257, "word": 2}
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


class Tokenizer(Protocol):
    """What every tokenizer offers: ids are uint16 where the vocabulary fits, else uint32."""

    kind: ClassVar[str]

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str) -> np.ndarray: ...
    def decode(self, ids: np.ndarray) -> str: ...


@dataclass(frozen=True)
class Byte:
    """The bytes of the text in UTF-8."""

    kind: ClassVar[str] = "byte"
    vocab_size: ClassVar[int] = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)

    def decode(self, ids: np.ndarray) -> str:
        return np.asarray(ids).astype(np.uint8).tobytes().decode(errors="replace")


@dataclass(frozen=True)
class Char:
    """One id for each character of `alphabet`, counted from 1; 0 is any other character and decodes to U+FFFD."""

    kind: ClassVar[str] = "char"
    alphabet: str

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet) + 1

    @cached_property
    def _ids(self) -> np.ndarray:
        codes = np.array([ord(character) for character in self.alphabet], np.int64)
        table = np.zeros(codes.max(initial=0) + 2, _dtype(self.vocab_size))
        table[codes] = np.arange(1, self.vocab_size)
        return table

    def encode(self, text: str) -> np.ndarray:
        ids = [np.zeros(0, self._ids.dtype)]
        for block in _blocks(text, 2**22):
            codes = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), np.uint32)
            ids.append(self._ids[np.minimum(codes, len(self._ids) - 1)])
        return np.concatenate(ids)

    def decode(self, ids: np.ndarray) -> str:
        symbols = "\ufffd" + self.alphabet
        return "".join([symbols[i] for i in np.asarray(ids).tolist()])


@dataclass(frozen=True)
class BPE:
    """Byte-level byte-pair encoding; `model` is the JSON of the `tokenizers` library."""

    kind: ClassVar[str] = "bpe"
    vocab_size: int
    model: str

    @cached_property
    def _backend(self) -> Any:
        from tokenizers import Tokenizer as Backend

        return Backend.from_str(self.model)

    def encode(self, text: str) -> np.ndarray:
        """Ids of the text, which is cut into blocks before some of its white space to keep memory small."""
        ids = [np.zeros(0, _dtype(self.vocab_size))]
        blocks = list(_blocks(text, 2**16))
        for start in progress(range(0, len(blocks), 16), "encoding"):
            encodings = self._backend.encode_batch(blocks[start : start + 16], add_special_tokens=False)
            ids += [np.array(encoding.ids, ids[0].dtype) for encoding in encodings]
        return np.concatenate(ids)

    def decode(self, ids: np.ndarray) -> str:
        return self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


@dataclass(frozen=True)
class Word:
    """Lower-case words and punctuation marks, commonest first from id 1; 0 is <unk>. Decodes with single spaces."""

    kind: ClassVar[str] = "word"
    words: tuple[str, ...]

    @property
    def vocab_size(self) -> int:
        return len(self.words) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=1)}

    def encode(self, text: str) -> np.ndarray:
        ids = [np.zeros(0, _dtype(self.vocab_size))]
        for words in _words(text):
            ids.append(np.array([self._ids.get(word, 0) for word in words], ids[0].dtype))
        return np.concatenate(ids)

    def decode(self, ids: np.ndarray) -> str:
        symbols = ("<unk>", *self.words)
        return " ".join([symbols[i] for i in np.asarray(ids).tolist()])


def check(kind: str, vocab_size: int | None) -> None:
    """Refuse an unknown tokenizer, or a vocabulary size it cannot have. Raises: UserError."""
    if kind not in _SIZES:
        raise UserError(f"There is no tokenizer {kind!r}: choose one of {', '.join(_SIZES)}.")
    least = _SIZES[kind]
    if least is None:
        if vocab_size is not None and not (kind == "byte" and vocab_size == 256):
            what = "has always 256 symbols" if kind == "byte" else "takes its alphabet from the text"
            raise UserError(f"The {kind} tokenizer {what}: leave its vocabulary size out.")
    elif vocab_size is None:
        raise UserError(f"The {kind} tokenizer needs a vocabulary size, for example 4096.")
    elif isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or not least <= vocab_size <= 2**20:
        raise UserError(f"The {kind} tokenizer cannot have {vocab_size!r} symbols: ask for {least} to {2**20:,}.")


def byte() -> Byte:
    return Byte()


def char(train: str) -> Char:
    return Char("".join(sorted(set(train))))


def bpe(train: str, vocab_size: int) -> BPE:
    """Byte-pair encoding with exactly `vocab_size` symbols, learnt from (at most the first 16.8 million characters
    of) the training split. The same text gives the same symbols.

    Raises: UserError when the text has too few repeated pairs for that many symbols.
    """
    check("bpe", vocab_size)
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(_blocks(train[:BPE_TRAINING_CHARACTERS], 2**16), trainer)
    _enough("bpe", backend.get_vocab_size(), vocab_size)
    return BPE(vocab_size, backend.to_str())


def word(train: str, vocab_size: int) -> Word:
    """The `vocab_size - 1` commonest words of the training split (ties in order of the alphabet), and <unk>.

    Raises: UserError when there are not that many different words.
    """
    check("word", vocab_size)
    counts: Counter[str] = Counter()
    for words in _words(train):
        counts.update(words)
    _enough("word", len(counts) + 1, vocab_size)
    return Word(tuple(sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - 1]))


def learn(kind: str, train: str, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of that kind for a training split. Raises: UserError."""
    check(kind, vocab_size)
    if kind == "byte":
        return byte()
    if kind == "char":
        return char(train)
    return bpe(train, vocab_size) if kind == "bpe" else word(train, vocab_size)


def state(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `restore` needs to make this tokenizer again, as JSON can hold it."""
    return {"kind": tokenizer.kind, **asdict(tokenizer)}


def restore(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `state` this is. Raises: KeyError, TypeError when it is not one."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    return {"byte": Byte, "char": Char, "bpe": BPE, "word": Word}[fields.pop("kind")](**fields)


def _dtype(vocab_size: int) -> type[np.unsignedinteger]:
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def _enough(kind: str, most: int, asked: int) -> None:
    if most < asked:
        raise UserError(
            f"The training text supports a {kind} vocabulary of at most {most:,}, not {asked:,}: "
            "ask for a smaller one, or use more text."
        )


def _blocks(text: str, size: int) -> Iterator[str]:
    """The text in consecutive pieces of at most `size` characters, cut before white space wherever there is some."""
    start = 0
    while len(text) - start > size:
        stop = text.rfind("\n", start + 1, start + size)
        if stop < 0:
            stop = text.rfind(" ", start + 1, start + size)
        if stop < 0:
            stop = start + size
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def _words(text: str) -> Iterator[list[str]]:
    for block in _blocks(text, 2**20):
        yield _WORD.findall(block.lower())

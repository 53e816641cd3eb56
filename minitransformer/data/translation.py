"""Pairs of sequences in, arrays of symbols out."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from minitransformer.data.splits import Files, Parts, WrongFile, components, divide, padded

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
BEGIN, END, UNKNOWN = 1, 2, 3
LONGEST = 16
HELD_OUT = 5000
SIZES = (8000, 5000)

Pair = tuple[tuple[str, ...], tuple[str, ...]]

_TYPOGRAPHY = str.maketrans({
    "’": "'", "‘": "'", "´": "'", "`": "'", "„": '"', "“": '"', "”": '"', "‟": '"', "«": '"', "»": '"', "–": "-", "—": "-",
    "\xad": None, "\u200b": None,
})  # fmt: skip


def sentences(files: Files, source: int = 0, target: int = 1) -> Parts:
    """A UTF-8 file of tab-separated sentences, one pair a line, as words; `source` and `target` number the columns.

    The vocabulary of a side is its 7,996 (source) or 4,996 (target) commonest words in the training split and the four
    special symbols. Of the 169,813 English and German pairs 166,305 different ones have at most 16 words a side; in
    the validation split 96.3 % of the German words are known and 97.9 % of the English.

    Raises: WrongFile.
    """
    ((name, content),) = files
    pairs = []
    for number, line in enumerate(_decoded(name, content).splitlines(), 1):
        columns = line.split("\t")
        if line.strip() and len(columns) <= max(source, target):
            raise WrongFile(f"{name}, line {number}: no pair of sentences with a tab between them")
        if line.strip():
            pairs.append((words(columns[source]), words(columns[target])))
    return build(pairs, SIZES, _spoken)


def spellings(files: Files) -> Parts:
    """The CMU Pronouncing Dictionary: letters in, phonemes with their stress (AH0) out.

    Pronunciations of one word, and words of one pronunciation, stand in one split. The 135,002 different pairs of at
    most 16 letters and 16 phonemes are kept.

    Raises: WrongFile.
    """
    ((name, content),) = files
    pairs = []
    for number, line in enumerate(_decoded(name, content).splitlines(), 1):
        spelling, *phonemes = line.partition(" #")[0].split()
        if not phonemes:
            raise WrongFile(f"{name}, line {number}: no word with its phonemes")
        pairs.append((tuple(re.sub(r"\(\d+\)$", "", spelling)), tuple(phonemes)))
    return build(pairs)


def words(sentence: str) -> tuple[str, ...]:
    """Lower-case words and single marks: "It’s late..." is it's, late and three times a full stop."""
    plain = unicodedata.normalize("NFKC", sentence.translate(_TYPOGRAPHY)).lower()
    return tuple(re.findall(r"\w+(?:'\w+)*|[^\w\s]", plain))


def build(
    pairs: Iterable[Pair], sizes: tuple[int | None, int | None] = (None, None), key: Callable[[tuple[str, ...]], Hashable] = tuple
) -> Parts:
    """Splits of pairs of sequences, each pair once, those with an empty side or one of more than 16 symbols left out.

    Pairs whose source sides, or whose target sides, have the same `key` stand in one split, and so do pairs that a
    chain of such equalities joins. Validation and test have 5,000 pairs each, or a tenth of fewer than 50,000.

    Args: sizes: of the vocabulary of source and target, special symbols counted; None for all symbols in training.
    Raises: WrongFile.
    """
    kept = [pair for pair in dict.fromkeys(pairs) if all(0 < len(side) <= LONGEST for side in pair)]
    held_out = min(HELD_OUT, len(kept) // 10)
    rows = divide(list(components((key(one), key(other)) for one, other in kept)), held_out, held_out)
    source, target = ([pair[side] for pair in kept] for side in (0, 1))
    symbols = {
        name: vocabulary((side[row] for row in rows[0]), size) for name, side, size in zip(("input", "target"), (source, target), sizes)
    }
    of_source, of_target = ({symbol: i for i, symbol in enumerate(symbols[name])} for name in ("input", "target"))
    return Parts(*({
        "input": padded([[*_encoded(source[row], of_source), END] for row in split], LONGEST + 1, np.uint16),
        "target": padded([[BEGIN, *_encoded(target[row], of_target), END] for row in split], LONGEST + 2, np.uint16),
    } for split in rows), symbols)


def vocabulary(sequences: Iterable[Sequence[str]], size: int | None) -> tuple[str, ...]:
    """The special symbols and then the commonest others, of equally common ones the first in the alphabet."""
    counts = Counter(symbol for sequence in sequences for symbol in sequence)
    ordered = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    return (*SPECIAL, *ordered[: None if size is None else size - len(SPECIAL)])


def _encoded(sequence: Sequence[str], ids: dict[str, int]) -> list[int]:
    return [ids.get(symbol, UNKNOWN) for symbol in sequence]


def _spoken(sentence: tuple[str, ...]) -> tuple[str, ...]:
    """Its words without the marks, unless it has only marks."""
    return tuple(word for word in sentence if word[0].isalnum()) or sentence


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongFile(f"{name} is not UTF-8 text (byte {error.start:,})") from error

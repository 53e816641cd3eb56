"""How two public collections of novels become one plain text.

One paragraph a line, in a small ASCII alphabet, so that a character model of any size spends its parameters on
English and not on typography.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from minitransformer.data.cache import DamagedArchive, members, progress

PLAIN = r"[^/]+/corpus/[^/]+\.txt"
TEI = r"[^/]+/level1/[^/]+\.xml"
FIRST_YEAR_LEFT_OUT = 1930
NOVELS = 185
NOT_IN_EVERY_COPY = {"ENG18460_Reynolds.xml"}

# Novels of the second collection that the first one has too: they share more than 20 % of their 8-word shingles.
# Found by `overlap` below over all pairs; tests/test_data.py finds them again where the archives are at hand.
ALSO_IN_THE_FIRST = frozenset({
    "ENG18530_Dickens.xml", "ENG18551_Trollope.xml", "ENG18621_Braddon.xml", "ENG18640_Blackmore.xml",
    "ENG18660_Eliot.xml", "ENG18840_Lee.xml", "ENG18972_Morris.xml", "ENG19080_Chesterton.xml",
    "ENG19100_Forster.xml", "ENG19192_Woolf.xml", "ENG19200_Lawrence.xml",
})

_TYPOGRAPHY = str.maketrans({
    "‘": "'", "’": "'", "‚": "'", "‛": "'", "`": "'", "´": "'", "′": "'", "ʼ": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"', "″": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "--", "―": "--", "−": "-",
    "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ß": "ss",
    "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "£": "L",
    "{": "(", "}": ")", "⁄": "-", "/": "-", "\t": " ", "\f": " ", "\xa0": " ",
})
_RARE = re.compile(r"""[^\nA-Za-z0-9 .,;:!?'"()\[\]&*-]""")


def build(archives: Sequence[Path]) -> bytes:
    """The text of every novel kept, one after the other, as ASCII bytes.

    Args: archives: the zip files of 100_english_novels and ELTeC-eng, in this order.
    Raises: DamagedArchive.
    """
    return "".join(text for _, text in progress(novels(archives), "novels", NOVELS)).encode("ascii")


def novels(archives: Sequence[Path], drop: frozenset[str] = ALSO_IN_THE_FIRST) -> Iterator[tuple[str, str]]:
    """File name and cleaned text of each novel: every line a paragraph."""
    plain, tei = archives
    found = 0
    for name, raw in members(plain, PLAIN):
        year = re.search(r"_(\d{4})\.txt$", name)
        if year is None or int(year[1]) < FIRST_YEAR_LEFT_OUT:
            found += 1
            yield name, clean(unwrap(_decoded(raw, plain)))
    if not found:
        raise DamagedArchive(plain, "it holds no corpus/*.txt")
    found = 0
    for name, raw in members(tei, TEI):
        found += 1
        if name not in NOT_IN_EVERY_COPY and name not in drop:
            yield name, clean(tei_paragraphs(raw, tei))
    if not found:
        raise DamagedArchive(tei, "it holds no level1/*.xml")


def clean(paragraphs: list[str]) -> str:
    """Paragraphs in the small alphabet, spaces made single, empty ones dropped, each ended by a newline."""
    text = unicodedata.normalize("NFKD", "\n".join(paragraphs).translate(_TYPOGRAPHY)).translate(_TYPOGRAPHY)
    lines = (" ".join(line.split()) for line in _RARE.sub("", text).split("\n"))
    return "".join(line + "\n" for line in lines if line)


def unwrap(text: str) -> list[str]:
    """The paragraphs of a plain-text novel, whichever way it marks them.

    Long lines are paragraphs already. Wrapped lines are joined between blank lines. Where a wrapped text has next to
    no blank lines, a paragraph ends before an indented line, with a very short line, and with a sentence whose line
    had room left for the first word of the next.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    if not lengths:
        return []
    width = lengths[len(lengths) * 95 // 100]
    if width > 120:
        return [line for line in lines if line]
    by_blanks = 1 - len(lengths) / len(lines) > 0.05
    paragraphs, current = [], ""
    for line, following in zip(lines, [*lines[1:], ""]):
        joint = "" if not current or re.search(r"\w-+$", current) else " "
        current += joint + line.strip()
        if not following or (by_blanks and not line) or (not by_blanks and _ends_paragraph(line, following, width)):
            paragraphs.append(current)
            current = ""
    return [paragraph for paragraph in paragraphs if paragraph]


def _ends_paragraph(line: str, following: str, width: int) -> bool:
    if following[0].isspace() and not line[:1].isspace():
        return True
    if len(line) < width // 2:
        return re.match(r"[a-z-]", following) is None
    room = len(line) + 1 + len(following.split()[0]) <= width - 2
    return room and re.search(r"""[.!?:]["'’”)\]]*$|[-—]["'’”]$""", line) is not None


def tei_paragraphs(raw: bytes, archive: Path) -> list[str]:
    """Headings, paragraphs and lines of verse in the body of a TEI document, in reading order."""
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise DamagedArchive(archive, "a TEI file declares entities")
    try:
        body = ElementTree.fromstring(raw).find("{*}text/{*}body")
    except ElementTree.ParseError as error:
        raise DamagedArchive(archive, error) from error
    if body is None:
        raise DamagedArchive(archive, "a TEI file has no body")
    return list(_blocks(body))


def overlap(novel: str, others: set[str]) -> float:
    """Share of a novel's 8-word shingles that are in `others` (a sample: those that begin with "the")."""
    mine = shingles(novel)
    return len(mine & others) / max(1, len(mine))


def shingles(text: str) -> set[str]:
    """The runs of eight words that begin with "the", lower-cased, without punctuation."""
    words = re.findall(r"[a-z]+", text.lower())
    return {" ".join(words[i : i + 8]) for i, word in enumerate(words) if word == "the"}


def _blocks(element: ElementTree.Element) -> Iterator[str]:
    if element.tag.rsplit("}", 1)[-1] in ("p", "l", "head", "trailer", "label"):
        yield re.sub(r"\s+", " ", "".join(element.itertext()))
    else:
        for child in element:
            yield from _blocks(child)


def _decoded(raw: bytes, archive: Path) -> str:
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DamagedArchive(archive, error) from error

"""Small data sets of examples that the tests make themselves: digits of Matplotlib's fonts, numbers in words, words in Morse code."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minitransformer.data.examples import Examples

SIDE = 12
FONTS = [f"DejaVu{family}{style}" for family, styles in (
    ("Sans", ("", "-Bold", "-Oblique", "-BoldOblique", "Display")), ("SansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
    ("Serif", ("", "-Bold", "-Italic", "-BoldItalic", "Display"))) for style in styles] + [
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmss10", "cmtt10", "cmb10"]
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
MORSE = dict(zip("abcdefghijklmnopqrstuvwxyz", (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..").split()))
WORDS = ("the of and to in is that it was for on are as with his they at be this have from or one had by word but not what all were we when "
         "your can said there use an each which she do how their if will up other about out many then them these so some her would make like "
         "him into time has look two more write go see number no way could people my than first water been call who oil its now find").split()


def parted(name: str, domain: str, arrays: dict[str, np.ndarray], symbols: dict[str, tuple[str, ...]], held_out: int) -> Examples:
    """In an order drawn once; the last rows are validation, and before these test."""
    order = np.random.default_rng(0).permutation(len(arrays["target"]))
    train, test, val = np.split(order, [len(order) - 2 * held_out, len(order) - held_out])
    return Examples(name, "0" * 64, domain, *({key: array[rows] for key, array in arrays.items()} for rows in (train, val, test)), symbols)


def glyphs(signals: bool = False) -> Examples:
    """The ten digits as 22 fonts draw them, in three sizes: uint8 (n, 1, 12, 12); as signals, the ink of each column (n, 1, 12)."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    images, targets = [], []
    for font in FONTS:
        for size in (10, 11, 12):
            drawn = ImageFont.truetype(str(folder / f"{font}.ttf"), size)
            for digit in range(10):
                image = Image.new("L", (SIDE, SIDE))
                ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), str(digit), fill=255, font=drawn, anchor="mm")
                images.append(np.asarray(image))
                targets.append(digit)
    pixels = np.stack(images)[:, None]
    pixels = pixels.mean(axis=2).astype(np.uint8) if signals else pixels
    return parted("signals" if signals else "glyphs", "images", {"input": pixels, "target": np.array(targets, np.uint8)}, {"target": tuple("0123456789")}, 60)


def padded(rows: list[list[int]], dtype) -> np.ndarray:
    return np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], dtype)


def in_words(n: int) -> list[str]:
    if n < 20:
        return [ONES[n]]
    if n < 100:
        return [TENS[n // 10 - 2], *([ONES[n % 10]] if n % 10 else [])]
    return [ONES[n // 100], "hundred", *(["and", *in_words(n % 100)] if n % 100 else [])]


def numbers(most: int = 400) -> Examples:
    """Numbers in digits, and in English words."""
    special = ("<pad>", "<s>", "</s>", "<unk>")
    digits, words = (*special, *"0123456789"), (*special, *ONES, *TENS, "hundred", "and")
    arrays = {"input": padded([[digits.index(digit) for digit in str(n)] + [2] for n in range(most)], np.uint16),
              "target": padded([[1, *map(words.index, in_words(n)), 2] for n in range(most)], np.uint16)}
    return parted("numbers", "translation", arrays, {"input": digits, "target": words}, 40)


def morse(words: list[str] = WORDS, pitches: int = 4) -> Examples:
    """Words in Morse code, each at several pitches: float16 (n, frames, bands), one frame for a dot; and their letters."""
    letters = ("<blank>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
    keyed = [[tone for letter in word for mark in (*MORSE[letter], " ") for tone in {"-": [1, 1, 1, 0], ".": [1, 0], " ": [0, 0]}[mark]] for word in words]
    longest, sounds, frames, targets = max(map(len, keyed)), [], [], []
    for word, row in zip(words, keyed):
        for pitch in range(pitches):
            sound = np.zeros((longest, pitches), np.float16)
            sound[:len(row)] = -0.5
            sound[np.flatnonzero(row), pitch] = 1.5
            sounds.append(sound)
            frames.append(len(row))
            targets.append([letters.index(letter) for letter in word])
    arrays = {"input": np.stack(sounds), "frames": np.array(frames, np.int32), "target": padded(targets, np.uint8)}
    return parted("morse", "speech", arrays, {"target": letters}, 40)

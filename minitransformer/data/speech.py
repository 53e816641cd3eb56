"""Recordings of single words in, log-mel energies and letters out."""

import io
import re
import wave
from collections.abc import Sequence

import numpy as np

from minitransformer.data.cache import progress
from minitransformer.data.splits import LEAST_EXAMPLES, Files, Parts, WrongFile, mixed, padded

SPECIAL = ("<blank>", "<s>", "</s>")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BANDS = 40
WINDOW, HOP = 0.025, 0.010
FLOOR = 1e-6
LONGEST = 1.5


def recordings(files: Files) -> Parts:
    """Recordings named WORD_SPEAKER_INDEX.wav, 16 bits and one channel, of one sampling rate; the word may be a digit.

    Indices 0 to 4 are the test split, which is the official one of the free spoken digits, 5 to 9 validation, the
    others training. Recordings of more than 1.5 seconds are left out: of the 3,000 spoken digits two, both in training.

    Raises: WrongFile.
    """
    energies: list[np.ndarray] = []
    spoken: list[str] = []
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    first = None
    for name, content in progress(files, "recordings"):
        named = re.fullmatch(r"(?:.*/)?(\d|[a-z']+)_[^_/]+_(\d+)\.wav", name)
        if named is None:
            raise WrongFile(f"{name} is not named WORD_SPEAKER_INDEX.wav")
        samples, rate = waveform(name, content)
        if (first := first or rate) != rate:
            raise WrongFile(f"{name} has {rate:,} samples a second and the recordings before it {first:,}: make all of one rate")
        if len(samples) > LONGEST * rate:
            continue
        rows["test" if int(named[2]) < 5 else "val" if int(named[2]) < 10 else "train"].append(len(energies))
        energies.append(log_mel(samples, rate))
        spoken.append(DIGITS[int(named[1])] if named[1].isdigit() else named[1])
    return build(energies, spoken, mixed(rows["train"]), mixed(rows["val"]), mixed(rows["test"]))


def build(energies: Sequence[np.ndarray], spoken: Sequence[str], train: list[int], val: list[int], test: list[int]) -> Parts:
    """Splits of recordings, each band brought to mean 0 and variance 1 over the frames of the training split. Raises: WrongFile."""
    for split, rows in (("training", train), ("validation", val), ("test", test)):
        if not rows or len(energies) < LEAST_EXAMPLES:
            raise WrongFile(f"too few recordings: {len(energies)}, of which {len(rows)} are for {split}")
    frames = np.concatenate([energies[row] for row in train])
    mean, spread = frames.mean(0), frames.std(0) + 1e-9
    letters = (*SPECIAL, *sorted(set("".join(spoken))))
    ids = {letter: i for i, letter in enumerate(letters)}
    longest, widest = max(map(len, energies)), max(map(len, spoken))

    def split(rows: list[int]) -> dict[str, np.ndarray]:
        inputs = np.zeros((len(rows), longest, BANDS), np.float16)
        for i, row in enumerate(rows):
            inputs[i, : len(energies[row])] = (energies[row] - mean) / spread
        return {
            "input": inputs,
            "frames": np.array([len(energies[row]) for row in rows], np.int32),
            "target": padded([[ids[letter] for letter in spoken[row]] for row in rows], widest, np.uint8),
        }

    return Parts(split(train), split(val), split(test), {"target": letters})


def log_mel(samples: np.ndarray, rate: int) -> np.ndarray:
    """(frames, 40) energies of 16-bit samples: ln(1e-6 + sum over k of H[b, k] |X[t, k]|^2).

    X[t] is the Fourier transform of the t-th window, 25 ms under a Hann window, one every 10 ms, of samples scaled to
    -1 to 1; the last windows are filled with zeros. H holds triangles, equally spaced and half overlapping on the mel
    scale 2595 log10(1 + f / 700) from 0 to half the rate. So n seconds are 100 n frames, rounded up.
    """
    window, hop = round(WINDOW * rate), round(HOP * rate)
    size = 2 ** (2 * window - 1).bit_length()
    starts = np.arange(0, len(samples), hop)
    scaled = np.concatenate([samples / 32768, np.zeros(window)])
    power = np.abs(np.fft.rfft(scaled[starts[:, None] + np.arange(window)] * np.hanning(window), size)) ** 2
    return np.log(FLOOR + power @ mel_filters(rate, size).T)


def mel_filters(rate: int, size: int) -> np.ndarray:
    """(40, size / 2 + 1) weights of the triangles on the frequencies of a Fourier transform of `size` samples."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * rate / size
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.clip(np.minimum((frequencies - low) / (peak - low), (high - frequencies) / (high - peak)), 0, None)


def waveform(name: str, content: bytes) -> tuple[np.ndarray, int]:
    """(n,) int16 samples and how many a second. Raises: WrongFile."""
    try:
        with wave.open(io.BytesIO(content)) as opened:
            channels, width, rate, n = opened.getparams()[:4]
            raw = opened.readframes(n)
    except (wave.Error, EOFError) as error:
        raise WrongFile(f"{name} cannot be read as a .wav file ({error or 'it ends early'})") from error
    if (channels, width) != (1, 2):
        raise WrongFile(f"{name} has {channels} channel{'s' * (channels > 1)} of {8 * width} bits: one channel of 16 bits is read")
    if len(raw) != 2 * n or n == 0:
        raise WrongFile(f"{name} is cut short: {len(raw) // 2:,} of {n:,} samples are there")
    return np.frombuffer(raw, "<i2"), rate

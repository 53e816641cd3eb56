"""Words of a dictionary spoken by a synthesiser in many voices, with noise."""

import hashlib
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from minitransformer.data import espeak, speech
from minitransformer.data.cache import progress
from minitransformer.data.splits import SEED, Files, Parts, divide, shuffled
from minitransformer.errors import UserError

WORDS = 22_000
HELD_OUT = 1000
LONGEST = 1.0
ACCENTS = ("en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc")
# Left out: voices of robots, and those with breath in them, whose sound is another in each process.
SPEAKERS = (
    "adam Alex Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward edward2 Gene Gene2 gustave "
    "Henrique Hugo ian iven iven2 iven3 iven4 Jacky john kaukovalta Lee linda marcelo Marco Mario max Michael michel miguel Mike mike2 "
    "Nguyen pablo paul pedro quincy rob robert steph steph2 steph3 travis zac anika f1 f4 m1 m2 m3 m4 m5 m6 m7 m8 norbert shelby"
).split()


def recipe(dictionary: bytes, version: str) -> bytes:
    """What is to be said: the version of the package, and lines of voice, words a minute, pitch, word and decibels over noise.

    22,000 words of 3 to 10 letters are drawn from the dictionary, each with a voice (7 accents, 66 speakers), 130 to 219
    words a minute, a pitch of 20 to 79 and 10 to 34 decibels, all by the SHA-256 of its place.
    """
    words = sorted(set(re.findall(rb"^[a-z]{3,10}(?= )", dictionary, re.M)))
    lines = [version]
    for i in shuffled(len(words))[:WORDS]:
        accent, speaker, speed, pitch, decibels = hashlib.sha256(f"{SEED} voice {i}".encode()).digest()[:5]
        voice = f"{ACCENTS[accent % len(ACCENTS)]}+{SPEAKERS[speaker % len(SPEAKERS)]}"
        lines.append(f"{voice}\t{130 + speed % 90}\t{20 + pitch % 60}\t{words[i].decode()}\t{10 + decibels % 25}")
    return "\n".join(lines).encode()


def recordings(files: Files) -> Parts:
    """The words of a `recipe`, spoken, with white noise added, as log-mel energies and letters; none stands in two splits.

    Words that take more than a second are left out. A fingerprint is taken of the recipe: a fresh process of one
    version on one kind of machine says the same to the bit, and on another kind rounding may differ.

    Raises: WrongFile; UserError when the synthesiser fails.
    """
    ((_, content),) = files
    lines = content.decode().split("\n")[1:]
    energies: list[np.ndarray] = []
    spoken: list[str] = []
    for i, (line, (samples, rate)) in enumerate(zip(lines, progress(say(lines), "words", len(lines)))):
        *_, word, decibels = line.split("\t")
        if 0 < len(samples) <= LONGEST * rate:
            energies.append(speech.log_mel(noisy(samples, int(decibels), i), rate).astype(np.float32))
            spoken.append(word)
    return speech.build(energies, spoken, *divide([[row] for row in range(len(spoken))], HELD_OUT, HELD_OUT))


def noisy(samples: np.ndarray, decibels: float, seed: int) -> np.ndarray:
    """The samples and white noise of so many decibels less power, drawn by the generator that NumPy never changes."""
    spread = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-decibels / 20)
    return samples + spread * np.random.RandomState(seed).standard_normal(len(samples))


def say(lines: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Samples and sampling rate of each line of a recipe, from one fresh process for all. Raises: UserError."""
    import espeakng_loader

    command = [sys.executable, "-I", str(Path(espeak.__file__)), espeakng_loader.get_library_path(), espeakng_loader.get_data_path()]
    asked = "".join(line.rpartition("\t")[0] + "\n" for line in lines).encode()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as speaker:
        threading.Thread(target=_feed, args=(speaker.stdin, asked), daemon=True).start()
        try:
            (rate,) = struct.unpack("<i", speaker.stdout.read(4))
            for _ in lines:
                (n,) = struct.unpack("<i", speaker.stdout.read(4))
                yield np.array(struct.unpack(f"<{n}h", speaker.stdout.read(2 * n)), np.int16), rate
        except struct.error:
            speaker.kill()
            said = speaker.stderr.read().decode(errors="replace").strip().split("\n")[-1]
            raise UserError(f"eSpeak NG broke off ({said or 'without a word'}): pip install --force-reinstall espeakng-loader, or use fsdd.") from None
        finally:
            speaker.kill()


def _feed(pipe, content: bytes) -> None:
    try:
        with pipe:
            pipe.write(content)
    except OSError:
        pass

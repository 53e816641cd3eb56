"""Speaks words with eSpeak NG, whose sound depends on everything it has said before: run as a program of its own.

Arguments: the shared library and the folder of its data. Input: lines of voice, words a minute, pitch and word, with
tabs. Output: the sampling rate, and then for each line the number of samples and the samples of 16 bits; the numbers
have 4 bytes, little end first.
"""

import ctypes
import struct
import sys

SYNCHRONOUS, CHARACTER, UTF8, RATE, PITCH = 2, 1, 1, 1, 3


def main() -> None:
    library, data = sys.argv[1:]
    engine, out = ctypes.CDLL(library), sys.stdout.buffer
    rate = engine.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), 0)
    if rate <= 0:
        sys.exit("eSpeak NG does not start")
    heard: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def hear(samples: int | None, n: int, _: int | None) -> int:
        if samples and n > 0:
            heard.append(ctypes.string_at(samples, 2 * n))
        return 0

    engine.espeak_SetSynthCallback(hear)
    out.write(struct.pack("<i", rate))
    for line in sys.stdin.buffer:
        voice, speed, pitch, word = line.rstrip(b"\n").split(b"\t")
        if engine.espeak_SetVoiceByName(voice):
            sys.exit(f"eSpeak NG has no voice {voice.decode()}")
        engine.espeak_SetParameter(RATE, int(speed), 0)
        engine.espeak_SetParameter(PITCH, int(pitch), 0)
        heard.clear()
        engine.espeak_Synth(word, len(word) + 1, 0, CHARACTER, 0, UTF8, None, None)
        engine.espeak_Synchronize()
        sound = b"".join(heard)
        out.write(struct.pack("<i", len(sound) // 2) + sound)


if __name__ == "__main__":
    main()

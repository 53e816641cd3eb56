"""Seconds that the solutions of each lab take, whole notebooks, at each scale; every training is done anew.

    python benchmarks/labs.py [--scales smoke laptop] [LAB ...]

Seconds of processor time, over all cores, are steady on a busy machine; those by the clock are as long as it is busy. Data is at hand.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from minitransformer.files import cores
from minitransformer.labs import find_labs
from minitransformer.labs.source import FOLDER

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))
import notebooks  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the solutions of the labs.")
    parser.add_argument("--scales", nargs="+", default=["smoke", "laptop"])
    parser.add_argument("labs", nargs="*")
    arguments = parser.parse_args()
    source = ROOT / FOLDER / "source"
    busy = f", {os.getloadavg()[0]:.0f} other processes at work" if hasattr(os, "getloadavg") else ""
    print(f"{cores()} cores{busy}: python benchmarks/labs.py")
    print("seconds of processor time (by the clock)\n")
    print(f"{'lab':20}" + "".join(f"{scale:>16}" for scale in arguments.scales))
    os.environ["MINITRANSFORMER_QUIET"] = "1"
    for name in arguments.labs or find_labs(source):
        print(f"{name:20}", end="", flush=True)
        for scale in arguments.scales:
            with tempfile.TemporaryDirectory() as store:
                os.environ.update(MINITRANSFORMER_SCALE=scale, MINITRANSFORMER_STORE=store)
                _, took = notebooks.execute(source / f"{name}.ipynb")
            print(f"{f'{took.processor:.0f} ({took.clock:.0f})':>16}", end="", flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())

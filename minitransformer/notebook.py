"""The line that a notebook begins with: what machine this is, the scale of the live parts, and where their runs are kept."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError
from .sweeps.grid import SCALES
from .sweeps.store import default_store

TAKES = {"smoke": "seconds, and numbers that mean nothing", "laptop": "minutes on two processor cores",
         "hours": "a night on two processor cores, where a notebook trains at it; else as laptop", "gpu": "minutes to an hour on one large card"}
LARGE = 40             # GB (1e9 bytes) of a card that the gpu scale is made for
DRIVE = "/content/drive"


def start(scale: str | None = None, runs: str | os.PathLike | None = None, gpu: bool = True) -> str:
    """The scale at which a notebook trains, after saying what was found.

    scale: smoke, laptop, hours or gpu. Left out: MINITRANSFORMER_SCALE, else gpu where there is a card of LARGE GB and the
    notebook has that scale (`gpu`), else laptop. runs: a folder or an fsspec address where finished runs and checkpoints are kept from
    here on; in Colab a folder below /content/drive outlives a disconnect, and your Drive is mounted for it. Left out:
    MINITRANSFORMER_STORE, else `runs`. `sweep` then trains on the card at the scale gpu, and on the processor at all others. Says
    nothing where MINITRANSFORMER_QUIET is set. Raises UserError for an unknown scale, and for a Drive that cannot be mounted.
    """
    import torch

    card, memory = None, 0.0
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        card, memory = found.name, found.total_memory / 1e9
    chosen = scale or os.environ.get("MINITRANSFORMER_SCALE") or ("gpu" if gpu and memory >= LARGE else "laptop")
    if chosen not in SCALES:
        raise UserError(f"there is no scale {chosen!r}; use {', '.join(SCALES[:-1])} or {SCALES[-1]}")
    if runs is not None:
        os.environ["MINITRANSFORMER_STORE"] = _kept(os.fspath(runs))
    on_card = chosen == "gpu" and card is not None
    os.environ["MINITRANSFORMER_DEVICE"] = "cuda" if on_card else "cpu"
    if "MINITRANSFORMER_QUIET" not in os.environ:
        what = f"{card} with {memory:.0f} GB" if card else "No GPU"
        use = "trains here" if on_card else "trains on the processor"
        if chosen == "gpu" and not on_card:
            use += ", for days"
        elif card and not on_card:
            use += f": the gpu scale is for cards of {LARGE} GB, and smaller models do not fill one"
        print(f"{what}. Scale {chosen}: {TAKES[chosen]}; it {use}. Another scale: start(\"{'laptop' if chosen == 'smoke' else 'smoke'}\").")
        kept = default_store()
        print(f"Runs are kept in {kept if '://' in kept else Path(kept).resolve()}." + _lost())
    return chosen


def _kept(address: str) -> str:
    """The address, with its folder made; a folder on Drive once Drive is mounted."""
    if not address:
        raise UserError("runs = \"\" names no folder; leave it out for the folder runs")
    if "://" in address:
        return address
    folder = Path(address).expanduser()
    if folder.is_relative_to(DRIVE) and not Path(DRIVE, "MyDrive").is_dir():
        try:
            from google.colab import drive
        except ImportError:
            raise UserError(f"{folder} is a folder of Google Drive in Colab, and this is not Colab: name another folder") from None
        drive.mount(DRIVE)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _lost() -> str:
    if "COLAB_RELEASE_TAG" not in os.environ or default_store().startswith(DRIVE) or "://" in default_store():
        return ""
    return f" Colab deletes them when it disconnects; start(runs=\"{DRIVE}/MyDrive/runs\") keeps them in your Drive."

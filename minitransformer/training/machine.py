"""The machine a run was trained on: its name, its software, and the rate it could reach."""

from __future__ import annotations

import ctypes
import platform
import time
from contextlib import contextmanager
from functools import lru_cache
from typing import Iterator

import numpy as np
import torch

from .. import __version__
from ..models.kernels import product

# Dense peak in FLOP/s without sparsity, from the makers' data sheets: (bfloat16, or float16 where there is none; float32)
CARDS = {
    "H200": (989e12, 67e12), "H100 PCIe": (756e12, 51e12), "H100": (989e12, 67e12), "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12), "L4": (121e12, 30.3e12), "A10": (125e12, 31.2e12), "V100": (125e12, 15.7e12),
    "T4": (65e12, 8.1e12), "RTX 4090": (165e12, 82.6e12), "RTX 3090": (71e12, 35.6e12),
}

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of malloc.h


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


@lru_cache
def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s that the device could reach: a known card's data sheet, else its best product of matrices, measured now.

    On a CPU it is that of the threads this process uses.
    """
    name = device_name(device)
    known = next((rates for card, rates in CARDS.items() if card in name), None)
    if known and precision != "float64":
        return known[precision == "float32"]
    side = 768 if device.type == "cpu" else 8192
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}[precision]
    a, b = torch.randn(2, 1, side, side, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        product(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


@lru_cache
def keep_memory() -> None:
    """Let this process keep memory that it frees: training asks for the same again in the next step (glibc only; elsewhere nothing).

    No block is mapped for itself, however large: what glibc maps it gives back, and the logits of thousands of words would be
    zeroed by the system anew in every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, size in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
        mallopt(option, size)


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """On a CPU: one thread, and no denormal numbers; both are states of the whole process, which may go on to other work."""
    if device != "cpu":
        yield
        return
    keep_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def versions() -> dict[str, str]:
    return {"minitransformer": __version__, "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}

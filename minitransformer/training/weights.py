"""The weights of a run, which runs do not keep: it is trained again, and those of its lowest validation loss are kept."""

from __future__ import annotations

import copy
import math
from typing import Callable

from torch import Tensor, nn

from ..errors import UserError
from .config import RunConfig
from .loop import Progress, train
from .machine import one_thread
from .run import Run


def train_model(config: RunConfig, device: str = "cpu", report: Callable[[Progress], None] = lambda progress: None) -> tuple[nn.Module, Run]:
    """Train one config; the model (K = 1) as it was measured at `run.best_step`, with the running mean of the weights where one
    is kept, and the run.

    The run is what a sweep makes of the config, save `seconds` and `utilisation`: to the last bit on the same machine where the
    sweep trained it alone. In a stack sums may be rounded otherwise, and training lets such differences grow.

    Raises: UserError, also where the run diverges, which has no lowest loss.
    """
    lowest, kept = math.inf, None

    def keep(model: nn.Module, losses: Tensor) -> None:
        nonlocal lowest, kept
        if (loss := losses.item()) < lowest:
            lowest, kept = loss, copy.deepcopy(model)

    with one_thread(device):
        (run,) = train([config], device, report, witness=keep)
    if run.status != "complete":
        raise UserError(f"run {config.id} has {run.status} by step {run.curve['step'][-1]:,}, so it has no model: make lr = {config.lr:g} smaller")
    return kept, run

"""Learning-rate schedules and the steps at which a run is measured."""

from __future__ import annotations

import math

from .config import RunConfig


def learning_rate(config: RunConfig, step: int) -> float:
    """The rate of update number `step`, counted from 1 to config.steps.

    Linear warm-up, then one of: `constant`; `cosine` to zero (Kaplan et al. 2020, §2.2);
    `cooldown`, constant and then 1 - sqrt to zero (Hägele et al. 2024).
    """
    warmup = min(1.0, step / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * (step - 1) / config.steps))
    elif config.schedule == "cooldown":
        start = config.steps * (1 - config.cooldown)
        shape = 1 - math.sqrt(max(0.0, (step - 1 - start) / max(config.steps - start, 1)))
    else:
        shape = 1.0
    return config.lr * warmup * shape


def evaluation_steps(config: RunConfig, first: int = 16) -> list[int]:
    """Log-spaced steps, each eval_ratio times the one before, ending at the last step."""
    steps, step = [config.steps], float(config.steps)
    while (step := step / config.eval_ratio) >= first:
        if round(step) < steps[-1]:
            steps.append(round(step))
    return steps[::-1]

"""Train what is missing: stacks of runs over processes, each finished run written at once."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Iterable, Sequence

import torch

from .. import accounting
from ..data.text import load_corpus
from ..training.config import RunConfig
from ..training.loop import Progress, shape_of, train
from ..training.schedules import evaluation_steps
from .store import RunStore

MAX_STACK_FLOPS = 2e12  # on a CPU: about half a minute of one core, so that cores stay busy and a kill costs little


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: the stacks to train, the runs already there, and the cost in FLOPs."""

    stacks: list[list[RunConfig]]
    finished: int
    flops: float

    @property
    def missing(self) -> int:
        return sum(len(stack) for stack in self.stacks)


def cost(config: RunConfig) -> float:
    """FLOPs of a run, every component and the evaluations counted, if it is not stopped early."""
    vocab_size = load_corpus(config.corpus, config.tokenizer, config.vocab_size or None).vocab_size
    shape = shape_of(config, vocab_size)
    training = accounting.count_compute(shape, config.steps * config.tokens_per_step)["C_total"]
    evaluation = len(evaluation_steps(config)) * config.eval_tokens * sum(accounting.forward_flops(shape).values())
    return training + evaluation


def plan(configs: Iterable[RunConfig], store: RunStore, device: str = "cpu") -> Plan:
    """Group the runs that are not in the store into stacks of one shape, the dearest first."""
    configs = list(dict.fromkeys(configs))
    missing = [config for config in configs if config not in store]
    by_shape: dict[tuple, list[RunConfig]] = {}
    for config in missing:
        by_shape.setdefault(config.stack_key, []).append(config)
    most = MAX_STACK_FLOPS if device == "cpu" else math.inf
    stacks = [stack for group in by_shape.values() for stack in _split(group, most)]
    stacks.sort(key=lambda stack: -sum(map(cost, stack)))
    return Plan(stacks, len(configs) - len(missing), sum(cost(config) for config in missing))


def _split(group: list[RunConfig], most: float) -> list[list[RunConfig]]:
    """Consecutive runs together as long as they cost no more than `most` FLOPs; at least one each."""
    stacks: list[list[RunConfig]] = []
    room = 0.0
    for config in group:
        room -= cost(config)
        if not stacks or room < 0:
            stacks.append([])
            room = most - cost(config)
        stacks[-1].append(config)
    return stacks


def sweep(configs: Iterable[RunConfig], store: RunStore, workers: int | None = None, device: str = "cpu",
          quiet: bool = False) -> Plan:
    """Train every config that has no finished run in the store; return what there was to do.

    On a CPU each worker is a process with one thread. Stop it at any moment: finished runs stay,
    and the next call trains only what is missing.
    """
    todo = plan(configs, store, device)
    if not todo.stacks:
        return todo
    from joblib import Parallel, delayed

    workers = 1 if device != "cpu" else min(workers or os.cpu_count() or 1, len(todo.stacks))
    log = store.path / "progress.jsonl"
    log.write_text("")
    with _Display(log, todo, quiet):
        jobs = (delayed(_train_stack)(stack, store.path, device, log, os.getpid()) for stack in todo.stacks)
        for _ in Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(jobs):
            pass
    return todo


def _train_stack(stack: Sequence[RunConfig], store: Path, device: str, log: Path, parent: int) -> None:
    if os.getpid() != parent:
        _end_with(parent)

    def report(progress: Progress) -> None:
        losses = [round(loss, 4) for loss in progress.losses if not math.isnan(loss)]
        with log.open("a") as file:
            file.write(json.dumps({"stack": stack[0].id, "step": progress.step, "steps": progress.steps,
                                   "flops": progress.flops, "losses": losses}) + "\n")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        for run in train(stack, device, report):
            RunStore(store).add(run)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)  # a state of the whole process, which may go on to other work


@lru_cache
def _end_with(parent: int) -> None:
    """End this worker soon after its sweep is killed: the next sweep will train what it was training."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Display:
    """Progress on the terminal or in a notebook, read from the log the workers append to; else silence."""

    def __init__(self, log: Path, todo: Plan, quiet: bool):
        self.log, self.todo, self.stop = log, todo, threading.Event()
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        self.notebook = hasattr(shell, "kernel")
        self.shown = not (quiet or "MINITRANSFORMER_QUIET" in os.environ) and (self.notebook or sys.stderr.isatty())
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        if self.shown:
            self.thread.start()

    def __exit__(self, *_):
        self.stop.set()
        if self.shown:
            self.thread.join()

    def _watch(self) -> None:
        from tqdm import tqdm

        stream = _NotebookLine() if self.notebook else sys.stderr
        label = f"training {self.todo.missing} runs"
        with tqdm(total=self.todo.flops / 1e9, unit="GFLOP", desc=label, file=stream, leave=not self.notebook,
                  bar_format="{desc}: {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining} {postfix}") as bar:
            while not self.stop.wait(0.5):
                state = self._state()
                bar.n = min(bar.total, sum(s["flops"] for s in state.values()) / 1e9)
                losses = [loss for s in state.values() for loss in s["losses"]]
                bar.set_postfix_str(f"loss {min(losses):.2f} to {max(losses):.2f}" if losses else "")
            bar.n = bar.total
            bar.refresh()

    def _state(self) -> dict[str, dict]:
        latest = {}
        for line in self.log.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            record["flops"] = max(record["flops"], latest.get(record["stack"], record)["flops"])
            latest[record["stack"]] = record
        return latest


class _NotebookLine:
    """A stream that shows its last line in a notebook cell and leaves nothing behind."""

    def __init__(self):
        from IPython.display import display
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.handle.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        pass

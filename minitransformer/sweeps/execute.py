"""Train what is missing: stacks of runs over processes, cards or a cluster, each finished run written at once."""

from __future__ import annotations

import gc
import math
import os
import queue
import re
import threading
import time
from dataclasses import replace
from typing import Any, Iterable, Iterator, Optional, Sequence

import torch

from .. import accounting, files
from ..errors import UserError
from ..files import host
from ..training.config import RunConfig
from ..training.loop import train
from ..training.machine import one_thread
from ..training.tasks import shape_of
from .grouping import MAX_STACK_FLOPS, Plan, Stack, cards, cost, counted, plan, stack_cost
from .lease import Lease, LeaseLost
from .progress import Display
from .store import RunStore, StoreError

__all__ = ["MAX_STACK_FLOPS", "BACKENDS", "Plan", "Stack", "cards", "check_backend", "cost", "counted", "plan", "stack_cost", "sweep",
           "train_stack"]

POLL = 0.5  # seconds between two looks at what another sweep trains
BACKENDS = ("processes", "ray")
TOO_LITTLE = "out of memory|allocate memory|enough memory|alloc_failed"  # in what torch says
Attempt = tuple[Stack, Optional[UserError], Sequence[str]]  # at a stack: what was wrong, and the ids of the runs it trained


def check_backend(name: str, gpus_per_stack: float = 1.0) -> None:
    """UserError where there is none of this name, or where it does not share a card among stacks."""
    if name not in BACKENDS:
        raise UserError(f"unknown backend {name!r}; use {' or '.join(BACKENDS)}")
    if name != "ray" and gpus_per_stack != 1.0:
        raise UserError(f"gpus_per_stack = {gpus_per_stack:g} is for the ray backend; without it a stack has a card to itself")


def sweep(configs: Iterable[RunConfig], store: RunStore, workers: int | None = None, device: str | None = None,
          quiet: bool = False, backend: str = "processes", gpus_per_stack: float = 1.0) -> Plan:
    """Train every config that has no finished run in the store; return what there was to do, and how much of it was done here.

    device: "cpu" or "cuda"; left out: MINITRANSFORMER_DEVICE, else "cpu". On a CPU each worker is a process with one thread, on cards a
    thread for each card; backend "ray" sends the stacks to a
    Ray cluster, where a stack on a card takes the share `gpus_per_stack` of it. Stop it at any moment: finished runs stay,
    and the next call trains only what is missing. Sweeps on one store share the work: what another trains is waited for,
    and taken over when the other is no more. A stack that fails does not stop the others; the first error is raised when
    they are done, with how many others there are; that of a store which cannot be used at once.
    """
    check_backend(backend, gpus_per_stack)
    device = device or os.environ.get("MINITRANSFORMER_DEVICE", "cpu")
    configs = list(dict.fromkeys(configs))
    errors: dict[str, UserError] = {}  # of runs that cannot be trained
    here: set[str] = set()             # runs that this sweep has trained
    most: dict[str, int] = {}          # runs whose worker was killed, and how many of them a stack may have
    idle = 0                           # rounds in a row that brought nothing

    def planned() -> Plan:
        return plan([config for config in configs if config.id not in errors], store, device, workers if backend == "ray" else None)

    start = todo = planned()
    options = {"workers": workers, "device": device, "backend": backend, "gpus_per_stack": gpus_per_stack}
    with Display(store, start.flops, start.missing, quiet, configs):
        while todo.missing:
            if not todo.stacks:
                time.sleep(POLL if store.path is not None else 10 * POLL)
            stacks = [part for stack in todo.stacks for part in stack.cut(max(1, min(most.get(c.id, 10**9) for c in stack.configs)))]
            risky = [stack for stack in stacks if any(c.id in most for c in stack.configs)]
            learnt = False
            for batch in [*([stack] for stack in risky), [stack for stack in stacks if stack not in risky]]:
                try:
                    for stack, error, trained in _work(batch, store, apart=bool(risky), **options):
                        errors |= {config.id: error for config in stack.configs if error}
                        here.update(trained)
                except _Killed:  # with what it would have said; so all that is there now counts as its work
                    here |= {run.config.id for run in store.runs(config for stack in batch for config in stack.configs)}
                    learnt |= _learn(batch, store, most, errors)
            before, todo = todo, planned()
            idle = idle + 1 if todo == before and todo.stacks and not learnt else 0
            if idle == 3:
                raise StoreError(f"three attempts at {counted(todo.missing)} brought nothing into {store}: all workers must see this store, "
                                 "and must not be killed before they begin")
    there = {run.config.id for run in store.runs(configs)} if errors else set()
    if failed := {run: error for run, error in errors.items() if run not in there}:
        raise _all_of(failed, len(there) - start.finished, start.missing)
    return start if backend == "ray" else replace(start, here=len(here))


def _all_of(errors: dict[str, UserError], trained: int, missing: int) -> UserError:
    """The first error of a sweep, with the names of the other runs that could not be trained, and how many were."""
    first = str(next(iter(errors.values())))
    named = next((run for run in errors if run in first), next(iter(errors)))
    others = [run for run in errors if run != named]
    more = f" And {len(others)} more not trained: {', '.join(others[:3])}{', ...' * (len(others) > 3)}." if others else ""
    return UserError(f"{first}{'.' * (first[-1] not in '.!?')}{more} {trained} of {counted(missing)} trained and kept.")


class _Killed(Exception):
    """The system ended a worker, most likely for want of memory."""


def _learn(batch: Sequence[Stack], store: RunStore, most: dict[str, int], errors: dict[str, UserError]) -> bool:
    """After the death of a worker: halve the stacks that were under way, if any was. A run that was alone, twice, cannot be trained."""
    time.sleep(1.0)  # joblib ends the other workers too
    left = {record["stack"] for record in store.dead() if record["host"] == host()}
    for stack in batch:
        if stack.name not in left:
            continue
        if len(stack.configs) == 1 and most.get(stack.configs[0].id) == 0:
            errors[stack.configs[0].id] = _too_large(stack.configs[0], "its worker was killed twice")
        most.update({config.id: len(stack.configs) // 2 for config in stack.configs})
    return bool(left & {stack.name for stack in batch})


def _work(stacks: Sequence[Stack], store: RunStore, apart: bool, workers: int | None, device: str, backend: str,
          gpus_per_stack: float) -> Iterator[Attempt]:
    """Train stacks side by side; yields each attempt. Raises _Killed when a process was killed.

    apart: in processes other than this one, even a single stack.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if not stacks:
        return
    if backend == "ray":
        from .cluster import over_cluster
        for _ in over_cluster(stacks, store.address, device, workers, gpus_per_stack):
            pass
        return
    options: dict[str, Any]
    if device == "cpu":
        n = 1 if store.address.startswith("memory:") else min(workers or files.cores(), len(stacks))
        jobs = [delayed(_attempt)(stack, store.address, device) for stack in stacks]
        options = {"n_jobs": max(n, 1 + apart)}
        if options["n_jobs"] > 1:
            options |= of_workers()
    else:
        free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for card in cards(device):
            free.put(card)
        jobs = [delayed(_on_a_card)(stack, store.address, free) for stack in stacks]
        options = {"n_jobs": free.qsize(), "backend": "threading"}
    try:
        yield from Parallel(return_as="generator_unordered", batch_size=1, **options)(jobs)
    except TerminatedWorkerError:
        raise _Killed from None


def _on_a_card(stack: Stack, address: str, free: queue.SimpleQueue[str]) -> Attempt:
    card = free.get()
    try:
        return _attempt(stack, address, card)
    finally:
        free.put(card)


def _attempt(stack: Stack, address: str, device: str) -> Attempt:
    trained: list[str] = []
    try:
        train_stack(stack, address, device, trained)
    except StoreError:
        raise
    except UserError as problem:
        return stack, problem, trained
    return stack, None, trained


def of_workers() -> dict[str, Any]:
    """Options of joblib's Parallel for workers that train; the same everywhere, so that one call's workers serve the next."""
    return {"initializer": _begin, "initargs": (os.getpid(),)}


def _begin(parent: int) -> None:
    """End this worker soon after its sweep is killed, for the next sweep trains what it was training; and let it keep memory,
    which joblib would take for a leak and answer with a new worker."""
    from joblib.externals.loky import process_executor
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train_stack(stack: Stack, address: str, device: str, trained: list[str] | None = None) -> None:
    """What one worker does with one stack: claim it, train those of its runs that are not in the store, add each as it ends.

    Returns without having trained when another worker holds a lease on any of its runs, or takes this one over. When there
    is too little memory, it goes on in halves; UserError where a single run is too large. trained: gets the ids of its runs.
    """
    store = RunStore(address)
    missing = tuple(config for config in stack.configs if config not in store)
    if not missing:
        store.checkpoint(stack.name).remove()
        return
    stack = Stack(stack.name, missing, stack.before)
    if (lease := store.claim(stack, device, stack_cost(missing))) is None:
        return
    with lease, one_thread(device):
        try:
            _train(stack, store, device, lease, [] if trained is None else trained)
            store.checkpoint(stack.name).remove()
        except LeaseLost:
            pass


def _train(stack: Stack, store: RunStore, device: str, lease: Lease, trained: list[str]) -> None:
    there = {run.config for run in store.runs(stack.configs)}
    left = [config for config in stack.configs if config not in there]
    for config in there:
        lease.finished(config.id)
    if not left:
        return
    if (problem := _too_little_memory(left, stack, store, device, lease, trained)) is None:
        return
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    if len(left) == 1:
        raise _too_large(left[0], problem)
    for part in Stack(stack.name, tuple(left), stack.before).cut((len(left) + 1) // 2):
        lease.next_part()
        _train(part, store, device, lease, trained)
        store.checkpoint(part.name).remove()


def _too_little_memory(configs: Sequence[RunConfig], stack: Stack, store: RunStore, device: str, lease: Lease,
                       trained: list[str]) -> str | None:
    """Train; what the system said when there was too little memory, None when all is done. The tensors are freed on return."""
    try:
        for run in train(configs, device, lease.report, store.checkpoint(stack.name, stack.before)):
            store.add(run)
            lease.finished(run.config.id)
            trained.append(run.config.id)
    except (MemoryError, RuntimeError) as problem:
        if not (isinstance(problem, MemoryError) or re.search(TOO_LITTLE, str(problem), re.I)):
            raise
        return (str(problem).strip() or "out of memory").splitlines()[0]
    return None


def _too_large(config: RunConfig, why: str) -> UserError:
    batch = f"{config.batch_size} x {config.n_ctx} tokens" if config.reads_text else f"{config.batch_size} examples"
    return UserError(f"too little memory for run {config.id} alone ({config.arch}, {config.n_layer} layers, width {config.d_model}, "
                     f"{sum(accounting.parameters(shape_of(config)).values()):.2g} parameters, {batch} a step): "
                     f"{why}. Make the model or batch_size smaller, or use fewer workers.")

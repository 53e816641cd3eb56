"""The command line. Results go to standard output, progress and errors to standard error.

Exit status: 0 done, 1 a check failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from . import cli_labs, cli_laws
from .cli_capstone import app as capstone_app
from .cli_laws import AsJson, Workers, print_json
from .errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Train small language models, keep every run, and measure neural scaling laws.\n\n"
                       "Start with `minitransformer replicate`: it trains what is missing, fits, and prints the claims.")
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The data to train on: what there is, and fetching it.")
app.add_typer(data_app, name="data")
app.add_typer(capstone_app, name="capstone")

Scale = Annotated[str, typer.Option(help="smoke: seconds; laptop: minutes on two cores; hours: two cores for some hours; gpu: one large card.")]
Store = Annotated[Optional[str], typer.Option(help="Where finished runs are: a folder, or an address such as s3://bucket/runs. "
                                                   "[default: $MINITRANSFORMER_STORE, else runs/]")]
Backend = Annotated[str, typer.Option(help="processes: on this machine; ray: on a Ray cluster (RAY_ADDRESS), with a store that all its machines see.")]
Share = Annotated[float, typer.Option("--gpus-per-stack", help="With ray: share of a card that a stack of models takes; 0.25 puts four on one.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU for the gpu scale where there is one.")]


LISTED = 12  # the most losses that are printed with a claim
STOPPED = "stopped; finished runs are kept, the same command goes on from here"


def _store(address: str | None):
    from .sweeps.store import RunStore, default_store
    return RunStore(address or default_store())


def _device(name: str, scale: str, backend: str) -> str:
    import torch
    if name == "auto":
        return "cuda" if scale == "gpu" and torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and backend != "ray" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available here; leave out --device to use the processor")
    if not (name == "cpu" or name.startswith("cuda")):
        raise UserError(f"unknown device {name!r}; use cpu, cuda or auto")
    return name


def _estimate(todo, workers: int | None) -> str:
    """A comma and the minutes to expect; empty where measuring them would take too long."""
    from .files import cores
    from .sweeps.timing import estimate
    processes = min(workers or cores(), max(len(todo.stacks), 1))
    seconds = estimate(todo, processes)
    return "" if seconds is None else f", about {seconds / 60:.1f} minutes on {processes} core{'s' * (processes > 1)} of this machine"


def _check_backend(backend: str, gpus_per_stack: float) -> None:
    from .sweeps.execute import check_backend
    if gpus_per_stack != 1.0 and backend == "processes":
        raise UserError("--gpus-per-stack is for --backend ray, which shares a card among stacks; leave it out: here a stack has a card to itself")
    check_backend(backend)


def _train(configs, store, workers: int | None, device: str, backend: str, gpus_per_stack: float, stage: str = "") -> None:
    """Sweep, with a line before and a line after on standard error; stage: what the runs are, if there is more than one."""
    from .sweeps import execute
    stage = stage and f"{stage}: "
    todo = execute.plan(configs, store, device)
    if todo.missing:
        store.check()
        time = _estimate(todo, workers) if (device, backend) == ("cpu", "processes") else f", {todo.flops:.2e} FLOPs"
        print(f"{stage}training {execute.counted(todo.missing)}{time}{_elsewhere(todo)}", file=sys.stderr, flush=True)
    done = execute.sweep(configs, store, workers, device, backend=backend, gpus_per_stack=gpus_per_stack)
    rates = sorted(run.utilisation for run in store.runs(config for stack in todo.stacks for config in stack.configs) if run.utilisation)
    speed = f"; {rates[len(rates) // 2]:.0%} of the peak FLOP/s (MFU, median)" if rates else ""
    others = 0 if done.here is None else done.missing - done.here
    trained = f"{execute.counted(done.here)} here; {_were(others)} trained by another sweep" if others else execute.counted(done.missing)
    print(f"{stage}trained {trained}; {_were(done.finished)} already in {store}{speed}", file=sys.stderr)


def _were(runs: int) -> str:
    return f"{runs} was" if runs == 1 else f"{runs} were"


def _elsewhere(todo) -> str:
    runs = sum(len(stack.configs) for stack in todo.elsewhere)
    return f"; {runs} of them another sweep is training now" if runs else ""


def _dry_run(spec, scale: str, runs, workers: int | None) -> None:
    """The stacks to train, the missing ones of a search with those that will follow it, which can share no trunk with its trials."""
    from .sweeps import execute
    todo, waiting = execute.plan(spec.configs(scale, runs), runs), spec.waiting(scale, runs)
    print(f"{spec.title} ({scale})")
    if not todo.missing:
        print(f"nothing to train: {'1 run is' if todo.finished == 1 else f'all {todo.finished} runs are'} in {runs}")
        return
    trials = {trial for group in spec.tuning(scale, runs) for trial in group.trials}
    later = execute.plan(waiting, ()).stacks
    print(f"{'runs':>5} {'layers':>7} {'width':>6} {'steps':>7} {'lr':>9} {'FLOPs':>9}")

    def row(stack, rate: str, flops: float, what: str) -> None:
        first, steps = stack.configs[0], max(config.steps for config in stack.configs)
        print(f"{len(stack.configs):5d} {first.n_layer:7d} {first.d_model:6d} {steps:7d} {rate:>9} {flops:9.2e}  {what}".rstrip())

    for stack in (*todo.stacks, *todo.elsewhere):
        members = set(stack.configs)
        kinds = [name for name, some in (("trials", members & trials), ("final runs", members - trials)) if some and spec.tune]
        row(stack, f"{stack.configs[0].lr:.2g}", execute.stack_cost(stack.configs), " and ".join(kinds))
    for stack in later:
        row(stack, "?", sum(map(execute.cost, stack.configs)), "final runs (rate to be found)")
    known, unknown = todo.flops, sum(map(execute.cost, waiting))
    whole = replace(todo, stacks=[*todo.stacks, *later], flops=known + unknown)
    parts = f" ({known:.2e} now, {unknown:.2e} when the rates are found)" if waiting else ""
    print(f"{execute.counted(whole.missing)} to train, {todo.finished} finished; {'about' if spec.tune else 'at most'} {whole.flops:.2e} FLOPs{parts}"
          f"{_estimate(whole, workers)}{_elsewhere(todo)}")


def _print_claims(claims) -> None:
    if not claims:
        print("no claims: the run tables they are measured from are missing")
    for c in claims:
        print(f"{c.id}  ({c.scale}, {c.n_runs} runs, {c.flops:.1e} FLOPs in {c.seconds:.0f} s of training)")
        print(f"  {c.statement}")
        paper = "no number" if c.paper_value is None else f"{c.paper_value:g}"
        print(f"  paper {paper}   ours {_interval(c.value, c.low, c.high)}{f' {c.unit}' if c.unit and c.value is not None else ''}   {c.verdict}")
        if c.reason:
            print(f"  {c.reason}")
        if c.holdout_error is not None:
            print(f"  held out of the fit and predicted from the rest: off by {c.holdout_error:+.1f} %")
            _print_losses(c.losses)
        for one in c.more:
            theirs = "" if one["paper_value"] is None else f"   (paper {one['paper_value']:g})"
            print(f"    {one['name']}: {_interval(one['value'], one['low'], one['high'])}{theirs}")
        print()


def _print_losses(losses) -> None:
    """Those that a law was fitted to, unless they are many."""
    if 1 < len(losses) <= LISTED:
        depths = len({point["n_layer"] for point in losses}) > 1
        name = "D" if "unique_tokens" in losses[0] else "N"
        print("  loss at " + ", ".join(f"{name} = {next(iter(point.values())):,.0f}" + (f" ({point['n_layer']} layers)" if depths else "")
                                       + f": {point['loss']:.3f}" for point in losses))


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    """0.08713 [0.0735, 0.1007]; without an interval the value alone, and a dash for none."""
    return cli_laws.figures(value) + ("" if None in (value, low, high) else f" [{cli_laws.figures(low)}, {cli_laws.figures(high)}]")


@app.command()
def replicate(scale: Scale = "laptop",
              only: Annotated[Optional[list[str]], typer.Option(help="A claim's id, or the beginning of one (kaplan). Repeatable.")] = None,
              store: Store = None, workers: Workers = None, device: Device = "auto", backend: Backend = "processes",
              gpus_per_stack: Share = 1.0, json_: AsJson = False) -> None:
    """Measure claims on this machine.

    Those of the tour, a few minutes' work at laptop, or those named with --only. It trains what is missing, fits the laws and prints
    the claims. Stop it at any moment and start it again: finished runs are kept in the store and never trained twice.

    Example: minitransformer replicate

    Example: minitransformer replicate --only kaplan --scale hours
    """
    from . import claims
    from .sweeps.grid import load_spec

    _check_backend(backend, gpus_per_stack)
    named = claims.definitions(tuple(only)) if only else claims.tour()
    chosen = [d for d in named if all(scale in load_spec(name).scales for name in d.specs)]
    if not chosen:
        raise UserError(f"no claim chosen has a scale {scale!r}; the scales are smoke, laptop and, for most claims, hours and gpu")
    if chosen != named:
        print(f"not measured at scale {scale}: {', '.join(d.id for d in named if d not in chosen)}", file=sys.stderr)
    specs = dict.fromkeys(name for definition in chosen for name in definition.specs)
    configs = [config for name in specs for config in load_spec(name).configs(scale)]
    runs = _store(store)
    _train(configs, runs, workers, _device(device, scale, backend), backend, gpus_per_stack)
    measured = claims.live(runs.path or runs.address, scale, tuple(d.id for d in chosen))
    print_json([claim.to_dict() for claim in measured]) if json_ else _print_claims(measured)


@app.command()
def sweep(spec: Annotated[str, typer.Argument(help="Name of a spec that comes with the kit, or path of a .toml file.")],
          scale: Scale = "laptop", store: Store = None, workers: Workers = None, device: Device = "auto", backend: Backend = "processes",
          gpus_per_stack: Share = 1.0,
          status: Annotated[bool, typer.Option("--status", help="Only say how far these runs are, whoever trains them and wherever.")] = False,
          dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the runs, their FLOPs and the time they would take.")] = False,
          export: Annotated[Optional[Path], typer.Option(help="Write the table of runs here (.parquet or .csv).")] = None) -> None:
    """Train the runs of a spec that are missing.

    Those already in the store are kept. Several sweeps, on several machines, may share one store: each run is trained once.

    Example: minitransformer sweep ladder --scale laptop --dry-run

    Example: minitransformer sweep ladder --store /shared/runs, and from anywhere else: the same with --status
    """
    from .sweeps.grid import load_spec
    from .sweeps.store import run_table
    from .sweeps.tune import lines

    _check_backend(backend, gpus_per_stack)
    if export and export.suffix not in (".parquet", ".csv"):
        raise UserError(f"cannot export to {export}: the name must end in .parquet or .csv")
    loaded, runs = load_spec(spec), _store(store)
    configs = loaded.expected(scale, runs)
    if status:
        from .sweeps.progress import status_lines
        if runs.path is not None and not runs.path.is_dir():
            raise UserError(f"no store at {runs}: nothing has been trained there yet, or --store names another folder")
        print("\n".join(status_lines(configs, runs)))
        return
    if dry_run:
        _dry_run(loaded, scale, runs, workers)
        return
    for configs in loaded.rounds(scale, runs):  # one, and more where the spec tunes
        _train(configs, runs, workers, _device(device, scale, backend), backend, gpus_per_stack, loaded.stage(scale, runs))
    for line in lines(loaded.tuning(scale, runs)):
        print(line, file=sys.stderr)
    if export:
        table = run_table(runs.runs(configs), scale)
        if loaded.tune:
            table["trial"] = ~table.id.isin([config.id for config in loaded.final(scale, runs)])
        try:
            export.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(export, index=False) if export.suffix == ".parquet" else table.to_csv(export, index=False)
        except OSError as problem:
            raise UserError(f"cannot write {export}: {problem.strerror}") from None


for law_command in (cli_laws.fit, cli_laws.plan, cli_laws.diagnose, cli_laws.design):
    app.command()(law_command)
app.command()(cli_labs.grade)


@app.command("claims")
def claims_command(check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a number differs from the accepted ones.")] = False,
                   only: Annotated[Optional[list[str]], typer.Option(help="A claim's id, or the beginning of one.")] = None,
                   json_: AsJson = False) -> None:
    """Rebuild every number of the book.

    They come from the committed runs; nothing is trained. The accepted numbers are minitransformer/reference/claims.json; `claims --json` writes what would replace them.
    """
    from . import claims

    chosen = tuple(only or ())
    measured = claims.committed(chosen)
    if check:
        lines = claims.drift(measured, only=chosen)
        if lines:
            print("\n".join(lines), file=sys.stderr)
            raise typer.Exit(1)
        print(f"{len(measured)} claim{'s' * (len(measured) != 1)} rebuilt from the committed runs: no drift")
        return
    print_json([claim.to_dict() for claim in measured]) if json_ else _print_claims(measured)


@data_app.command("list")
def data_list(json_: AsJson = False) -> None:
    """List the data the kit knows.

    Where each comes from, its licence and its size. In place of a name, the path of any text file works, and so does that of
    a folder of images or recordings, or of a tab-separated file of pairs (.tsv).
    """
    from .data.sources import describe

    rows = describe()
    if json_:
        print_json(rows)
        return
    for row in rows:
        size = f"{row['download_mb']:g} MB to download, " if row["download_mb"] else ""
        print(f"{row['name']}  ({'here' if row['available'] else 'not fetched'}; {size}{row['built_mb']:g} MB of {row['domain']})")
        print(f"  {row['summary']}\n  {row['origin']}\n  {row['licence']}\n")


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument(help="A name from `minitransformer data list`.")]) -> None:
    """Fetch and verify a data set, and print where it is."""
    from .data.sources import get

    print(get(name))


def main() -> None:
    """Run the command line; every error a user can mend is one line on standard error."""
    try:
        status = app(standalone_mode=False)
        if status == 130:  # what typer makes of an interrupt
            _fail(STOPPED, 130)
    except UserError as problem:
        status = _fail(str(problem), 2)
    except KeyboardInterrupt:
        status = _fail(STOPPED, 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as problem:
        if type(problem).__name__ == "Abort":
            status = _fail(STOPPED, 130)
        elif type(problem).__name__ == "NoArgsIsHelpError":
            print(problem.format_message())
            status = 0
        elif hasattr(problem, "format_message"):  # typer's own words on a misused command line
            status = _fail(f"{problem.format_message()} Try --help.", 2)
        else:
            raise
    sys.exit(status or 0)


def _fail(message: str, status: int) -> int:
    print("minitransformer: " + " ".join(message.split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

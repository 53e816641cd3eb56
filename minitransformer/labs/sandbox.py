"""Runs a submission's cells in a process of their own, with limits of time, memory and files, without network where that is allowed.

What this guards against is accident and idleness: endless loops, full memories, floods of output, a wish for the network, a look at the
environment's variables. It is no wall against an attacker: the code runs as the user who grades and reads what that user can read, and
the hidden tests run in its process. Grade strangers' code in a container or as a user who owns nothing.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Sequence

from ..data.cache import cache_dir
from ..errors import UserError

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
MOST_LINES = 10_000
PATIENCE = 4  # a cell may take so many times its processor time by the clock
GRACE = 1.0   # seconds for it to end by itself


class Cell(NamedTuple):
    id: str
    code: str


@dataclass(frozen=True)
class Limits:
    """Processor seconds of one cell; seconds of a whole submission by the clock; bytes of memory and of each file it writes."""

    cell_seconds: float = 60
    seconds: float = 600
    memory: int = 4 * 2**30
    file: int = 64 * 2**20


@dataclass
class Outcome:
    """What became of each cell (ok, error, time, memory, died), what it said, whether there was no network, and the seconds taken."""

    how: dict[str, str] = field(default_factory=dict)
    message: dict[str, str] = field(default_factory=dict)
    alone: bool = False
    seconds: float = 0.0


def run(cells: Sequence[Cell], limits: Limits = Limits(), modules: Sequence[str] = ()) -> Outcome:
    """Runs cells in order in one namespace. One that runs out of time or memory, or ends the process, is left out and the rest run anew.

    modules: what the lab's own cells import; it is imported once for all submissions, on Linux.
    """
    if os.name != "posix":
        raise UserError("grading runs students' code with limits that Windows lacks; use WSL, Linux or macOS")
    start, outcome, blocked = time.monotonic(), Outcome(), {}
    warm = tuple(modules) if sys.platform.startswith("linux") else ()
    while True:
        left = limits.seconds - (time.monotonic() - start)
        attempt = _once([cell for cell in cells if cell.id not in blocked], limits, left, warm)
        outcome.how, outcome.message, outcome.alone = attempt.how, attempt.message, attempt.alone
        for how, message in ((outcome.how, 0), (outcome.message, 1)):
            how.update({id_: reason[message] for id_, reason in blocked.items()})
        fatal = next((id_ for id_, how in attempt.how.items() if how in ("time", "memory", "died") and id_ not in blocked), None)
        outcome.seconds = time.monotonic() - start
        if fatal is None or outcome.seconds >= limits.seconds:
            return outcome
        blocked[fatal] = (attempt.how[fatal], attempt.message[fatal])


class Worker:
    """The process that forks for each submission. It is started when first needed, and ends with this one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None

    def fork(self, job: int, results: int, modules: Sequence[str]) -> int:
        """The number of a new process that reads a job from one file descriptor and writes its results to the other."""
        with self.lock:
            for _ in range(2):
                if self.process is None or self.process.poll() is not None:
                    self._start()
                try:
                    socket.send_fds(self.orders, [json.dumps(list(modules)).encode()], [job, results])
                    return int(self.orders.recv(32))
                except (OSError, ValueError):
                    self.process.kill()
                    self.process.wait()
        raise UserError("the process that runs what was handed in does not start; is there memory left?")

    def _start(self) -> None:
        self.orders, theirs = socket.socketpair()
        self.home = tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True)
        command = [sys.executable, "-I", str(Path(__file__).with_name("worker.py")), str(ROOT)]
        with theirs:
            self.process = subprocess.Popen(command, cwd=self.home.name, env=_environment(self.home.name), stdin=theirs, start_new_session=True,
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


WORKER = Worker()


def _once(cells: Sequence[Cell], limits: Limits, seconds: float, modules: Sequence[str], alone: bool = True) -> Outcome:
    """One process, from its start to its end or to that of its time."""
    word, outcome = secrets.token_hex(16), Outcome()
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as home:
        job = {"word": word, "alone": alone, "home": home, "environment": _places(home), "cells": [cell._asdict() for cell in cells],
               "memory": limits.memory, "file": limits.file, "seconds": seconds, "cell_seconds": limits.cell_seconds, "patience": PATIENCE}
        (job_out, job_in), (results_out, results_in) = os.pipe(), os.pipe()
        process = WORKER.fork(job_out, results_in, modules)
        os.close(job_out)
        os.close(results_in)
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_listen, args=(open(results_out, "rb"), lines), daemon=True).start()
        begun, done, started = None, False, False
        deadline = cell_deadline = time.monotonic() + seconds
        try:
            try:
                with open(job_in, "wb") as file:
                    file.write(json.dumps(job).encode())
            except BrokenPipeError:
                pass
            while not done:
                line = lines.get(timeout=max(min(deadline, cell_deadline) - time.monotonic(), 0.01))
                if not line:
                    break
                try:
                    said = json.loads(line)
                    if said.pop("word") != word:
                        continue
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
                if "alone" in said:
                    outcome.alone, started = said["alone"], True
                elif "begin" in said:
                    begun, cell_deadline = said["begin"], time.monotonic() + PATIENCE * limits.cell_seconds + GRACE
                elif "end" in said:
                    cell_deadline = deadline
                    outcome.how[said["end"]], outcome.message[said["end"]], begun = said["how"], said["message"], None
                    done = said["how"] in ("time", "memory")
                else:
                    done = True
            end = ("died", "it ended the program")
        except queue.Empty:
            deaf = time.monotonic() < deadline
            end = ("time", f"stopped after {limits.cell_seconds:g} seconds" if deaf else "the submission ran out of time here")
        finally:
            _kill(process)
    if not started and alone and deadline > time.monotonic():
        return _once(cells, limits, deadline - time.monotonic(), modules, alone=False)
    if not done and begun is not None:
        outcome.how[begun], outcome.message[begun] = end
    return outcome


def _listen(pipe, lines: queue.Queue) -> None:
    """Passes on lines of at most 64 kB, so many and no more, and an empty one at the end."""
    with pipe:
        for _ in range(MOST_LINES):
            line = pipe.readline(2**16)
            lines.put(line)
            if not line:
                return
    lines.put(b"")


def _kill(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _places(home: str) -> dict[str, str]:
    """Where one submission has its home, its temporary files and its runs."""
    return {"HOME": home, "TMPDIR": home, "MINITRANSFORMER_STORE": f"{home}/runs"}


def _environment(home: str) -> dict[str, str]:
    """Nothing of the grader's own but where programs and the kit's data are."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    _copy_fonts(f"{home}/matplotlib")
    return {**kept, **_places(home), **threads, "MPLCONFIGDIR": f"{home}/matplotlib", "MPLBACKEND": "agg", "MINITRANSFORMER_DATA": str(cache_dir()),
            "MINITRANSFORMER_SCALE": "smoke", "MINITRANSFORMER_QUIET": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _copy_fonts(folder: str) -> None:
    """matplotlib's list of fonts, which takes it seconds to make."""
    import matplotlib

    Path(folder).mkdir()
    for path in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        shutil.copy(path, folder)

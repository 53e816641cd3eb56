"""Fifty students at the capstone's server at once, while it is killed with SIGKILL and started again: is every account right?

    python benchmarks/capstone_load.py [--threads 50] [--accounts 25] [--questions 40] [--kills 5] [--seed 0]

The server is the command `minitransformer capstone serve` in a process of its own, on the loopback. Two threads share an
account and ask partly for the same trainings, as one student with two notebooks would; budgets are so small that they run out.
Kills strike when so many questions are answered, in mid-load; after every other one half a line is added to the log, as a
power cut might leave it. The students' calls repeat what got no answer, and know nothing else of the kills.

Then the log, what the students were told and what the server says of each account are compared. Exit code 1 when an account
is overdrawn, an answer was lost, changed, charged twice or charged without being told.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from minitransformer.capstone import Service, accounts, service as calls
from minitransformer.capstone.ledger import NAME, parse
from minitransformer.capstone.trainings import Refusal
from minitransformer.files import cores

BUDGET = 4 * 10**11
COMMAND = (sys.executable, "-m", "minitransformer.cli", "capstone", "serve")
TORN = b'{"time": "2000-01-01T00:00:00.000+00:00", "student": "s0", "kind": "ans'
STARTING = 300.0        # seconds
calls.PATIENCE = 600.0  # a start of the server may take long on a busy machine


class Class:
    """A server on a port of its own, its accounts and its log."""

    def __init__(self, folder: Path, n_accounts: int):
        self.folder, self.log = folder, folder / "log"
        self.accounts = accounts.add(folder / "accounts.csv", [f"s{i}" for i in range(n_accounts)], BUDGET)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [*COMMAND, "--accounts", str(self.folder / "accounts.csv"), "--log", str(self.log), "--port", str(self.port)]
        with (self.folder / "server.err").open("a") as err:
            self.process = subprocess.Popen(command, stdout=err, stderr=err)
        until = time.monotonic() + STARTING
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server does not start: {(self.folder / 'server.err').read_text()[-500:]}")
            time.sleep(0.02)

    def kill(self, torn: bool = False) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if torn:
            with (self.log / NAME).open("ab") as file:
                file.write(TORN)


@dataclass
class Told:
    """What one thread was told: answers by id, refusals by status, seconds of each call."""

    student: str
    answers: dict[str, dict] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    error: str = ""


def study(url: str, token: str, told: Told, questions: int, seed: int, count: threading.Semaphore) -> None:
    """Ask for trainings at random, cheap ones and dear ones, often one that the other thread of the account asks for too."""
    random_ = random.Random(seed)
    try:
        service = Service.remote(url, token)
        for _ in range(questions):
            width, steps = random_.choice([6, 8, 10, 12, 16, 20, 24, 32]), random_.choice([500, 700, 1000, 1500, 2000, 4000])
            begun = time.monotonic()
            try:
                answer = service.train(width=width, steps=steps, seed=random_.randrange(2))
                told.answers[answer.id] = asdict(answer)
            except Refusal as no:
                told.refused.append(no.status)
            told.seconds.append(time.monotonic() - begun)
            count.release()
    except Exception as problem:  # reported by `problems`, not lost with its thread
        told.error = f"{type(problem).__name__}: {problem}"
        for _ in range(questions):
            count.release()


def attack(folder: Path, threads: int, n_accounts: int, questions: int, kills: int, seed: int = 0) -> tuple[Class, list[Told], float]:
    """The class after everybody has asked everything, the server running; what each was told; the seconds it took."""
    there, count = Class(folder, n_accounts), threading.Semaphore(0)
    told = [Told(there.accounts[i % n_accounts].student) for i in range(threads)]
    students = [threading.Thread(target=study, args=(there.url, there.accounts[i % n_accounts].token, told[i], questions, seed * 1000 + i, count), daemon=True)
                for i in range(threads)]
    begun = time.monotonic()
    for student in students:
        student.start()
    for kill in range(kills):
        for _ in range(threads * questions // (kills + 1)):
            count.acquire()
        there.kill(torn=kill % 2 == 0)
        there.start()
    for student in students:
        student.join()
    return there, told, time.monotonic() - begun


def problems(there: Class, told: list[Told]) -> list[str]:
    """What is wrong between the log, the answers that were told, and the accounts as the server sees them; nothing, if nothing."""
    found = [f"a student of {t.student} failed: {t.error}" for t in told if t.error]
    entries, torn = parse(there.log / NAME)
    if torn:
        found.append("the log ends in a torn line")
    answers: dict[tuple[str, str], dict] = {}
    spent = dict.fromkeys(there.accounts.budgets, 0)
    for entry in entries:
        if entry["kind"] == "answer":
            key = entry["student"], entry["id"]
            if key in answers:
                found.append(f"{key} was charged twice")
            answers[key] = entry
            spent[entry["student"]] += entry["C"]
            if entry["left"] != there.accounts.budgets[entry["student"]] - spent[entry["student"]]:
                found.append(f"{key}: {entry['left']} FLOPs were said to be left, which is not what was")
    for student, budget in there.accounts.budgets.items():
        if spent[student] > budget:
            found.append(f"{student} is overdrawn by {spent[student] - budget}")
    heard = {(t.student, id): answer for t in told for id, answer in t.answers.items()}
    for t in told:
        for id, answer in t.answers.items():
            logged = answers.get((t.student, id))
            if logged is None:
                found.append(f"the answer {id} of {t.student} was told and is lost")
            elif any(logged[name] != value for name, value in answer.items()):
                found.append(f"the answer {id} of {t.student} is another one in the log")
    found += [f"{key} was charged and never told" for key in answers if key not in heard]
    for entry in there.accounts:
        account = Service.remote(there.url, entry.token).account
        if (account.spent, account.left) != (spent[entry.student], entry.budget - spent[entry.student]):
            found.append(f"the server says that {entry.student} spent {account.spent}, the log {spent[entry.student]}")
    return found


def main() -> int:
    options = argparse.ArgumentParser()
    for name, default in (("threads", 50), ("accounts", 25), ("questions", 40), ("kills", 5), ("seed", 0)):
        options.add_argument(f"--{name}", type=int, default=default)
    given = options.parse_args()
    busy = f", {os.getloadavg()[0]:.0f} other processes at work" if hasattr(os, "getloadavg") else ""
    with tempfile.TemporaryDirectory() as folder:
        there, told, seconds = attack(Path(folder), given.threads, given.accounts, given.questions, given.kills, given.seed)
        try:
            wrong, entries = problems(there, told), parse(there.log / NAME)[0]
        finally:
            there.kill()
    calls = sorted(s for t in told for s in t.seconds)
    refused = [status for t in told for status in t.refused]
    answered = sum(entry["kind"] == "answer" for entry in entries)
    print(f"{cores()} cores{busy}: python benchmarks/capstone_load.py {' '.join(sys.argv[1:])}".rstrip())
    print(f"{given.threads} threads, {given.accounts} accounts of {BUDGET:.0e} FLOPs, {given.kills} kills: {len(calls)} calls in {seconds:.1f} s, restarts included")
    print(f"{answered} trainings charged; {len(calls) - len(refused) - answered} calls for one that was already paid; "
          f"{refused.count(402)} refused for want of FLOPs, {len(refused) - refused.count(402)} for another reason")
    print(f"a call took {1000 * calls[len(calls) // 2]:.0f} ms (median), {1000 * calls[int(0.9 * len(calls))]:.0f} ms (nine in ten), "
          f"{max(calls):.1f} s at most, through a kill")
    print("\n".join(wrong) or "no account overdrawn; no answer lost, changed, charged twice or charged without being told")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

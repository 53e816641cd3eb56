"""Who asks, what it costs, and what is answered: the accounts of a class over one ledger."""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any, Mapping

from ..errors import UserError
from .challenge import Challenge
from .forecast import Forecast
from .ledger import Ledger
from .trainings import LARGEST, Refusal, Training, number, whole_seed

ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Answer:
    """What one training reached. N, D, C: parameters without embeddings, tokens, FLOPs (6 N D). loss: nats per character.

    source: "run", the loss of a real run of the kit, or "interpolated". noise, uncertainty: one standard deviation, as a share
    of the loss, of seeds there and of the interpolation (0 for a run). left: FLOPs in the account when it had been charged.
    """

    id: str
    N: int
    D: int
    C: int
    steps: int
    width: float
    seed: int
    loss: float
    source: str
    noise: float
    uncertainty: float
    left: int


@dataclass(frozen=True)
class Account:
    """FLOPs granted, spent and left, and how many trainings they went to."""

    student: str
    budget: int
    spent: int
    left: int
    answers: int


class Desk:
    """Answers questions and keeps the accounts: budgets in FLOPs by student.

    Threads may ask at once. Under one lock a question is charged, logged and only then answered, so that no account is
    overdrawn, and what the log does not hold was never told. A request is known by student and id: asked again, after a lost
    connection or a crash, it gets the same answer and is not charged again.
    """

    def __init__(self, challenge: Challenge, budgets: Mapping[str, int], ledger: Ledger):
        self.challenge, self._budgets, self._ledger, self._lock = challenge, dict(budgets), ledger, threading.Lock()
        self._answers: dict[str, dict[str, Answer]] = {}
        self._forecasts: dict[str, Forecast] = {}
        for line, entry in enumerate(ledger.entries, 1):
            try:
                if entry["kind"] == "answer":
                    self._answers.setdefault(entry["student"], {})[entry["id"]] = Answer(**{f.name: entry[f.name] for f in fields(Answer)})
                elif entry["kind"] == "forecast":
                    self._forecasts[entry["student"]] = Forecast.of(entry["forecast"])
            except (KeyError, TypeError, Refusal) as problem:
                raise UserError(f"line {line} of the log is no entry of this kit ({problem}): restore the log from a copy") from None

    def account(self, student: str) -> Account:
        with self._lock:
            return self._account(student)

    def answers(self, student: str) -> list[Answer]:
        """What this student was told, oldest first."""
        with self._lock:
            return list(self._answers.get(student, {}).values())

    def forecast(self, student: str) -> Forecast | None:
        with self._lock:
            return self._forecasts.get(student)

    def ask(self, student: str, id: Any, params: Any, steps: Any, seed: Any = 0) -> Answer:
        """Train, charge, log, answer. Refusal where the question is no question, out of range or too dear; it is logged too, and free."""
        if not (isinstance(id, str) and ID.fullmatch(id)):
            raise Refusal("id must be 1 to 64 letters, digits, dots, colons or dashes", 400)
        training = Training(_whole("params", params), _whole("steps", steps), whole_seed(seed))
        recipe = self.challenge.surface.recipe
        cost = recipe.flops(training)
        try:
            if cost > self.challenge.budget:
                raise Refusal(f"this training costs {cost:.4g} FLOPs: none above {self.challenge.budget:.4g} is answered")
            loss, reading = self.challenge.surface.loss(student, training)
        except Refusal as no:
            loss, reading = None, no
        with self._lock:
            if (before := self._answers.get(student, {}).get(id)) is not None:
                if (before.N, before.steps, before.seed) != (training.params, training.steps, training.seed):
                    raise Refusal(f"the id {id} was used for another training: {before.N:,} parameters, {before.steps:,} steps, seed {before.seed}", 409)
                return before
            account = self._account(student)
            question = {"id": id, "N": training.params, "steps": training.steps, "seed": training.seed, "C": cost}
            if not isinstance(reading, Refusal) and cost > account.left:
                reading = Refusal(f"this training costs {cost:.3g} FLOPs and {account.left:.3g} of {account.budget:.3g} are left", 402)
            if isinstance(reading, Refusal):
                self._log(student, "refused", **question, reason=str(reading))
                raise reading
            answer = Answer(id, training.params, recipe.tokens(training), cost, training.steps, round(recipe.width(training), 3), training.seed,
                            round(loss, 6), "run" if reading.seeds else "interpolated", round(reading.noise, 6), round(reading.uncertainty, 6),
                            account.left - cost)
            self._log(student, "answer", **asdict(answer))
            self._answers.setdefault(student, {})[id] = answer
            return answer

    def submit(self, student: str, forecast: Mapping[str, Any]) -> Forecast:
        """Keep a forecast; the last one counts."""
        checked = Forecast.of(forecast)
        with self._lock:
            self._log(student, "forecast", forecast=checked.to_dict())
            self._forecasts[student] = checked
        return checked

    def _account(self, student: str) -> Account:
        answers = self._answers.get(student, {}).values()
        spent = sum(answer.C for answer in answers)
        return Account(student, self._budgets[student], spent, self._budgets[student] - spent, len(answers))

    def _log(self, student: str, kind: str, **more: Any) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._ledger.append({"time": time, "student": student, "kind": kind, **more})


def _whole(name: str, value: Any) -> int:
    if (checked := number(name, value, LARGEST)) != int(checked):
        raise Refusal(f"{name} must be a whole number, not {checked!r}")
    return int(checked)

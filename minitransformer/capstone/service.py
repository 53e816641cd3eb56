"""The calls a student makes: the same in a notebook alone and against the server of a class."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ..errors import UserError
from .challenge import ladder
from .desk import Account, Answer, Desk
from .forecast import Forecast
from .ledger import Ledger
from .terms import Terms
from .trainings import LARGEST, Refusal, Training, number

if TYPE_CHECKING:
    import pandas as pd

PATIENCE = 60.0  # seconds in which a request that got no answer is repeated
SILENCE = 20.0   # seconds to wait for an answer


class Service:
    """A training service that answers a configuration with the loss it would reach, and charges its FLOPs.

        service = Service.local(student="ann")                      # in this process; everyone for themselves
        service = Service.remote("http://127.0.0.1:8765", token)    # the server of a class

        service.price(width=24, steps=2000)      # FLOPs, free
        service.train(width=24, steps=2000)      # an Answer, charged
        service.train(width=32, flops=1e11)
        service.table()                          # every answer so far, ready for laws.fit
        service.submit({"params": ..., "best": (loss, low, high), "oversized": ..., "dearest": ...})

    A training is a size (width or params) and a length (steps or tokens), or one of these and its flops; and a seed. The same
    training again is the same answer, free of charge: a notebook may be run again from its top. What is not answered raises
    UserError, one line, and is not charged.
    """

    def __init__(self, line: Line):
        self._line = line
        self.terms: Terms = line.terms()

    @classmethod
    def local(cls, student: str = "me", budget: float | None = None, log: str | Path | None = None) -> Service:
        """An account in this process. budget: FLOPs, a thirtieth of the target unless given. log: a folder that keeps it for the next time."""
        challenge = ladder()
        granted = challenge.budget if budget is None else int(number("budget", budget, LARGEST * 10**6))
        return cls(_Local(student, Desk(challenge, {student: granted}, Ledger(None if log is None else Path(log)))))

    @classmethod
    def remote(cls, url: str, token: str) -> Service:
        """An account at the server of a class. Requests that get no answer are repeated for a minute, and charged once."""
        return cls(_Remote(url, token))

    def price(self, **training) -> int:
        """FLOPs of a training, without asking for it."""
        return self.terms.recipe.flops(self.terms.recipe.training(**training))

    def train(self, *, width=None, params=None, steps=None, tokens=None, flops=None, seed=0) -> Answer:
        """What a training reaches. Its FLOPs are charged, unless it was asked for before."""
        wanted = self.terms.recipe.training(width=width, params=params, steps=steps, tokens=tokens, flops=flops, seed=seed)
        return self._line.ask(f"{wanted.params}:{wanted.steps}:{wanted.seed}", wanted)

    @property
    def account(self) -> Account:
        return self._line.account()[0]

    def table(self) -> pd.DataFrame:
        """A row for every answer so far, oldest first: N, D, C, loss, seed and the other fields of Answer."""
        import pandas as pd
        return pd.DataFrame([asdict(answer) for answer in self._line.account()[1]], columns=list(Answer.__dataclass_fields__))

    def submit(self, forecast: dict[str, Any]) -> Forecast:
        """Hand in a forecast (forecast.py); the last one counts."""
        return self._line.submit(Forecast.of(forecast))


class Line(Protocol):
    """How a service reaches a desk."""

    def terms(self) -> Terms: ...
    def account(self) -> tuple[Account, list[Answer]]: ...
    def ask(self, id: str, training: Training) -> Answer: ...
    def submit(self, forecast: Forecast) -> Forecast: ...


class _Local:
    def __init__(self, student: str, desk: Desk):
        self.student, self.desk = student, desk

    def terms(self) -> Terms:
        return Terms.of(self.desk.challenge)

    def account(self) -> tuple[Account, list[Answer]]:
        return self.desk.account(self.student), self.desk.answers(self.student)

    def ask(self, id: str, training: Training) -> Answer:
        return self.desk.ask(self.student, id, training.params, training.steps, training.seed)

    def submit(self, forecast: Forecast) -> Forecast:
        return self.desk.submit(self.student, forecast.to_dict())


class _Remote:
    def __init__(self, url: str, token: str):
        parts = urlsplit(url)
        try:
            self.secure, self.host, self.port = parts.scheme == "https", parts.hostname, parts.port
        except ValueError:
            self.host = None
        if parts.scheme not in ("http", "https") or not self.host or not (token.isascii() and token.isprintable() and token):
            raise UserError("a service has an address such as http://127.0.0.1:8765, and a token as your instructor gave it to you")
        self.base, self.token, self.url = parts.path.rstrip("/"), token.strip(), url

    def terms(self) -> Terms:
        return Terms.from_dict(self._call("GET", "/v1/terms"))

    def account(self) -> tuple[Account, list[Answer]]:
        found = self._call("GET", "/v1/account")
        table = found.pop("table")
        return Account(**found), [Answer(**row) for row in table]

    def ask(self, id: str, training: Training) -> Answer:
        return Answer(**self._call("POST", "/v1/train", {"id": id, **asdict(training)}))

    def submit(self, forecast: Forecast) -> Forecast:
        return Forecast.of(self._call("POST", "/v1/forecast", forecast.to_dict()))

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request, repeated while it gets no answer; every request may be made twice without harm."""
        until, pause, why = time.monotonic() + PATIENCE, 0.1, ""
        while True:
            try:
                status, answer = self._once(method, path, body)
                if status == 200:
                    return answer
                if status not in (502, 503, 504):
                    raise Refusal(str(answer.get("error", f"status {status}")), status)
                why = str(answer.get("error", f"status {status}"))
            except (OSError, http.client.HTTPException, ValueError) as problem:
                why = f"{type(problem).__name__}: {problem}"
            if time.monotonic() + pause > until:
                raise UserError(f"no answer from {self.url}: {' '.join(why.split())[:200]}; nothing is lost, ask again later")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=SILENCE)
        try:
            text = None if body is None else json.dumps(body, allow_nan=False)
            connection.request(method, self.base + path, text, {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
            if not isinstance(answer, dict):
                raise ValueError("not an answer of this service")
            return reply.status, answer
        finally:
            connection.close()

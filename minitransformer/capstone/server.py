"""The capstone for a class: a small HTTP server over one desk.

    GET  /v1/terms      what may be asked, and what is to be foretold
    GET  /v1/account    the account, and every answer so far
    POST /v1/train      {"id", "params", "steps", "seed"}: an answer
    POST /v1/forecast   {"params", "best", "oversized", "dearest"}: kept; the last one counts

Each with `Authorization: Bearer TOKEN`. Answers are JSON, errors too: {"error": "one line"}. Bodies and headers are bounded,
a connection that is silent for a while is closed, and there are no more than CONNECTIONS at a time.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .. import __version__
from .accounts import Accounts
from .desk import Desk
from .terms import Terms
from .trainings import Refusal

LONGEST_BODY = 4096     # bytes
LONGEST_TOKEN = 256     # characters
CONNECTIONS = 256       # at a time; further ones wait for the kernel
SILENCE = 30.0          # seconds until a silent connection is closed


class Server(ThreadingHTTPServer):
    """Listens once it is made; `serve_forever` answers."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], desk: Desk, accounts: Accounts):
        self.desk, self.accounts = desk, accounts
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host}]' if ':' in str(host) else host}:{port}"

    def process_request(self, request, client_address) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request, client_address) -> None:
        """A client that went away is nobody's problem; anything else is a line on standard error."""
        problem = sys.exc_info()[1]
        if not isinstance(problem, (ConnectionError, TimeoutError)):
            print(f"capstone: {type(problem).__name__}: {problem}", file=sys.stderr)


class Server6(Server):
    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"minitransformer/{__version__}", ""
    timeout = SILENCE
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer({"/v1/terms": lambda student, _: Terms.of(self.server.desk.challenge).to_dict(),
                      "/v1/account": lambda student, _: {**asdict(self.server.desk.account(student)),
                                                         "table": [asdict(answer) for answer in self.server.desk.answers(student)]}})

    def do_POST(self) -> None:
        self._answer({"/v1/train": self._train, "/v1/forecast": lambda student, body: self.server.desk.submit(student, body).to_dict()})

    def _train(self, student: str, body: dict[str, Any]) -> dict[str, Any]:
        if not {"id", "params", "steps"} <= set(body) <= {"id", "params", "steps", "seed"}:
            raise Refusal("a training is asked for with id, params, steps and seed, and nothing else", 400)
        return asdict(self.server.desk.ask(student, **body))

    def _answer(self, ways: dict[str, Any]) -> None:
        try:
            body = self._body()
            student = self._student()
            if self.path not in ways:
                raise Refusal("there is nothing here: ask for /v1/terms, /v1/account, /v1/train or /v1/forecast", 404)
            status, answer = 200, ways[self.path](student, body)
        except Refusal as no:
            status, answer = no.status, {"error": str(no)}
        except Exception as problem:
            if isinstance(problem, (ConnectionError, TimeoutError)):
                raise
            print(f"capstone: {self.path[:80]}: {type(problem).__name__}: {problem}", file=sys.stderr, flush=True)
            status, answer = 500, {"error": "the server has a fault: tell your instructor, who finds it among the server's own messages"}
        self._send(status, answer)

    def _body(self) -> dict[str, Any]:
        """The body as an object; the connection is closed after one that was not read to its end."""
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise Refusal("a request needs a Content-Length", 411)
        if len(length) > 9 or int(length) > LONGEST_BODY:
            self.close_connection = True
            raise Refusal(f"a request has at most {LONGEST_BODY} bytes", 413)
        text = self.rfile.read(int(length))
        if self.command == "GET":
            return {}
        try:
            body = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise Refusal("the body is not JSON", 400) from None
        if not isinstance(body, dict):
            raise Refusal("the body is not a JSON object", 400)
        return body

    def _student(self) -> str:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        student = self.server.accounts.student(token.strip()) if kind == "Bearer" and len(token) <= LONGEST_TOKEN else None
        if student is None:
            raise Refusal("no account has this token", 401)
        return student

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        text = json.dumps(answer, allow_nan=False).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def send_error(self, code, message=None, explain=None) -> None:
        """What http.server itself refuses (a method, a broken request line, headers too long) in the same words."""
        self.close_connection, self.request_version = True, self.protocol_version  # else a broken request counts as HTTP/0.9
        self._send(int(code), {"error": message or self.responses.get(code, ("refused",))[0]})

    def log_message(self, *_) -> None:
        pass  # the ledger is the log


def _no_number(name: str) -> None:
    raise ValueError(name)


def bind(host: str, port: int, desk: Desk, accounts: Accounts) -> Server:
    """A server that listens. OSError where it cannot."""
    return (Server6 if ":" in host else Server)((host, port), desk, accounts)

"""The log of a class: one line of JSON for each thing that happened, on the disk before anybody is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import UserError
from .trainings import Refusal

NAME = "log.jsonl"
_open: dict[Path, Ledger] = {}  # of this process


class Ledger:
    """The file log.jsonl in a folder, held by one process at a time; without a folder nothing is kept. `entries` is what was
    in it when it was opened. Opened again in the same process, it is the earlier one that can no longer write.

    An entry is appended and flushed to the disk (fsync) before `append` returns. What a kill or a power cut left of a last
    line is cut off: it was never answered. Any other damage is for a person to look at: UserError. After a failed write nobody
    knows what is on the disk, so that nothing more is written until the log is opened again.
    """

    def __init__(self, folder: Path | None = None):
        self.entries: list[dict[str, Any]] = []
        self.cut = 0  # bytes of a damaged last line
        self._file: int | None = None
        self._broken = False
        if folder is None:
            return
        self.path = folder.absolute() / NAME
        try:
            if self.path in _open:
                _open[self.path].close()
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock", timeout=0)
            self._lock.acquire()
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
            self._read()
            os.ftruncate(self._file, os.fstat(self._file).st_size - self.cut)
            os.fsync(self._file)
            _keep_name(folder)
            _open[self.path] = self
        except Timeout:
            raise UserError(f"{folder} is in use: another server keeps its log there; stop that one, or name another folder") from None
        except OSError as problem:
            raise UserError(f"cannot keep a log in {folder}: {problem.strerror or problem}") from None

    def append(self, entry: dict[str, Any]) -> None:
        """Keep an entry. Calls must not overlap. Refusal with status 503 where that is impossible."""
        if self._broken:
            raise Refusal("the log of this class cannot be written, so nothing is answered: tell your instructor", 503)
        if self._file is None:
            return
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as problem:
            self._broken = True
            raise Refusal(f"the log of this class cannot be written ({problem.strerror}), so nothing is answered: tell your instructor", 503) from None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self._broken = None, True
            self._lock.release()
            _open.pop(self.path, None)

    def _read(self) -> None:
        self.entries, self.cut = parse(self.path)


def parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The entries of a log, and the length of a last line that is no entry. UserError for any other line that is none."""
    lines, entries = path.read_bytes().splitlines(keepends=True), []
    for i, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if not (line.endswith(b"\n") and isinstance(entry, dict) and isinstance(entry["student"], str) and isinstance(entry["kind"], str)):
                raise ValueError
        except (ValueError, KeyError):
            if i + 1 < len(lines):
                raise UserError(f"line {i + 1} of {path} is damaged: restore the log from a copy, or mend that line by hand") from None
            return entries, len(line)
        entries.append(entry)
    return entries, 0


def _keep_name(folder: Path) -> None:
    """Have the folder's own entry of a new file on the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""RunStore: finished runs as facts on disk, one JSON file each; and tables of runs."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Iterable

from .. import accounting
from ..errors import UserError
from ..files import replacing
from ..training.config import RunConfig
from ..training.run import Run

if TYPE_CHECKING:
    import pandas as pd


def default_store() -> Path:
    """The folder of runs: MINITRANSFORMER_STORE, else `runs` under the current folder."""
    return Path(os.environ.get("MINITRANSFORMER_STORE", "runs"))


class RunStore:
    """A folder with one file for each finished run, named by the run's id.

    A file is written under a temporary name and renamed, so it is whole or absent: whatever is
    killed, a finished run stays finished and an unfinished one leaves nothing behind that counts.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UserError(f"cannot keep runs in {self.path}: {problem.strerror}; name another folder with --store") from None

    def _file(self, config: RunConfig) -> Path:
        return self.path / f"{config.id}.json"

    def add(self, run: Run) -> None:
        advice = "The finished runs there are safe; free or unlock the folder and start again."
        with replacing(self._file(run.config), advice) as part:
            part.write_text(json.dumps(run.to_dict()))

    def get(self, config: RunConfig) -> Run | None:
        """The finished run of a config, or None. A damaged file counts as absent."""
        try:
            return Run.from_dict(json.loads(self._file(config).read_text()))
        except (OSError, ValueError, KeyError, UserError):
            return None

    def __contains__(self, config: RunConfig) -> bool:
        return self.get(config) is not None

    def runs(self, configs: Iterable[RunConfig]) -> list[Run]:
        """The finished runs among these configs, in their order."""
        return [run for config in configs if (run := self.get(config)) is not None]


def run_table(runs: Iterable[Run], scale: str = "") -> pd.DataFrame:
    """One row for each run: its config, counts N and C by convention, D, losses, curve and provenance.

    D is the number of tokens seen, unique_tokens the number there were to see.
    """
    import pandas as pd

    rows = []
    for run in runs:
        rows.append({
            "id": run.config.id, "scale": scale, "status": run.status, **run.config.to_dict(), "vocab_size": run.vocab_size,
            **accounting.count_parameters(run.parameters), **run.compute,
            "D": run.tokens, "unique_tokens": run.unique_tokens,
            "loss": run.final_loss, "best_loss": run.best_loss, "best_step": run.best_step,
            "bytes_per_token": run.bytes_per_token, "seconds": run.seconds, "device": run.device,
            **{f"curve_{name}": values for name, values in run.curve.items()},
            "versions": json.dumps(run.versions),
        })
    return pd.DataFrame(rows)


def reference_table(name: str) -> pd.DataFrame | None:
    """The committed table of runs of a spec, or None when there is none."""
    import pandas as pd

    path = resources.files("minitransformer") / "reference" / f"{name}.parquet"
    return pd.read_parquet(str(path)) if path.is_file() else None

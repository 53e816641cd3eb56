"""The benchmarks still run: their figures are kept beside them, and nobody notices a script that broke."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "script, options, said",
    [
        ("coverage.py", ("--ladders", "2"), "width  luck"),
        ("coverage_forms.py", ("--sweeps", "2", "--only", "power", "chinchilla", "--workers", "1"), "all rows but low floors"),
    ],
)
def test_a_coverage_table_is_printed(script, options, said):
    done = subprocess.run([sys.executable, f"benchmarks/{script}", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout and len(done.stdout.splitlines()) > 5

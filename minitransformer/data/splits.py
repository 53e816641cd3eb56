"""Fixed, disjoint splits of examples: what every domain's builder returns, and the shuffle they share."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

SEED = "minitransformer splits"
LEAST_EXAMPLES = 30

Files = Iterable[tuple[str, bytes]]  # name and content of each file that a data set is built of, in order of names
Split = dict[str, np.ndarray]


class WrongFile(Exception):
    """A file of a data set that does not hold what it should: its text names the file and says what is wrong."""


class Parts(NamedTuple):
    """What a builder makes: three splits, each a row for every example in every array, and what the integers stand for."""

    train: Split
    val: Split
    test: Split
    symbols: dict[str, tuple[str, ...]]


def shuffled(n: int) -> list[int]:
    """The numbers below n in the order of the SHA-256 of each: a shuffle that no version of Python or NumPy changes."""
    return sorted(range(n), key=lambda i: hashlib.sha256(f"{SEED} {i}".encode()).digest())


def mixed(rows: Iterable[int]) -> list[int]:
    """The same rows, sorted and then shuffled."""
    ordered = sorted(rows)
    return [ordered[i] for i in shuffled(len(ordered))]


def divide(groups: Sequence[Sequence[int]], val: int, test: int) -> tuple[list[int], list[int], list[int]]:
    """Rows of training, validation and test: whole groups are drawn until the last two have so many rows or a few more.

    A group of more rows than either is training. The rows of each split are then shuffled one by one, so that any prefix
    of them is a random subset.

    Raises: WrongFile when there are fewer than 30 rows, or when too few are in groups that can be drawn.
    """
    if (n := sum(map(len, groups))) < LEAST_EXAMPLES:
        raise WrongFile(f"too few examples: {n}, and at least {LEAST_EXAMPLES} are needed")
    order = [i for i in shuffled(len(groups)) if len(groups[i]) <= max(val, test)]

    def draw(size: int) -> list[int]:
        rows: list[int] = []
        while len(rows) < size:
            if not order:
                raise WrongFile(f"too many examples are joined to one another by equal sides: of {n} no {val + test} can be held out")
            rows += groups[order.pop()]
        return rows

    of_test, of_val = draw(test), draw(val)
    drawn = {*of_test, *of_val}
    return mixed(row for group in groups for row in group if row not in drawn), mixed(of_val), mixed(of_test)


def components(pairs: Iterable[tuple[Hashable, Hashable]]) -> Iterator[list[int]]:
    """Rows joined by equal sides: two pairs whose first, or whose second, sides are equal are in one group."""
    parent: dict[tuple[int, Hashable], tuple[int, Hashable]] = {}

    def root(side: tuple[int, Hashable]) -> tuple[int, Hashable]:
        while parent.setdefault(side, side) != side:
            parent[side] = side = parent[parent[side]]
        return side

    firsts = []
    for first, second in pairs:
        firsts.append((0, first))
        parent[root((0, first))] = root((1, second))
    groups: dict[tuple[int, Hashable], list[int]] = {}
    for row, side in enumerate(firsts):
        groups.setdefault(root(side), []).append(row)
    yield from groups.values()


def padded(rows: Sequence[Sequence[int]], length: int, dtype: type) -> np.ndarray:
    """(n, length) integers, each row filled with 0 at its end."""
    table = np.zeros((len(rows), length), dtype)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table

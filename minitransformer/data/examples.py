"""Data sets of examples (images, pairs of sentences, recordings) in fixed, disjoint splits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minitransformer.errors import UserError


@dataclass(frozen=True)
class Examples:
    """A data set of examples in fixed, disjoint splits. Every array of a split has one row for each example."""

    name: str
    fingerprint: str                       # SHA-256 of the built arrays
    domain: str                            # "images", "translation", "speech"
    train: dict[str, np.ndarray] = field(repr=False)  # any prefix of its rows is a random subset of it; a shorter one is part of a longer one
    val: dict[str, np.ndarray] = field(repr=False)
    test: dict[str, np.ndarray] = field(repr=False)
    symbols: dict[str, tuple[str, ...]]    # what the integers stand for


def load_examples(name: str) -> Examples:
    """Raises: UserError."""
    raise UserError(f"There is no data set of examples named {name!r}.")

"""Derived seeds: every random draw of the project starts here."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(use: str, *names: object) -> int:
    """A seed in [0, 2**63) for one named use, e.g. ``derive_seed("shots", "ksdd2", fold, draw)``.

    Different uses never share a stream, and the same names give the same seed on every machine: the value is read off a
    SHA-256 of the names, not off Python's randomised ``hash``.
    """
    text = "\x1f".join([use, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(use: str, *names: object) -> np.random.Generator:
    """A NumPy generator seeded with `derive_seed`."""
    return np.random.default_rng(derive_seed(use, *names))

"""Derived seeds: the source of all randomness in augbench."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(use: str, *names: object) -> int:
    """Derive a seed in [0, 2**63) for one named use, e.g. ``derive_seed("shots", "ksdd2", fold, draw)``.

    The seed comes from a SHA-256 of the names, not from Python's randomised ``hash``: different uses get independent
    streams, and the same names give the same seed on every machine.
    """
    text = "\x1f".join([use, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(use: str, *names: object) -> np.random.Generator:
    """Return a NumPy generator seeded with `derive_seed`."""
    return np.random.default_rng(derive_seed(use, *names))

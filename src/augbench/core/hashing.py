"""Canonical JSON and SHA-256 digests, from which keys are derived."""

from __future__ import annotations

import hashlib
import json

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces: equal values give the same text on every machine."""
    return _CANONICAL.encode(value)


def digest(value: object) -> str:
    """Return the SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()

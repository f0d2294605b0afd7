"""Declare a setting together with its meaning and the source of its default, for `augbench augmenters show`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

OURS = "our choice"
"""The source of a default that neither a paper nor published code states."""


def setting(default: Any, meaning: str, source: str, **options: Any) -> Any:
    """Return the pydantic field of a setting.

    Args:
        default: its value; ``...`` makes the setting required.
        meaning: what it does, with the unit.
        source: where the default comes from: a paper and its section, published code, or `OURS`.
        **options: limits and the like, passed to ``pydantic.Field``.
    """
    return Field(default, description=meaning, json_schema_extra={"source": source}, **options)

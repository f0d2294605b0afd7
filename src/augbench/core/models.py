"""The base of all models that users fill in: strict about keys, and about what becomes a number."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator


class StrictModel(BaseModel):
    """Frozen; refuses unknown keys, infinity, NaN, and true or false where a number is expected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_number_from_a_truth_value(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """Refuse what pydantic does quietly: ``lr: yes`` would be the learning rate 1."""
        validated = handler(value)
        _compare(value, validated)
        return validated


def _compare(given: Any, validated: Any) -> None:
    if isinstance(given, bool):
        one = validated[0] if isinstance(validated, (list, tuple)) and len(validated) == 1 else validated
        if isinstance(one, (int, float)) and not isinstance(one, bool):
            raise ValueError(f"a number is expected, and YAML reads this as {str(given).lower()}")
    elif isinstance(given, (list, tuple)) and isinstance(validated, (list, tuple)) and len(given) == len(validated):
        for pair in zip(given, validated, strict=True):
            _compare(*pair)
    elif isinstance(given, dict) and isinstance(validated, dict):
        for key in given.keys() & validated.keys():
            _compare(given[key], validated[key])

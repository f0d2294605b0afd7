"""The base of all models that users fill in: strict about keys, and about what becomes a number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator

from augbench.core.errors import UserError


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


def _read_ids(given: Any) -> Any:
    """Read a file of ids, one per line; sort ids and drop repeats. What is no text and no list is left as it is."""
    if isinstance(given, str):
        try:
            given = [line.strip() for line in Path(given).expanduser().read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise UserError(f"ids: '{given}' cannot be read ({why}): name a text file with one id per line") from None
    is_list = isinstance(given, (list, tuple)) and all(isinstance(one, str) for one in given)
    return tuple(sorted({one for one in given if one})) if is_list else given


class NamedIds(StrictModel):
    """Samples of a dataset by their ids: ``{ids: FILE}``, a text file with one per line, or the ids themselves."""

    ids: Annotated[tuple[str, ...], BeforeValidator(_read_ids)] = Field(
        min_length=1,
        description="a text file with one id per line, or the ids themselves",
        json_schema_extra={"source": "our choice"},
    )

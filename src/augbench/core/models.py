"""The base of all models that users fill in: strict about keys, and about what becomes a number."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from augbench.core.errors import UserError, brief, did_you_mean


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

    def _repr_html_(self) -> str:
        """Return a table for notebooks: each field that was given another value than its default."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        lines = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in texts.items())
        return f"<table>{''.join(lines)}</table>"


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


# -- what is wrong, in one sentence


def first_problem(error: ValidationError, model: type[BaseModel], written: str | None = None) -> str:
    """Format the first problem of a pydantic error as one sentence.

    Args:
        error: of validating a value.
        model: the model of the value.
        written: the text of the wrong value as it stands in a file, where that is known.
    """
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    given = problem["input"]
    if problem["type"] == "extra_forbidden":
        *above, last = problem["loc"]
        fields = _fields_at(model, above)
        hint = f" (did you mean '{fields[last]}'?)" if last in fields else did_you_mean(str(last), fields.values())
        return f"unknown key '{brief(where)}'{hint}"
    if problem["type"] == "missing" or (problem["type"] == "too_short" and not given):
        return f"'{where}' is missing or empty"
    if problem["type"] == "string_pattern_mismatch":
        rule = "may contain letters, digits and underscores, and must begin with a letter"
        return f"'{where}': '{brief(given)}' {rule}"
    if problem["type"] == "value_error":
        return f"'{where}': {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
    if problem["type"] in ("string_type", "path_type") and isinstance(given, (bool, int, float)):
        return f"'{where}': {needs_quotes(given, written)}"
    for place, step in enumerate(problem["loc"]):
        if step in _NUMBER_OR:
            where = ".".join(map(str, problem["loc"][: place + 1]))
            return f"'{where}': {_NUMBER_OR[step]} (got {brief(repr(given))})"
    return f"'{where}': {problem['msg'][0].lower()}{problem['msg'][1:]} (got {brief(repr(given))})"


def needs_quotes(value: bool | float, written: str | None = None) -> str:
    """Say how to write a text that YAML takes for a number or a truth value; ``written``: as it stands in the file."""
    read = "a number" if not isinstance(value, bool) else "true" if value else "false"
    if written is None and isinstance(value, bool):  # yes, on, true, ...
        return f"a text is expected, and YAML reads this as {read}: put it into quotes (on a command line '\"...\"')"
    text = brief(json.dumps(value) if written is None else written)
    way_out = f'write "{text}" with its quotes (on a command line \'"{text}"\')'
    return f"a text is expected, and YAML reads {text} as {read}: {way_out}"


def _fields_at(model: type[BaseModel] | None, location: Iterable[str | int]) -> dict[str | int, str]:
    """Map the fields of the model at a location of a validation error to their spelling in files; {} if unknown."""
    for step in location:
        if isinstance(step, int) or model is None:
            continue
        field = next((f for name, f in model.model_fields.items() if step in (name, f.alias)), None)
        model = _model_in(field.annotation) if field else None
    if model is None:
        return {}
    return {name: field.alias or name for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


_NUMBER_OR: dict[str | int, str] = {
    "shots": "a number from 0 on, {ids: FILE}, or 'all'",
    "C": "a number above 0, or 'cv'",
    "synthetic_weight": "a number above 0, 'equal_mass' or 'cv'",
    "trained_on": "{ids: FILE}, or 'unknown'",
}
"""Fields that take one of several kinds of values: pydantic would report each alternative on its own."""

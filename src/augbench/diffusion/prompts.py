"""Prompt sets: small YAML files with prompts and a negative prompt. Some are shipped with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from augbench.core.documents import parse_yaml
from augbench.core.errors import UserError, did_you_mean
from augbench.core.models import StrictModel, first_problem

FOLDER = Path(str(resources.files("augbench"))) / "assets" / "prompts"
"""The shipped prompt sets, a file each."""

UNKNOWN = "unknown"
"""What prompts were chosen by looking at, where nobody recorded it."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class PromptSet(StrictModel):
    """Content of a prompt file."""

    prompts: tuple[Text, ...] = Field(min_length=1)
    negative_prompt: str = ""  # what guidance steers away from
    about: str = ""  # prose
    source: str = ""  # prose: origin of the prompts
    chosen_by: Text = UNKNOWN  # prose: what they were chosen by looking at, e.g. "training images"

    @property
    def identity(self) -> dict[str, Any]:
        """Return the fields that decide images, as JSON values for keys: without name, path and prose."""
        return self.model_dump(mode="json", include={"prompts", "negative_prompt"})


def prompt_set_names() -> list[str]:
    """Return the names of the shipped prompt sets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_prompts(name_or_file: str) -> PromptSet:
    """Read a shipped prompt set by name, or one from a YAML file.

    Raises:
        UserError: it does not exist, or the file is not a prompt set.
    """
    names = prompt_set_names()
    is_file = Path(name_or_file).suffix in (".yaml", ".yml")
    path = Path(name_or_file) if is_file else FOLDER / f"{name_or_file}.yaml"
    if not is_file and name_or_file not in names:
        hint = did_you_mean(name_or_file, names)
        raise UserError(f"prompt set '{name_or_file}' does not exist{hint}: give such a name or a .yaml file")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"prompts '{path}' cannot be read ({error.strerror}): give a .yaml file of prompts") from None
    except UnicodeDecodeError:
        raise UserError(f"prompts '{path}' is not UTF-8: save it as UTF-8") from None
    document = parse_yaml(text, f"prompts '{path}'")
    if not isinstance(document.value, dict):
        raise UserError(f"prompts '{path}': expected the keys 'prompts' and 'negative_prompt' at the top")
    try:
        return PromptSet(**document.value)
    except ValidationError as error:
        place, written = document.at(error.errors()[0]["loc"])
        raise UserError(f"{place}: {first_problem(error, PromptSet, written)}") from None

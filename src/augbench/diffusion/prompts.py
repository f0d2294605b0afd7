"""Prompt sets: small YAML files with prompts and a negative prompt. Some are shipped with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from augbench.core.errors import UserError, did_you_mean
from augbench.core.protocol import first_problem

FOLDER = Path(str(resources.files("augbench"))) / "assets" / "prompts"
"""The shipped prompt sets, a file each."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class PromptSet(BaseModel):
    """Content of a prompt file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: tuple[Text, ...] = Field(min_length=1)
    negative_prompt: str = ""  # what guidance steers away from
    about: str = ""  # prose
    source: str = ""  # prose: origin of the prompts

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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"prompts '{path}' cannot be read ({error.strerror}): give a .yaml file of prompts") from None
    except UnicodeDecodeError:
        raise UserError(f"prompts '{path}' is not UTF-8: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"prompts '{path}' is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"prompts '{path}': expected the keys 'prompts' and 'negative_prompt' at the top")
    try:
        return PromptSet(**content)
    except ValidationError as error:
        raise UserError(f"prompts '{path}': {first_problem(error, PromptSet)}") from None
    except TypeError:
        raise UserError(
            f"prompts '{path}': a key is not a string: the keys are {', '.join(PromptSet.model_fields)}"
        ) from None

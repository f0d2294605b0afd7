"""Published numbers of papers: reads and validates the files of the package.

A paper is two files in ``assets/papers``: a CSV with one line per printed row, and a YAML file with everything else
about its tables. A further paper needs no code.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from math import nan
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augbench.core.errors import UserError
from augbench.core.models import first_problem
from augbench.report.numbers import Stat

FOLDER = resources.files("augbench") / "assets" / "papers"
METRICS = ("ap", "precision", "recall")
COLUMNS = (
    *("paper", "table", "dataset", "augmenter", "shots", "n_aug"),
    *(f"{metric}{of}" for metric in METRICS for of in ("", "_std")),
    *("protocol", "copied_from", "ap_definition"),
)
AP_DEFINITIONS = {"trapezoidal": "trapezoidal", "step-wise": "step"}
"""First word of column ``ap_definition`` -> name in protocols."""


@dataclass(frozen=True)
class Reference:
    """A row of a paper's table."""

    dataset: str  # name in augbench, as for augmenter and protocol
    augmenter: str
    shots: int | str  # 0, a number, or "all"
    n_aug: int
    stats: Mapping[str, Stat]  # each of `METRICS`, in [0, 1]; NaN where the paper prints a dash
    protocol: str
    copied_from: str  # "" where the paper measured it itself
    ap_words: str  # definition of AP, and how it is known

    @property
    def source_paper(self) -> str:
        """Name of the files of the paper that it was copied from; "" where the paper measured it itself."""
        return self.copied_from.partition(" table ")[0]

    @property
    def ap_definition(self) -> str:
        """Definition of AP by its name in protocols: ``trapezoidal`` or ``step``."""
        return AP_DEFINITIONS[self.ap_words.split()[0]]


class Fact(BaseModel):
    """A setting or protocol field of a paper's experiment, and how it is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    value: Any = Field(alias="is")  # as it would be set here
    same: tuple[Any, ...] = ()  # other values that mean the same
    known: Literal["stated", "published code", "inferred"]
    source: str = Field(min_length=1)

    def allows(self, value: Any) -> bool:
        """Whether a value, as JSON, is theirs."""
        return value == self.value or value in self.same


class PrintedTable(BaseModel):
    """Description of a table in the YAML file of a paper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    average: bool = False  # whether it prints the averages over N_aug > 0
    side_by_side: bool = False  # whether it prints two augmenters side by side


class About(BaseModel):
    """Description of a paper: the content of its YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short: str  # prefix of the names of its layouts
    name: str
    reference: str
    url: str
    protocol: str  # its protocol for training and evaluation, by name in augbench
    seeds: int | None = Field(ge=1)  # None: not stated
    prints_std: bool
    headings: tuple[str, str, str, str]  # over augmenters, AP, precision, recall
    printed_as: dict[str, str]  # augmenter in augbench -> name in the paper
    settings: dict[str, dict[str, Fact]] = {}  # augmenter -> setting (of a regime: few.epochs); others: not stated
    training: dict[str, Fact] = {}  # field of the protocol; others: not stated
    baselines: dict[str, str] = {}  # rows of methods that are not augmenters -> what they are
    not_stated: dict[str, str] = {}  # augmenter -> what the paper does not state, though it changes results
    sources: dict[str, str] = {}  # of copied rows: ``copied_from`` -> description
    tables: dict[int, PrintedTable] = Field(min_length=1)


@dataclass(frozen=True)
class Paper:
    """A paper: its description, and the rows of its tables in printed order."""

    key: str  # name of its files
    about: About
    rows: Mapping[int, tuple[Reference, ...]]  # table number -> rows

    @cached_property
    def layouts(self) -> dict[str, int]:
        """Name of a layout -> table number."""
        return {f"{self.about.short}_table{number}": number for number in self.rows}


def paper_names() -> list[str]:
    """List the papers by the names of their files, sorted."""
    names = (entry.name for entry in FOLDER.iterdir())
    return sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv"))


@cache
def load_paper(key: str) -> Paper:
    """Load the paper with files of that name from the package.

    Raises:
        UserError: a file is missing or damaged, with its line or field.
    """
    texts = []
    for suffix in (".yaml", ".csv"):
        try:
            texts.append((FOLDER / f"{key}{suffix}").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"'{key}{suffix}' is missing in the package: install augbench anew") from None
    return read_paper(key, *texts)


def read_paper(key: str, about: str, rows: str) -> Paper:
    """Parse a paper from the text of its YAML file and of its CSV.

    Raises:
        UserError: a field of ``about`` or a line of ``rows`` is invalid; the message names it.
    """
    described = _about(f"{key}.yaml", about)
    found = _rows(f"{key}.csv", rows, key)
    if set(found) != set(described.tables):
        numbers = sorted(set(found) ^ set(described.tables))
        raise UserError(f"'{key}.csv' and '{key}.yaml' do not have the same tables: see {numbers}")
    unnamed = {row.augmenter for table in found.values() for row in table} - described.printed_as.keys()
    if unnamed:
        raise UserError(f"'{key}.yaml': 'printed_as' lacks {sorted(unnamed)}, which '{key}.csv' has")
    return Paper(key, described, found)


def _about(file: str, text: str) -> About:
    try:
        return About.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UserError(f"'{file}' is no YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        raise UserError(f"'{file}': {first_problem(error, About)}") from None


def _rows(file: str, text: str, key: str) -> dict[int, tuple[Reference, ...]]:
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UserError(f"'{file}' must have the columns {', '.join(COLUMNS)}")
    tables: dict[int, list[Reference]] = {}
    for line in reader:
        try:
            number, row = int(line["table"]), _reference(line)
            if line["paper"] != key:
                raise ValueError(f"paper '{line['paper']}' in the file of '{key}'")
            if any((row.n_aug, row.augmenter) == (one.n_aug, one.augmenter) for one in tables.get(number, ())):
                raise ValueError(f"{row.augmenter} with N_aug {row.n_aug} occurs twice")
            if any(row.shots != one.shots for one in tables.get(number, ())):
                raise ValueError(f"shots {row.shots}, others of its table have another number")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"'{file}', line {reader.line_num}: {error}") from None
        tables.setdefault(number, []).append(row)
    return {number: tuple(rows) for number, rows in tables.items()}


def _reference(line: Mapping[str, str]) -> Reference:
    if line["ap_definition"].split()[0] not in AP_DEFINITIONS:
        raise ValueError(f"ap_definition '{line['ap_definition']}' begins with none of {', '.join(AP_DEFINITIONS)}")
    return Reference(
        dataset=line["dataset"],
        augmenter=line["augmenter"],
        shots="all" if line["shots"] == "all" else int(line["shots"]),
        n_aug=int(line["n_aug"]),
        stats={metric: Stat(_share(line[metric]), _share(line[f"{metric}_std"]), 1) for metric in METRICS},
        protocol=line["protocol"],
        copied_from=line["copied_from"],
        ap_words=line["ap_definition"],
    )


def _share(text: str) -> float:
    """Parse a printed number; NaN for none."""
    value = float(text) if text else nan
    if value < 0 or value > 1:
        raise ValueError(f"{text} is not in [0, 1]")
    return value

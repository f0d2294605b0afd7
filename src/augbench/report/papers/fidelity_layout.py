"""Tables of papers on the fidelity of images, beside ours: FID by layer of Inception.

A table is two files in ``assets/papers/fidelity``. Ours come from the fidelity records of a grid with
``fidelity: {layers: [64, 192]}``. There is never a difference: FID depends on the number of images, not stated there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict

from augbench.core.errors import UserError, did_you_mean
from augbench.report.fidelity_table import Measured, load_measured
from augbench.report.numbers import Stat, decimals, range_text, stat_of
from augbench.report.papers.printed import FOLDER
from augbench.report.render import data
from augbench.report.sheet import Column, Section, Sheet, SheetRow
from augbench.storage.store import Store

LAYERS = (64, 192)


class AboutFidelity(BaseModel):
    """Description of a paper with such tables: the content of its YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short: str  # prefix of the names of its layouts
    name: str
    reference: str
    url: str
    printed_as: dict[str, str]  # augmenter in augbench -> name in the paper
    titles: dict[int, str]  # table number -> title
    unknown: str  # what the paper does not state


@dataclass(frozen=True)
class FidelityLayout:
    """A table of a paper with FID by layer."""

    name: str  # e.g. "diag_table3"
    number: int
    about: AboutFidelity
    rows: tuple[Mapping[str, str], ...]  # of the CSV

    @property
    def title(self) -> str:
        """The title: ``DIAG (CBMI 2024), Table 3: FID ...``."""
        return f"{self.about.name}, Table {self.number}: {self.about.titles[self.number]}"


@dataclass(frozen=True)
class FidelityLine:
    """A row with theirs and ours, by layer."""

    augmenter: str
    label: str
    theirs: Mapping[int, float]
    ours: Mapping[int, Stat]  # over pools
    made: tuple[int, ...]  # synthetic images per pool: the distinct numbers
    real: tuple[int, ...]  # real images, likewise
    pools: int


@cache
def fidelity_layouts() -> dict[str, FidelityLayout]:
    """Return every such layout by name."""
    found = {}
    for entry in sorted((FOLDER / "fidelity").iterdir(), key=lambda file: file.name):
        if entry.name.endswith(".yaml"):
            about = AboutFidelity.model_validate(yaml.safe_load(entry.read_text(encoding="utf-8")))
            text = (FOLDER / "fidelity" / entry.name.replace(".yaml", ".csv")).read_text(encoding="utf-8")
            rows = list(csv.DictReader(io.StringIO(text)))
            for number in about.titles:
                name = f"{about.short}_table{number}"
                own = tuple(row for row in rows if int(row["table"]) == number)
                found[name] = FidelityLayout(name, number, about, own)
    return found


def filled(
    layout: FidelityLayout, store: Store, expected: pd.DataFrame, dataset: str | None
) -> tuple[list[Section], str, bytes]:
    """Fill a layout with the measured pools of the expected cells; return its section, its CSV and its JSON.

    Args:
        layout: the paper's table.
        store: the store with the fidelity records.
        expected: columns as `frame.load_expected` gives them.
        dataset: name of the dataset in the grid; None = the paper's.

    Raises:
        UserError: the store has no cell of that dataset, or a record is damaged.
    """
    name = dataset or layout.rows[0]["dataset"]
    if name not in set(expected["dataset"]):
        known = sorted(set(expected["dataset"]))
        raise UserError(f"dataset '{name}' is not in the store{did_you_mean(name, known)}: give --dataset NAME")
    own = expected[expected["dataset"] == name]
    measured = load_measured(store, own)
    lines = [_line(layout, row, own, measured) for row in layout.rows]
    rows = [_exported(layout, line) for line in lines]
    about = {"layout": layout.name, "title": layout.title, "reference": layout.about.reference, "url": layout.about.url}
    return [_section(layout, lines)], data.to_csv(rows), data.to_json(about | {"rows": rows})


def _line(
    layout: FidelityLayout, row: Mapping[str, str], cells: pd.DataFrame, measured: Mapping[str, Measured]
) -> FidelityLine:
    wanted = cells[(cells["augmenter"] == row["augmenter"]) & (cells["shots"].astype(str) == row["shots"])]
    keys = dict.fromkeys(key for pairs in wanted["fidelity"] for _, key in pairs)
    found = [measured[key] for key in keys if key in measured and measured[key].fid_by_layer]
    return FidelityLine(
        row["augmenter"],
        layout.about.printed_as[row["augmenter"]],
        {layer: float(row[f"fid_{layer}"]) for layer in LAYERS},
        {layer: stat_of(one.fid_by_layer[layer] for one in found if layer in one.fid_by_layer) for layer in LAYERS},
        tuple(sorted({one.made for one in found})),
        tuple(sorted({one.real for one in found})),
        len(found),
    )


def _section(layout: FidelityLayout, lines: list[FidelityLine]) -> Section:
    columns = [Column("label", "Model", is_text=True)]
    columns += [Column(f"{side} {n}", f"FID {n}", side) for side in ("theirs", "ours") for n in LAYERS]
    columns += [Column("images", "images"), Column("real", "real"), Column("pools", "pools")]
    rows = [
        SheetRow(
            (
                line.label,
                *(decimals(line.theirs[layer], 3) for layer in LAYERS),
                *(decimals(line.ours[layer].mean, 3) for layer in LAYERS),
                *(range_text(numbers) for numbers in (line.made, line.real)),
                str(line.pools),
            )
        )
        for line in lines
    ]
    notes = (
        f"{layout.about.unknown}. So there is no difference: FID depends on both numbers.",
        "Ours are to the defect images of the test split, by timm's Inception: its weights are those of ImageNet from "
        "which the usual FID network was made.",
        *(["A dash: no pool is measured by layers. A grid does with fidelity: {extractor: inception_v3.tf_in1k, "
           "layers: [64, 192]}."] if any(not line.pools for line in lines) else []),
        f"{layout.about.reference}. {layout.about.url}",
    )  # fmt: skip
    return Section(layout.title, sheets=[Sheet(columns, rows, notes=notes)])


def _exported(layout: FidelityLayout, line: FidelityLine) -> dict[str, Any]:
    """Return a row of the CSV and of the JSON."""
    return (
        {"layout": layout.name, "augmenter": line.augmenter}
        | {f"theirs_fid_{layer}": line.theirs[layer] for layer in LAYERS}
        | {f"ours_fid_{layer}_mean": line.ours[layer].mean for layer in LAYERS}
        | {f"ours_fid_{layer}_std": line.ours[layer].std for layer in LAYERS}
        | {"images": range_text(line.made), "real": range_text(line.real), "pools": line.pools}
    )

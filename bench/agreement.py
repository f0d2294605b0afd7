"""Compare the gains of augmenters under a fine-tuned classifier and under probes, on the same images.

    python bench/agreement.py results/magnetic_tile_finetune [results/magnetic_tile ...]

The first store decides what is compared: dataset, augmenters, shots, N_aug, folds, draws and seeds. Each line is a
protocol's gain over `none` in AP, with the 95 % interval of `augbench compare`: over all folds, then fold by fold.
"""

from __future__ import annotations

import argparse

import pandas as pd
from rich.console import Console
from rich.table import Table

from augbench.report.evidence.build import build_evidence
from augbench.report.evidence.sheets import span
from augbench.report.frame import load_expected, load_records
from augbench.report.numbers import signed
from augbench.storage.store import Store

AXES = ["dataset", "augmenter", "shots", "n_aug", "fold", "draw"]


def load(place: str) -> tuple[Store, pd.DataFrame, pd.DataFrame]:
    """Return a store, its expected cells and its records."""
    store = Store(place)
    expected = pd.concat([load_expected(store, name) for name in sorted(store.keys("grids"))], ignore_index=True)
    return store, expected, load_records(store, expected["key"])


def gains(store: Store, expected: pd.DataFrame, records: pd.DataFrame) -> dict[tuple, str]:
    """Return the gains over `none` of the expected cells, as text, by dataset, shots, augmenter and protocol."""
    found = {}
    for evidence in build_evidence(store, expected, records, against="none"):
        for one in evidence.against:
            of = (evidence.table.dataset, str(evidence.table.shots), f"{one.augmenter} {one.n_aug}")
            found[*of, evidence.table.protocol] = f"{signed(one.alone.estimate)} ({span(one.alone, signed)})"
    return found


def main() -> None:
    """Print a table of gains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="+")
    stores = [load(place) for place in parser.parse_args().stores]
    _, wanted, _ = stores[0]
    axes, seeds = wanted[AXES].drop_duplicates(), {*wanted["seed"], None}  # a probe without pools has no seed
    folds = sorted(wanted["fold"].unique())
    columns: list[dict[tuple, str]] = [{} for _ in (None, *folds)]
    for store, expected, records in stores:
        expected = expected[expected["seed"].isin(seeds)].merge(axes)
        for column, fold in zip(columns, (None, *folds), strict=True):
            chosen = expected if fold is None else expected[expected["fold"] == fold]
            for protocol in sorted(set(chosen["protocol"])):
                column |= gains(store, chosen[chosen["protocol"] == protocol], records)
    table = Table("gain in AP over none", "protocol", "all folds", *(f"fold {fold}" for fold in folds))
    for dataset, shots, row, protocol in sorted(columns[0], key=lambda of: of[:3]):
        label = f"{dataset}, {shots} shots, {row}"
        table.add_row(label, protocol, *(column.get((dataset, shots, row, protocol), "") for column in columns))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()

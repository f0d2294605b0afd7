"""Print the differences behind docs/findings.md, with 95 % intervals, from the published results.

    python bench/findings.py [results/elpv results/magnetic_tile]

Each line is the difference of two rows of any tables of one dataset, paired by fold, draw and pool seed, by the same
bootstrap over test items and runs as `augbench compare`.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table

from augbench.report.evidence.build import Comparison, build_evidence
from augbench.report.evidence.sheets import span
from augbench.report.frame import load_expected, load_records
from augbench.report.numbers import signed
from augbench.storage.store import Store

SYNTHETIC = ("memseg", "cutpaste")


class Row(NamedTuple):
    """A row of a table."""

    protocol: str
    shots: int | str
    augmenter: str = "none"
    n_aug: int = 0


def pairs() -> dict[str, tuple[Row, Row]]:
    """Return the differences by what they answer: a row, and the row that is subtracted."""
    normals, five, twenty = Row("normals_only", 0), Row("probe", 5), Row("probe", 20)
    found = {
        "normals only - 5 real defects": (normals, five),
        "normals only - 20 real defects": (normals, twenty),
        "normals only - MemSeg 80 zero-shot": (normals, Row("probe", 0, "memseg", 80)),
        "20 real defects - 5": (twenty, five),
        "5 real defects and the distance to normal images - normals only": (Row("probe_normality", 5), normals),
        "5 real defects and that distance - 5 real defects": (Row("probe_normality", 5), five),
    }
    for name in SYNTHETIC:
        for shots in (5, 20, "all"):
            for protocol in ("probe_as_papers", "probe", "probe_normality"):
                for n_aug in (20, 80, 320):
                    label = f"{protocol}, {shots} real defects: {name} {n_aug} - none"
                    found[label] = Row(protocol, shots, name, n_aug), Row(protocol, shots)
    return found


def compare(store: Store, expected: pd.DataFrame, records: pd.DataFrame, a: Row, b: Row) -> Comparison | None:
    """Compare two rows as if they stood in one table; None where one of them has no cell."""
    parts = []
    for name, row, n_aug in (("a", a, 1), ("b", b, 0)):
        chosen = (expected[list(Row._fields)] == list(row)).all(axis=1)
        parts.append(expected[chosen].assign(augmenter=name, n_aug=n_aug, protocol="both", shots=0))
    if not all(map(len, parts)):
        return None
    (evidence,) = build_evidence(store, pd.concat(parts, ignore_index=True), records, against="b")
    return evidence.against[0]


def main() -> None:
    """Compute and print a table for each store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="*", default=["results/elpv", "results/magnetic_tile"])
    for place in parser.parse_args().stores:
        store = Store(place)
        expected = pd.concat([load_expected(store, name) for name in sorted(store.keys("grids"))], ignore_index=True)
        records = load_records(store, expected["key"])
        table = Table("difference in AP", "", "95 % interval", "pairs", "verdict", title=place)
        for label, (a, b) in pairs().items():
            if (one := compare(store, expected, records, a, b)) is not None:
                row = (signed(one.alone.estimate), span(one.alone, signed), str(one.alone.runs), str(one.verdict))
                table.add_row(label, *row)
        Console(width=120).print(table)


if __name__ == "__main__":
    main()

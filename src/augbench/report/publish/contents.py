"""What a published store holds and what it must not: the one list that `results check` and `results export` share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from augbench.core.errors import UserError
from augbench.report.evidence.part_costs import COSTS
from augbench.report.frame import load_expected
from augbench.report.papers.layouts import layouts
from augbench.report.store_report import report
from augbench.storage.store import Store

README = "README.md"
COMPLETE = "TO BE COMPLETED"
"""Stands in a README where a person must write."""

ROOMS = ("cells", "scores", "fidelity", "searches", "grids")
"""The rooms of a store that are published. What is in no list here was made on the way, or shows pictures."""

MOST = 1_000_000  # bytes of a record, of scores or of a README
MOST_OF_A_GRID = 20_000_000  # bytes of what grows with the number of cells: grids and reports

ASKED_FOR = (*(f"compare.{ending}" for ending in ("md", "tex", "csv", "json")), "pareto.svg", "cd.svg")
"""Files of `augbench compare`, which may lie beside a report. What they say depends on options: it is not compared."""

LAYOUT_FILES = ("md", "tex", "csv", "json", "html")

_WHAT = {
    "a picture": (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".npy", ".npz"),
    "weights": (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".h5", ".onnx", ".msgpack"),
    "a pickle": (".pkl", ".pickle", ".joblib", ".dill"),
}


def today(store: Store) -> dict[str, bytes]:
    """The reports as they are written today: name in the store -> content.

    Raises:
        UserError: a damaged record.
    """
    with tempfile.TemporaryDirectory(prefix="augbench-reports-") as folder:
        top = Path(folder)
        names = sorted(store.keys("grids")) or [None]
        for name in names:
            # One by one: where several are written at once, those without a record have no folder.
            try:
                report(store, name, out=top / (name or "all"))
            except UserError:
                if name is None or _has_record(store, name):
                    raise
        return {f"reports/{path.relative_to(top).as_posix()}": path.read_bytes() for path in sorted(top.rglob("*.*"))}


def _has_record(store: Store, grid_name: str) -> bool:
    return bool(set(load_expected(store, grid_name)["key"]) & store.keys("cells"))


def stray_files(folder: Path, known: set[str], reports: set[str] | None) -> list[str]:
    """What lies in a published store and must not, or is too large, one sentence each.

    Args:
        folder: the store.
        known: names of records, scores and grids.
        reports: names of the files of reports; None where they cannot be told.
    """
    problems = []
    for name, path in _files(folder, problems):
        own = name in known or name in (README, COSTS)
        is_report = name in reports if reports is not None else name.startswith("reports/") and name.count("/") == 2
        is_report = is_report or _asked_for(name, reports or ())
        most = MOST_OF_A_GRID if is_report or name.startswith("grids/") else MOST
        if path.is_symlink() or not path.is_file():
            problems.append(f"'{name}' is a link: copy what it leads to")
        elif not own and not is_report:
            problems.append(f"'{name}' is {_what(name)}: take it out")
        elif path.stat().st_size > most:
            problems.append(
                f"'{name}' has {path.stat().st_size:,} bytes, {most:,} are the most: take out what it need not hold"
            )
    if not (folder / README).is_file():
        problems.append(
            f"'{README}' is missing: it says what was run and what it shows; `augbench results export` begins one"
        )
    return problems


def _asked_for(name: str, reports: Iterable[str]) -> bool:
    """Whether it is a comparison or a paper's layout beside one of these reports."""
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.rpartition(".")
    asked = file in ASKED_FOR or (stem in layouts() and ending in LAYOUT_FILES)
    return asked and any(report.rpartition("/")[0] == folder for report in reports)


def _files(folder: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """(name, path) of every file, sorted. A whole folder that does not belong here is one problem."""
    for top in sorted(folder.iterdir()):
        if not top.is_dir() or top.is_symlink():
            yield top.name, top
        elif top.name not in (*ROOMS, "reports"):
            count = sum(len(files) for _, _, files in os.walk(top))
            problems.append(
                f"'{top.name}/' ({count} files) is not published: take it out, or use `augbench results export`"
            )
        else:
            for path in sorted(top.rglob("*")):
                if path.is_symlink() or not path.is_dir():
                    yield path.relative_to(folder).as_posix(), path


def _what(name: str) -> str:
    """What a file is that is not known, by its ending."""
    for what, endings in _WHAT.items():
        if name.lower().endswith(endings):
            return f"{what}, which is not published"
    if name.startswith("reports/"):
        return "no file that `augbench report` writes for a grid of this store"
    return "no part of a published store"

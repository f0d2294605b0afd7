"""What a published store may contain; shared by `results check` and `results export`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from augbench.core.errors import UserError
from augbench.report.evidence.comparison_report import CD, PARETO
from augbench.report.evidence.evidence_plots import DOSE, REAL
from augbench.report.evidence.part_costs import COSTS
from augbench.report.frame import load_expected
from augbench.report.papers.layouts import layouts
from augbench.report.store_report import report
from augbench.storage.store import Kind, Store

README = "README.md"
COMPLETE = "TO BE COMPLETED"
"""Placeholder in a README for text that a person must write."""

PUBLISHED: tuple[Kind, ...] = ("cells", "scores", "fidelity", "searches", "audits", "grids")
"""The folders of a store that are published. All others hold intermediate results or images."""

MAX_BYTES = 1_000_000  # of a record, of scores or of a README
MAX_GRID_BYTES = 20_000_000  # of files that grow with the number of cells: reports, and grids of earlier versions
MAX_ARCHIVE_BYTES = 100_000_000  # GitHub takes no larger file; scores of 5,000 cells have about 8 MB

COMPARISON_FILES = (*(f"compare.{ending}" for ending in ("md", "tex", "csv", "json")), PARETO, CD, DOSE, REAL)
"""Files of `augbench compare` that may be next to a report. They depend on options, so they are not verified."""

LAYOUT_FILES = ("md", "tex", "csv", "json", "html")

_WHAT = {
    "an image": (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".npy", ".npz"),
    "weights": (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".h5", ".onnx", ".msgpack"),
    "a pickle": (".pkl", ".pickle", ".joblib", ".dill"),
}


def today(store: Store) -> dict[str, bytes]:
    """Write the reports with the installed version: name in the store -> content.

    Raises:
        UserError: a damaged record.
    """
    with tempfile.TemporaryDirectory(prefix="augbench-reports-") as folder:
        top = Path(folder)
        names = sorted(store.keys("grids")) or [None]
        for name in names:
            # One by one: if several are written at once, grids without a record get no folder.
            try:
                report(store, name, out=top / (name or "all"))
            except UserError:
                if name is None or _has_record(store, name):
                    raise
        return {f"reports/{path.relative_to(top).as_posix()}": path.read_bytes() for path in sorted(top.rglob("*.*"))}


def _has_record(store: Store, grid_name: str) -> bool:
    return bool(set(load_expected(store, grid_name)["key"]) & store.keys("cells"))


def stray_files(folder: Path, known: set[str], reports: set[str] | None) -> list[str]:
    """Find files of a published store that do not belong there or are too large, one sentence each.

    Args:
        folder: the store.
        known: file names of archives, records, scores and grids.
        reports: file names of reports; None where they are unknown.
    """
    problems = []
    for name, path in _files(folder, problems):
        own = name in known or name in (README, COSTS)
        is_report = name in reports if reports is not None else name.startswith("reports/") and name.count("/") == 2
        is_report = is_report or _is_comparison(name, reports or ())
        grows = is_report or name.startswith("grids/")
        limit = MAX_ARCHIVE_BYTES if name in known and "/" not in name else MAX_GRID_BYTES if grows else MAX_BYTES
        if path.is_symlink() or not path.is_file():
            problems.append(f"'{name}' is a link: replace it by a copy of its target")
        elif not own and not is_report:
            problems.append(f"'{name}' is {_what(name)}: remove it")
        elif path.stat().st_size > limit:
            problems.append(
                f"'{name}' has {path.stat().st_size:,} bytes, {limit:,} are the most: remove what is not needed"
            )
    if not (folder / README).is_file():
        problems.append(
            f"'{README}' is missing: it describes the run and its results; `augbench results export` writes a draft"
        )
    return problems


def _is_comparison(name: str, reports: Iterable[str]) -> bool:
    """Whether a file is a comparison or a paper's layout next to one of these reports."""
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.rpartition(".")
    is_one = file in COMPARISON_FILES or (stem in layouts() and ending in LAYOUT_FILES)
    return is_one and any(report.rpartition("/")[0] == folder for report in reports)


def _files(folder: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of every file, sorted; a folder that does not belong here becomes one problem."""
    for top in sorted(folder.iterdir()):
        if not top.is_dir() or top.is_symlink():
            yield top.name, top
        elif top.name not in (*PUBLISHED, "reports"):
            count = sum(len(files) for _, _, files in os.walk(top))
            problems.append(
                f"'{top.name}/' ({count} files) is not published: remove it, or use `augbench results export`"
            )
        else:
            for path in sorted(top.rglob("*")):
                if path.is_symlink() or not path.is_dir():
                    yield path.relative_to(folder).as_posix(), path


def _what(name: str) -> str:
    for what, endings in _WHAT.items():
        if name.lower().endswith(endings):
            return f"{what}, which is not published"
    if name.startswith("reports/"):
        return "no file that `augbench report` writes for a grid of this store"
    return "no part of a published store"

"""augbench in Python: the functions behind the commands of the same names.

All are in `augbench` itself: ``augbench.run(...)``. What a user can get wrong raises `UserError` with one line that
says what to do. What the functions return shows itself: as text when printed, as tables in a notebook.
"""

from __future__ import annotations

import random
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augbench.core.errors import UserError
from augbench.core.specs import Cell
from augbench.metrics.resampling import RESAMPLES
from augbench.planning import grid as grids
from augbench.planning.grid import Grid, GridLike, is_grid_file
from augbench.planning.library import with_roots
from augbench.planning.outline import expected_of
from augbench.planning.plan import Plan, make_plan
from augbench.planning.remaining import Remaining, subtract
from augbench.report.render.shown import Shown
from augbench.report.sheet import Section
from augbench.storage.store import Store

# What only one function needs is imported in it: the commands that call the others start faster.
if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from augbench.advice.tryout import Answer
    from augbench.report.evidence.comparison_report import Compared
    from augbench.report.publish.agreement import Again
    from augbench.runner.driver import Executor, Summary

StoreLike = Store | str | Path
"""A store, its folder, or its URL. Published results are stores too."""


def load_grid(grid: GridLike, changes: Iterable[str] = (), roots: Iterable[str] = ()) -> Grid:
    """Read a grid.

    Args:
        grid: a grid file, its content as a dict, or a `Grid`, which is returned as it is.
        changes: as ``--set`` has them, for example ``seeds=[0,1]``.
        roots: folders of datasets, as ``--root`` has them: ``NAME=DIR``, or ``DIR`` where there is one dataset.

    Raises:
        UserError: the grid, a change or a folder is wrong.
    """
    return grids.load_grid(grid, with_roots(grid, changes, roots))


@dataclass(frozen=True, repr=False)
class GridPlan(Shown):
    """A grid beside its store: what it needs, and what of it is left to do."""

    plan: Plan
    remaining: Remaining
    store: Store

    @property
    def sections(self) -> list[Section]:
        """The trainings and pools of the grid, and what is left of them."""
        from augbench.report.planned import plan_section

        section = plan_section(self.plan, self.remaining, self.store)
        *before, last = section.sheets
        sheets = [*before, replace(last, notes=[*last.notes, *section.sentences])]
        return [replace(section, sentences=(), sheets=sheets)]

    @property
    def cells(self) -> pd.DataFrame:
        """One row per training: ``key``, the axes of the grid, and ``done``: whether the store holds it."""
        from augbench.report.frame import expected_frame

        cells = expected_frame(expected_of(self.plan)).drop(columns=["fidelity", "audit", "null"])
        return cells.assign(done=~cells["key"].isin([cell.key for cell in self.remaining.cells]))


def plan(grid: GridLike, store: StoreLike | None = None) -> GridPlan:
    """Expand a grid without running it: its trainings and images, and which are done or left.

    Args:
        grid: see `load_grid`.
        store: where results are or will be; None: ``runs/<name of the grid>``.

    Raises:
        UserError: the grid cannot be planned, or a record of the store is damaged.
    """
    loaded = load_grid(grid)
    target = _store_of(store, loaded)
    made = make_plan(loaded, target if target.exists() else None)
    return GridPlan(made, subtract(made, target), target)


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """A grid that was run."""

    grid: Grid
    store: Store
    summary: Summary

    @property
    def sections(self) -> list[Section]:
        """How many trainings are done, and the tables of mean (standard deviation)."""
        done = f"{self.summary.done} of {self.summary.cells} cells are done. Store: {self.store.url}"
        found = tables(self.store, self.grid.name).sections[1:] if self.summary.done else ()
        return [Section(self.grid.name, sentences=[done]), *found]

    @property
    def results(self) -> pd.DataFrame:
        """The results of the grid, see `load_results`."""
        return load_results(self.store, self.grid.name)


def run(
    grid: GridLike,
    store: StoreLike | None = None,
    executor: Executor = "ray",
    *,
    address: str | None = None,
    track: Sequence[str] = (),
    verdicts: bool = False,
    partial: bool = False,
    console: Console | None = None,
) -> Run:
    """Complete a grid: generate images, train, evaluate, write the report. Finished work is not repeated.

    Args:
        grid: see `load_grid`.
        store: where results go; None: ``runs/<name of the grid>``.
        executor: "ray", or "inline" for this process only. Both give the same results.
        address: a running Ray cluster, for example "auto"; None starts Ray on this machine.
        track: experiment trackers: ``tensorboard``, ``mlflow`` or ``wandb``, each also as ``tool=where``.
        verdicts: state above each table of the report which differences exceed chance.
        partial: return also where cells failed, or the user stopped the run; ``Run.summary`` tells.
        console: prints progress and tables; None: progress alone, on standard output.

    Raises:
        UserError: an input cannot be used, and nothing was started; or, as `Stopped`, cells failed. The same call goes
            on.
        KeyboardInterrupt: the user stopped it. The same call goes on.
    """
    from augbench.report.render.terminal import standard_output
    from augbench.report.store_report import report
    from augbench.runner.driver import Stopped
    from augbench.runner.driver import run as run_grid

    loaded = load_grid(grid)
    target = _store_of(store, loaded)
    shown = console or standard_output()
    summary = run_grid(loaded, target, executor, address, shown, track=track)
    if not summary.interrupted and summary.done:
        report(target, loaded.name, console=console, verdicts=verdicts)
    if not partial and summary.interrupted:
        raise KeyboardInterrupt
    if not partial and summary.failures:
        raise Stopped(summary, target)
    return Run(loaded, target, summary)


def load_results(store: StoreLike, grid: str | None = None) -> pd.DataFrame:
    """Load the results of a store, or of published results, as a table with one row per training.

    Args:
        store: a folder or URL, for example ``runs/demo`` or ``results/elpv``.
        grid: only the cells of this grid, by its name in the store.

    Returns:
        The columns that `augbench.report.frame.RESULT_COLUMNS` describes: axes of the grid, metrics in [0, 1] (NaN
        where the task has them not), seconds, device, and where the result is from.

    Raises:
        UserError: there is no store, no record or no such grid, or a record is damaged.
    """
    from augbench.report.frame import load_expected, results_frame

    target = _filled(store)
    found = results_frame(target, None if grid is None else load_expected(target, grid)["key"])
    if found.empty:
        raise UserError(f"store '{target.url}' holds no record of grid '{grid}': run it first: augbench run GRID.yaml")
    return found


@dataclass(frozen=True, repr=False)
class Tables(Shown):
    """The tables of a store: mean (sample standard deviation) over the runs of each row."""

    grids: Mapping[str, Sequence[Section]]  # name of a grid -> its tables

    @property
    def sections(self) -> list[Section]:
        """The tables of each grid, under its name."""
        return [section for name, own in self.grids.items() for section in (Section(name), *own)]


def tables(store: StoreLike, grid: str | GridLike | None = None) -> Tables:
    """Return the tables of a store, as `augbench report` prints them.

    Args:
        store: a folder or URL.
        grid: a grid of the store by name, or one as `load_grid` reads it; None: every grid of the store.

    Raises:
        UserError: there is no store or no record, an unknown grid, or a damaged record.
    """
    from augbench.report.store_report import reported, sections_of, tables_of

    target = open_store(store)
    made = {}
    for name, cells, records in reported(target, *cells_of(target, grid)):
        own, older = tables_of(target, name, cells, records)
        made[name] = sections_of(own, "terminal", older)
    return Tables(made)


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """The differences between the rows of a store: which exceed chance, and what they cost."""

    store: Store
    grids: Sequence[Compared]

    @property
    def sections(self) -> list[Section]:
        """The tables of each grid."""
        from augbench.report.evidence.sheets import method_section

        every: list[Section] = []
        for one in self.grids:
            every += [replace(method_section(one.evidence), title=one.name), *one.sections(brief=True)]
        return every

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per interval or difference, with the columns of ``compare.csv`` behind ``grid``.

        ``line`` says which: ``interval`` of a row's own metric, ``against`` the baseline, ``pair`` of augmenters,
        ``over_null`` and ``null``. ``estimate`` is the metric or difference; ``low_together`` to ``high_together`` is
        the 95 % interval for all rows of a table at once, which decides ``verdict``.
        """
        from augbench.report.evidence.exports import to_frame

        return to_frame({one.name: one.evidence for one in self.grids})

    @property
    def gains(self) -> pd.DataFrame:
        """The differences to the baseline: the rows ``against`` of `frame`, with the columns that decide."""
        names = ("grid", "dataset", "protocol", "shots", "augmenter", "n_aug", "versus", "metric", "runs", "estimate")
        columns = [*names, "low_together", "high_together", "verdict", "caveats"]
        return self.frame.loc[self.frame["line"] == "against", columns].reset_index(drop=True)


def compare(
    store: StoreLike, grid: str | GridLike | None = None, against: str | None = None, resamples: int = RESAMPLES
) -> Comparison:
    """Compare the rows of a store: which differences exceed chance, what they cost, and how certain that is.

    Nothing is written. Equal stores give equal numbers.

    Args:
        store: a folder or URL.
        grid: a grid of the store by name, or one as `load_grid` reads it; None: every grid of the store.
        against: the augmenter to compare with; None: ``none``, else ``memseg``.
        resamples: number of bootstrap resamples.

    Raises:
        UserError: there is no store or no record, an unknown grid or augmenter, or damaged scores.
    """
    from augbench.report.evidence.comparison_report import compared

    target = open_store(store)
    return Comparison(target, compared(target, *cells_of(target, grid), against, resamples))


def leaderboard(
    stores: StoreLike | Sequence[StoreLike],
    out: str | Path,
    images: bool = True,
    *,
    roots: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Write one self-contained HTML page of several stores, with the records behind every number.

    Args:
        stores: one or several; cells are merged by key.
        out: the folder for ``index.html``, ``leaderboard.md`` and ``records/``.
        images: embed thumbnails of pools and datasets.
        roots: folders of datasets, see `load_grid`.
        settings: name of a dataset -> further settings, for its images.
        say: prints a line for each dataset whose images are embedded, with its licence.

    Returns:
        The path of the page.

    Raises:
        UserError: a store has no records or damaged ones, or the folder cannot be used.
    """
    from augbench.report.leaderboard.write_page import write_leaderboard

    several = [stores] if isinstance(stores, Store | str | Path) else stores
    page, _ = write_leaderboard([open_store(one) for one in several], Path(out), images, say, settings, roots)
    return page


def try_folder(
    folder: str | Path,
    out: str | Path | None = None,
    budget: str | float = "15m",
    good: str | None = None,
    group: str | None = None,
    *,
    diffusion: str | None = None,
    executor: Executor = "ray",
    defect_rate: float | None = None,
    miss_cost: float | None = None,
    false_alarm_cost: float | None = None,
    console: Console | None = None,
) -> Answer:
    """Find out which synthetic defects, if any, help on the images of a folder.

    Args:
        folder: class folders, or images and a CSV.
        out: where everything is written; None: ``runs/try-FOLDER``.
        budget: how long it may take: ``90s``, ``15m``, ``2h``, or seconds.
        good: the class of normal images, where its name does not tell.
        group: which images show one part: a regular expression for file names, such as ``(part\\d+)_.*``.
        diffusion: also compare DDPM with this pipeline. A GPU is advised.
        executor: "ray", or "inline" for this process only.
        defect_rate: share of the parts with a defect; None: as in the folder.
        miss_cost: cost of a defect that is missed, in any unit.
        false_alarm_cost: cost of a normal part that is called defective, in the same unit.
        console: prints progress; None: to standard output.

    Raises:
        UserError: the folder cannot be used, or there is too little in it; or, as `Stopped`, the run was stopped or
            cells failed. The same call goes on.
    """
    from augbench.advice.operating import Production
    from augbench.advice.tryout import seconds_of
    from augbench.advice.tryout import try_folder as find_advice
    from augbench.report.render.terminal import standard_output

    seconds = seconds_of(budget) if isinstance(budget, str) else budget
    production = Production(defect_rate, miss_cost, false_alarm_cost)
    where = Path(out) if out is not None else answer_folder(folder)
    shown = console or standard_output()
    return find_advice(Path(folder), where, seconds, good, group, diffusion, executor, shown, production)


def answer_folder(folder: str | Path) -> Path:
    """Return where `try_folder` writes by default."""
    return Path("runs") / f"try-{Path(folder).expanduser().resolve().name}"


@dataclass(frozen=True, repr=False)
class Rerun(Shown):
    """Published cells that were trained again."""

    folder: Path
    cells: Sequence[Again]
    left_out: Mapping[str, int]  # reason -> published cells that cannot be trained here
    total: int  # published cells
    seed: int

    @property
    def agrees(self) -> bool:
        """Whether cells were trained, and all of them agree."""
        return bool(self.cells) and all(one.agrees for one in self.cells)

    @property
    def sections(self) -> list[Section]:
        """Each metric of each cell, published and now."""
        from augbench.report.publish.agreement import agreement_section

        return [agreement_section(str(self.folder), self.cells, self.left_out, self.total, self.seed)]


def rerun(
    folder: str | Path,
    sample: int = 3,
    seed: int | None = None,
    *,
    grid: str | None = None,
    roots: Sequence[str] = (),
    tolerance: float | None = None,
    console: Console | None = None,
) -> Rerun:
    """Train random cells of published results again, with their images and adapters, and compare.

    It runs in this process, in a temporary store. Where device and versions are those of the publication, results must
    be equal.

    Args:
        folder: published results, for example ``results/elpv``.
        sample: number of cells.
        seed: of the choice of cells; None: another one each time.
        grid: only cells of this grid, by its name in the publication.
        roots: folders of datasets, see `load_grid`.
        tolerance: how far metrics that rank all images may be apart on another device or with other versions; None:
            .05 where a network is fine-tuned, .01 for probes; where a classifier or an adapter is trained, what
            another seed changes in the publication, if this is more (`augbench.report.publish.agreement`).
        console: prints progress; None: to standard output.

    Raises:
        UserError: there are no published results, no cell of them can be trained here, or, as `Stopped`, a training
            failed.
        KeyboardInterrupt: the user stopped it.
    """
    from augbench.report.publish.agreement import again, apart_by_seeds
    from augbench.report.render.terminal import standard_output

    published = _filled(folder)
    chosen = secrets.randbelow(2**32) if seed is None else seed
    plans, left_out = _plans_of(published, grid, roots)
    at_hand = {cell.key: (made, cell) for made in plans for cell in made.cells}
    keys = sorted(at_hand.keys() & published.keys("cells"))
    if not keys:
        raise UserError(f"'{folder}': no cell can be trained here: {'; '.join(left_out) or 'none has a grid'}")
    records = list(published.read_records(sorted(published.keys("cells"))))
    found = []
    with tempfile.TemporaryDirectory(prefix="augbench-rerun-") as scratch:
        store = Store(scratch)
        for key in random.Random(chosen).sample(keys, min(sample, len(keys))):  # noqa: S311 - no secret
            run(_only(*at_hand[key]), store, "inline", console=console or standard_output())
            old, new = (next(one.read_records([key])) for one in (published, store))
            found.append(again(old, new, tolerance, apart_by_seeds(records, old["spec"]["protocol"]["name"])))
    return Rerun(Path(folder), found, left_out, len(published.keys("cells")), chosen)


def _plans_of(published: Store, grid: str | None, roots: Sequence[str]) -> tuple[list[Plan], dict[str, int]]:
    """Plan the grids of a publication; return the plans, and why cells of it cannot be trained here."""
    from augbench.report.frame import load_expected

    plans, left_out = [], Counter[str]()
    for name in sorted(published.keys("grids")) if grid is None else [grid]:
        held = set(load_expected(published, name)["key"]) & published.keys("cells")
        content = (published.read_json("grids", name) or {}).get("grid") or {}
        try:
            made = make_plan(load_grid(content, roots=roots))
        except UserError as error:
            left_out[str(error)] += len(held)
            continue
        reasons = [f"the files of '{label}' are not here (give --root {label}=DIR)" for label in made.absent]
        reasons += [f"'{one}': {reason}" for one, reason in made.not_runnable.items()]
        runnable = [cell for cell in made.cells if not reasons or _runs(made, cell)]
        made.cells = runnable
        if lost := len(held - {cell.key for cell in runnable}):
            left_out["; ".join(reasons) or f"grid '{name}': files or plug-ins here are not those of the results"] += (
                lost
            )
        plans.append(made)
    return plans, dict(left_out)


def _runs(made: Plan, cell: Cell) -> bool:
    parts = {cell.augmenter.name, *(one.pool.augmenter.name for one in made.needs[cell.key])}
    return cell.data.alias not in made.absent and parts.isdisjoint(made.not_runnable)


def _only(made: Plan, cell: Cell) -> Grid:
    """Return the grid of one cell of a plan: its key is the same, as nothing else of a grid is in keys."""
    given = made.grid
    (dataset,) = (one for one in given.datasets if one.label == cell.data.alias)
    (augmenter,) = (one for one in given.augmenters if one.label == cell.augmenter.alias)
    axes = {"shots": None, "n_aug": None, "seeds": None}
    shots = cell.draw if isinstance(cell.draw, tuple) else cell.shots
    return given.model_copy(
        update={
            "name": "rerun",
            "datasets": (dataset.model_copy(update={"folds": None}),),
            "augmenters": (augmenter.model_copy(update={"null_of": (), **axes}),),
            "protocols": (cell.protocol,),
            "shots": (shots,),
            "draws": (cell.draw,) if isinstance(cell.draw, int) else (0,),
            "folds": (cell.data.fold or 0,),
            "n_aug": (cell.n_aug,),
            "seeds": (0 if cell.seed is None else cell.seed,),
            "adapter_seeds": (cell.adapter_seed,),
            "fidelity": None,
            "save_weights": False,
        }
    )


# -- stores and grids in any form


def open_store(store: StoreLike) -> Store:
    """Return the store at a folder or URL; a store is returned as it is."""
    return store if isinstance(store, Store) else Store(store)


def cells_of(store: Store, grid: str | GridLike | None) -> tuple[str | None, list[dict[str, Any]] | None]:
    """Return the name of a grid, and its expected cells if it is not one of the store.

    Raises:
        UserError: the grid is invalid, or the files of a dataset, which its keys need, are not here.
    """
    if grid is None or (isinstance(grid, str) and not is_grid_file(grid)):
        return grid, None
    made = make_plan(load_grid(grid), store)
    for label in made.absent:
        made.library.dataset(label).root()  # raises with a hint where to get the files
    return made.grid.name, expected_of(made)


def _store_of(store: StoreLike | None, grid: Grid) -> Store:
    return Store(Path("runs") / grid.base) if store is None else open_store(store)


def _filled(store: StoreLike) -> Store:
    """Return a store that holds records. Raises UserError for another."""
    from augbench.report.store_report import WAY_OUT

    target = open_store(store)
    if not target.keys("cells"):
        raise UserError(f"store '{target.url}' does not exist or holds no records: {WAY_OUT}, or give another")
    return target

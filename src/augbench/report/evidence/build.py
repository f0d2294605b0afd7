"""Records and scores -> the evidence of a table: intervals, comparisons, sources of variance, cost.

There is one `Evidence` per table of `tables.build_tables`. Test items and runs are resampled from the scores in the
store, with the same resamples for all rows of a table, so that differences are paired.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, groupby
from math import nan
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError, did_you_mean
from augbench.core.seeds import rng
from augbench.metrics import inference, resampling
from augbench.metrics.exchange import FEWEST_POINTS, Cells, Exchange, Rate, exchange
from augbench.metrics.resampling import RESAMPLES, Interval
from augbench.report.evidence.pareto import RowCost, Spending, efficient
from augbench.report.evidence.real_defects import Counting, counting
from augbench.report.references import BESIDE, FREE, NEAREST, REFERENCE
from augbench.report.runs import Basis, runs_of
from augbench.report.tables import HEADLINE, Row, Table, build_tables
from augbench.storage.scores import scores_frame
from augbench.storage.store import FIX_HINT, Store

BASELINES = ("none", REFERENCE, NEAREST, "memseg")  # default baselines; the first that a table has is used
METRICS = {"detection": ("ap",), "recognition": ("accuracy", "macro_f1")}
Run = tuple[int, int, int, int]
"""Fold, draw of the shots, seed and adapter seed of a cell of a complete run; -1 for an axis that it does not have."""


Have = list[tuple[Run, Any]]
"""The cells of a row's complete runs, with their records."""


@dataclass(frozen=True)
class RowEvidence(Basis):
    """The evidence of one row of a table."""

    augmenter: str
    n_aug: int
    intervals: dict[str, Interval]  # each of `METRICS`
    variance: inference.VarianceSplit  # of the headline metric
    has_seed: bool  # False: nothing is random in its runs, given fold and draw
    cost: RowCost | None  # None: not on record
    training_seconds: float  # mean over cells; NaN without cells
    inferred: int  # cells whose lineage is not in their record
    efficient: bool = False  # Pareto-optimal in metric and cost among complete rows

    @property
    def name(self) -> tuple[str, int]:
        """Augmenter and N_aug."""
        return self.augmenter, self.n_aug


@dataclass(frozen=True)
class Comparison:
    """The difference of two rows, over the runs that both have."""

    augmenter: str
    n_aug: int
    versus: str
    versus_n_aug: int
    alone: Interval  # not corrected for other comparisons
    together: Interval  # simultaneous with the others of the same list (Bonferroni)
    verdict: inference.Verdict
    seeds: int  # number of paired seeds; 0 if neither row has any
    p: float  # sign-flip test over seeds; NaN below `inference.FEWEST_SEEDS`
    p_holm: float = nan
    collapsed: int = 0  # runs on either side whose classifier has collapsed

    @property
    def row(self) -> tuple[str, int]:
        """Augmenter and N_aug."""
        return self.augmenter, self.n_aug


@dataclass(frozen=True)
class ArtefactCheck:
    """Whether the gain of a row may come from what its synthetic images share with a null, which shows no defect.

    Intervals of ``gain`` hold for all rows of the table at once, those of ``null_gain`` and ``over`` for all checks.
    """

    gain: Comparison  # the row minus the baseline
    null_gain: Comparison  # its null minus the baseline
    over: Comparison  # the row minus its null
    finding: inference.Finding

    @property
    def collapsed(self) -> int:
        """Runs behind the finding whose classifier has collapsed: at least so many."""
        return max(part.collapsed for part in (self.gain, self.null_gain, self.over))


@dataclass(frozen=True)
class OverFree:
    """What a row gains over the strongest of the rows that need no generator.

    Which of them is strongest is seen on the test items, so the difference to it alone would not do. The ends of the
    interval are the lowest ones of the differences to each: the row is better only where it is shown to beat every one
    of them (an intersection-union test, which needs no correction for their number). The upper ends are corrected for
    the number of baselines, so that the row is worse only where it is shown to be, whichever is strongest.
    """

    augmenter: str
    n_aug: int
    strongest: str  # the baseline with the least difference
    together: Interval
    verdict: inference.Verdict
    collapsed: int = 0  # runs on any side whose classifier has collapsed


@dataclass(frozen=True)
class Worth:
    """How many real defects a row is worth, see `metrics.exchange`."""

    augmenter: str
    n_aug: int
    found: Exchange
    counting: Counting
    collapsed: int = 0  # runs of the row and of the curve whose classifier has collapsed


@dataclass(frozen=True)
class Evidence:
    """The evidence of one table."""

    table: Table
    rows: list[RowEvidence]
    baseline: str  # augmenter; "": the table has none of `wanted`
    against: list[Comparison]  # rows minus the baseline
    pairs: list[Comparison]  # augmenters at the same N_aug
    checks: list[ArtefactCheck]  # of the rows with a null in the grid
    groups: int  # number of test items over all folds
    defective_groups: int  # number of test items with a defect image
    smallest: int  # number of test items in the smallest stratum
    kinds_apart: bool  # whether the items with and without a defect of each fold are strata of their own
    resamples: int
    metrics: tuple[str, ...]
    wanted: tuple[str, ...]  # candidate baselines
    over_free: tuple[OverFree, ...] = ()  # of the rows with synthetic images; () without a choice of free baselines
    worths: Sequence[Worth] = ()  # of these rows, where there is a curve over real defects
    weight: float | str = 1.0  # of a synthetic image, as the protocol states it

    @property
    def headline(self) -> str:
        """The metric that is compared."""
        return HEADLINE[self.table.task]

    @property
    def without_seed(self) -> list[str]:
        """The augmenters of the rows in which nothing is random."""
        return list(dict.fromkeys(row.augmenter for row in self.rows if row.runs and not row.has_seed))


def build_evidence(
    store: Store, expected: pd.DataFrame, records: pd.DataFrame, against: str | None = None, resamples: int = RESAMPLES
) -> list[Evidence]:
    """Build the evidence of every table, in the order of `build_tables`. Equal stores give equal numbers.

    Args:
        store: the store with scores and costs.
        expected: the expected cells, see `frame.load_expected`.
        records: the cell records, see `frame.load_records`.
        against: the baseline augmenter; None = the first of `BASELINES` that a table has.
        resamples: number of bootstrap resamples.

    Raises:
        UserError: scores are missing, damaged or of another run; ``against`` is in no table.
    """
    names = set(expected["augmenter"])
    if against is not None and against not in names:
        raise UserError(f"--against '{against}' is no augmenter of this grid{did_you_mean(against, names)}")
    runs = _complete_runs(expected, records)
    nulls = dict(zip(expected["augmenter"], expected["null"], strict=True))
    spending = Spending(store, [record.key for have in runs.values() for _, record in have])
    made = []
    for _, tables in groupby(build_tables(expected, records), lambda table: (table.dataset, table.protocol)):
        parts: list[tuple[_Resampled, Evidence, Keys]] = []
        for table in tables:
            rows = [row for row in table.rows if not row.is_average]
            have = [runs[table.dataset, table.protocol, table.shots, row.augmenter, row.n_aug] for row in rows]
            if any(have):
                drawn = _Resampled(store, table, have, resamples)
                one = _evidence(drawn, rows, have, spending, against, nulls)
                parts.append((drawn, one, _keys(one.rows, have)))
        made += _with_worths(parts)
    return made


def compare_rows(
    store: Store,
    expected: pd.DataFrame,
    records: pd.DataFrame,
    wanted: Sequence[Sequence[tuple[tuple[str, int], tuple[str, int]]]],
    resamples: int = RESAMPLES,
    curve: Mapping[tuple[str, int], int | str] = MappingProxyType({}),
) -> tuple[list[RowEvidence], list[list[Comparison]], list[Worth]]:
    """Compare chosen rows of one table, also rows that a caller has put into it from several tables.

    Args:
        store: the store with scores and costs.
        expected: the expected cells of one table, see `frame.load_expected`: a row is an augmenter with an N_aug.
        records: their records, see `frame.load_records`.
        wanted: lists of pairs of rows (augmenter, N_aug); intervals hold for all pairs of a list at once.
        resamples: number of bootstrap resamples.
        curve: the rows without synthetic images -> their shots, where they are a curve over real defects up to all.

    Returns:
        The evidence of each row; for each list the first row minus the second of each pair; and what the rows with
        synthetic images are worth, beside all real defects of the curve.

    Raises:
        UserError: scores are missing, damaged or of another run.
    """
    runs = _complete_runs(expected, records)
    (table,) = build_tables(expected, records)
    own_rows = [row for row in table.rows if not row.is_average]
    have = [runs[table.dataset, table.protocol, table.shots, row.augmenter, row.n_aug] for row in own_rows]
    spending = Spending(store, [record.key for own in have for _, record in own])
    drawn = _Resampled(store, table, have, resamples)
    rows = [_row(drawn, row, own, spending) for row, own in zip(own_rows, have, strict=True)]
    keys = _keys(rows, have)
    worths: list[Worth] = []
    if len(curve) >= FEWEST_POINTS:
        points = [(shots, drawn, keys[name]) for name, shots in curve.items()]
        worths = _worths(points, drawn, {name: keys[name] for name in keys if name[1]}, "all")
    return rows, [_compared(drawn, keys, pairs) for pairs in wanted], worths


def _complete_runs(expected: pd.DataFrame, records: pd.DataFrame) -> dict[tuple[Any, ...], Have]:
    """Return the cells of the complete runs of each row: dataset, protocol, shots, augmenter, N_aug -> its cells."""
    found = {record.key: record for record in records.itertuples(index=False)}
    cells: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for cell in expected.itertuples(index=False):
        cells[cell.dataset, cell.protocol, cell.shots, cell.augmenter, cell.n_aug].append(cell)
    return {
        row: [(_run(cell), found[cell.key]) for run in runs_of(own, found).complete for cell in run]
        for row, own in cells.items()
    }


def _run(cell: Any) -> Run:
    fold, draw, seed = (-1 if axis is None else int(axis) for axis in (cell.fold, cell.draw, cell.seed))
    return fold, draw, seed, int(cell.adapter_seed)


def pair_runs(a: Mapping[Run, str], b: Mapping[Run, str]) -> dict[Run, tuple[str, str]]:
    """Pair the runs of two rows: those of equal fold, draw, seed and adapter seed.

    A run without a draw or a seed is paired with every one of the other row. It has no variance over them, so the
    differences have exactly that of the other row. So is a run of a row without several adapters.

    Args:
        a: run -> key of its cell.
        b: the same of the other row.

    Returns:
        Run, with the draw and the seed that one of the two has -> the keys of the cells.
    """
    runs = [*a, *(run for run in b if run not in a)]
    pairs = {run: tuple(_at(row, run) for row in (a, b)) for run in runs}
    return {run: keys for run, keys in pairs.items() if all(keys)}


def _at(row: Mapping[Run, str], run: Run) -> str | None:
    """Return the key of the row's cell at a run, which may have more axes than the row."""
    fold, draw, seed, adapter = run
    if not any(own[3] for own in row):
        adapter = 0  # of a row with one adapter, or none
    places = ((fold, draw, seed, adapter), (fold, draw, -1, adapter), (fold, -1, -1, adapter))
    return next((row[place] for place in places if place in row), None)


class _Resampled:
    """The metrics of one table's cells under the same bootstrap resamples of test items."""

    def __init__(self, store: Store, table: Table, have: list[Have], resamples: int) -> None:
        self.table, self.resamples = table, resamples
        self.metrics = METRICS[table.task]
        self.folds_drawn = table.test_share is not None  # else the folds are a partition
        cells = {record.key: (run, record) for own in have for run, record in own}
        self.collapsed = {key for key, (_, record) in cells.items() if record.collapsed}
        self.weight = next((record.stated_weight for _, record in cells.values()), 1.0)
        self.real = {key: record.real for key, (_, record) in cells.items()}
        predictions = load_predictions(store, sorted(cells))
        # Folds of a partition share no item, so each is resampled on its own. Random splits share items: an item that
        # is drawn twice counts twice in all of them.
        folds = {key: run[0] for key, (run, _) in cells.items()}
        images = pd.concat(
            pd.DataFrame({"fold": folds[key], "group": one.groups, "defective": one.defective})
            for key, one in predictions.items()
        )
        # Test images with a defect of each item, by fold: where folds are a partition, the others are trained on.
        self.defects = {
            run[0]: Counter(predictions[key].groups[predictions[key].defective].tolist())
            for key, (run, _) in cells.items()
        }
        if (images.groupby("group")["fold"].nunique() > 1).any():
            folds, images["fold"] = dict.fromkeys(folds, -1), -1
        items = images.groupby(["fold", "group"], as_index=False)["defective"].any()
        strata = _strata(items)
        self.items, self.defective_items = len(items), int(items["defective"].sum())
        self.smallest = int(strata.value_counts().min())  # number of items of a stratum
        self.item_freedom = _item_freedom(items, strata)
        self.kinds_apart = strata.nunique() == items.groupby(["fold", "defective"]).ngroups
        drawn = rng("compare-items", table.dataset, *table.folds)
        weights = resampling.unit_weights(strata.to_numpy(), resamples, drawn)
        ones = np.ones((len(weights), 1))
        functions = {
            "ap": partial(resampling.ap_under_weights, definition=table.ap_definition),
            "accuracy": resampling.accuracy_under_weights,
            "macro_f1": resampling.macro_f1_under_weights,
        }
        self.values: dict[tuple[str, str], float] = {}  # (key, metric)
        self.sampled: dict[tuple[str, str], np.ndarray] = {}  # B floats
        numbers = {name: number for number, name in enumerate(zip(items["fold"], items["group"], strict=True))}
        for key, one in predictions.items():
            units = np.array([numbers[folds[key], group] for group in one.groups])
            for metric in self.metrics:
                under = partial(functions[metric], one.labels, one.answers, units)
                value = float(under(ones)[0])
                check_against(getattr(cells[key][1], metric), value, metric, store.where("scores", key))
                self.values[key, metric] = value
                self.sampled[key, metric] = under(weights)
        self._runs: dict[tuple[Run, ...], resampling.RunWeights] = {}

    def runs(self, runs: Sequence[Run]) -> resampling.RunWeights:
        """Return the bootstrap weights of these runs: equal for equal runs, whatever the row and their order."""
        key = tuple(runs)
        if key not in self._runs:
            several = any(run[3] for run in key)
            given = key if several else [run[:3] for run in key]  # one adapter: as before there were seeds of them
            ordered = sorted(given, key=lambda run: (*run[1:], run[0]))  # as in most grids, so that numbers stay
            drawn = rng("compare-runs", *(number for run in ordered for number in run))
            self._runs[key] = resampling.run_weights(key, self.resamples, drawn, self.folds_drawn)
        return self._runs[key]

    def is_random(self, runs: Iterable[Run]) -> bool:
        """Return whether anything in these runs is random: a draw, a seed, or the test split."""
        return self.folds_drawn or any(draw >= 0 or seed >= 0 for _, draw, seed, _ in runs)

    def has_enough(self, runs: Collection[Run]) -> bool:
        """Return whether these runs are enough for a verdict: several, unless nothing in them is random."""
        return not self.is_random(runs) or self.runs(list(runs)).count >= inference.FEWEST_RUNS

    def of(self, keys: Sequence[str], metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the metric of R cells: R values, and R,B values under the resamples."""
        values = np.array([self.values[key, metric] for key in keys])
        return values, np.stack([self.sampled[key, metric] for key in keys])

    def cells(self, runs: Mapping[Run, str]) -> Cells:
        """Return the headline metric of the cells of a row."""
        return Cells(list(runs), *self.of(list(runs.values()), self.metrics[0]))


def _strata(items: pd.DataFrame) -> pd.Series:
    """Number the strata of test items: those with and without a defect of each fold.

    A single item has no variance, so where a stratum would have one, its fold is one stratum.
    """
    sizes = items.groupby(["fold", "defective"])["group"].transform("size")
    alone = items["fold"].isin(items.loc[sizes == 1, "fold"])
    return items.groupby(["fold", items["defective"] & ~alone]).ngroup()


def _item_freedom(items: pd.DataFrame, strata: pd.Series) -> int:
    """Return the degrees of freedom of the variance over items: of the strata with the rarer kind, over all folds."""
    sizes = strata.map(strata.value_counts())
    by_fold = (sizes - 1).groupby([items["defective"], items["fold"]]).first()
    return int(by_fold.groupby("defective").sum().min())


def _evidence(
    drawn: _Resampled,
    rows: list[Row],
    have: list[Have],
    spending: Spending,
    against: str | None,
    nulls: Mapping[str, str | None],
) -> Evidence:
    table = drawn.table
    made = [_row(drawn, row, own, spending) for row, own in zip(rows, have, strict=True)]
    best = efficient([(row.cost, row.intervals[HEADLINE[table.task]].estimate, not row.incomplete) for row in made])
    made = [replace(row, efficient=is_best) for row, is_best in zip(made, best, strict=True)]
    keys = _keys(made, have)
    baseline = baseline_among({augmenter for (augmenter, _), runs in keys.items() if runs}, against)
    to_baseline = [(name, base) for name in keys if (base := _partner(name, baseline, keys)) is not None]
    others = [name for name in keys if name[1] and name[0] != baseline]
    pairs = [(a, b) for a, b in combinations(others, 2) if a[1] == b[1] and a[0] != b[0]]
    compared = [_compared(drawn, keys, wanted) for wanted in (to_baseline, pairs)]
    to_null = {name: (nulls[name[0]], name[1]) for name, _ in to_baseline if (nulls[name[0]], name[1]) in keys}
    return Evidence(
        table,
        made,
        baseline,
        *compared,
        checks=_artefact_checks(drawn, keys, compared[0], to_null),
        groups=drawn.items,
        defective_groups=drawn.defective_items,
        smallest=drawn.smallest,
        kinds_apart=drawn.kinds_apart,
        resamples=drawn.resamples,
        metrics=drawn.metrics,
        wanted=(against,) if against else BASELINES,
        over_free=_over_free(drawn, keys, baseline),
        weight=drawn.weight,
    )


def _row(drawn: _Resampled, row: Row, own: Have, spending: Spending) -> RowEvidence:
    keys, runs = [record.key for _, record in own], [run for run, _ in own]
    found = dict.fromkeys(drawn.metrics, Interval())
    if keys:
        weights, freedom = drawn.runs(runs), drawn.item_freedom
        found = {
            name: resampling.interval(*drawn.of(keys, name), weights, freedom, bounds=(0, 1)) for name in drawn.metrics
        }
    return RowEvidence(
        row.augmenter,
        int(row.n_aug or 0),
        found,
        _variance_split(runs, [drawn.values[key, drawn.metrics[0]] for key in keys]),
        any(run[2] >= 0 for run in runs),
        spending.of(keys),
        float(np.mean([record.seconds for _, record in own])) if own else nan,
        spending.inferred(keys),
        **row.basis(),
    )


def _variance_split(runs: Sequence[Run], values: Sequence[float]) -> inference.VarianceSplit:
    """Split the variance of the means over adapters, which are no source of it here."""
    by_run: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        by_run[run[:3]].append(value)
    return inference.variance_split(list(by_run), [float(np.mean(own)) for own in by_run.values()])


Keys = Mapping[tuple[str, int], dict[Run, str]]  # row -> its runs


def _keys(rows: Sequence[RowEvidence], have: Sequence[Have]) -> Keys:
    return {row.name: {run: record.key for run, record in own} for row, own in zip(rows, have, strict=True)}


def _over_free(drawn: _Resampled, keys: Keys, baseline: str) -> tuple[OverFree, ...]:
    """Compare the rows with synthetic images with all that need no generator; () where `against` says it already."""
    free = [(name, 0) for name in FREE if keys.get((name, 0))]
    rows = [name for name in keys if name[1]]
    if not free or free == [(baseline, 0)]:
        return ()
    each = [_compared(drawn, keys, [(row, one) for row in rows]) for one in free]
    every = iter(_compared(drawn, keys, [(row, one) for one in free for row in rows]))
    wide = [[next(every) for _ in rows] for _ in free]
    return tuple(
        _strongest([ones[place] for ones in each], [ones[place] for ones in wide], drawn, keys[row])
        for place, row in enumerate(rows)
    )


def _strongest(
    ones: Sequence[Comparison], wide: Sequence[Comparison], drawn: _Resampled, runs: Iterable[Run]
) -> OverFree:
    """Combine the differences of a row to each free baseline: ``wide`` are corrected for the number of these."""
    known = [one for one in ones if one.together.runs]
    if not known:
        return OverFree(ones[0].augmenter, ones[0].n_aug, "", Interval(), inference.Verdict.TOO_FEW)
    least = min(known, key=lambda one: one.together.estimate)
    low = min(one.together.low for one in known)
    high = min(one.together.high for one in wide if one.together.runs)
    number = min(one.together.runs for one in known)
    return OverFree(
        least.augmenter,
        least.n_aug,
        least.versus,
        Interval(least.together.estimate, low, high, number),
        inference.verdict(low, high, number, drawn.is_random(runs)),
        max(one.collapsed for one in known),
    )


# -- what rows are worth in real defects


def _with_worths(parts: Sequence[tuple[_Resampled, Evidence, Keys]]) -> list[Evidence]:
    """Add `Worth` to the evidence of a protocol's tables, where those without synthetic images are a curve."""
    curves: dict[tuple[int, ...], list[tuple[int | str, _Resampled, dict[Run, str]]]] = defaultdict(list)
    for drawn, one, keys in parts:
        own = keys.get(("none", 0), {})
        if one.table.task == "detection" and one.table.shots and own and None not in map(drawn.real.get, own.values()):
            curves[one.table.folds].append((one.table.shots, drawn, own))
    made = []
    for drawn, one, keys in parts:
        curve = curves[one.table.folds]
        rows = [name for name in keys if (name[1] or name[0] == BESIDE) and keys[name]]
        if len(curve) < FEWEST_POINTS or not rows:
            made.append(one)
            continue
        made.append(replace(one, worths=_worths(curve, drawn, {name: keys[name] for name in rows}, one.table.shots)))
    return made


def _worths(
    curve: Sequence[tuple[int | str, _Resampled, dict[Run, str]]], drawn: _Resampled, rows: Keys, shots: int | str
) -> list[Worth]:
    """Return what rows with these shots are worth; the curve is shots, and where to find the row without images."""
    images = {number: [other.real[key] for key in own.values()] for number, other, own in curve}
    counted = counting(images, drawn.defects, drawn.folds_drawn)
    points = {counted.of[number]: other.cells(own) for number, other, own in curve}
    if len(points) < FEWEST_POINTS or (shots and shots not in counted.of):  # two numbers of shots may be all there are
        return []
    collapsed = sum(len(set(own.values()) & other.collapsed) for _, other, own in curve)
    is_known = all(other.has_enough(own) for _, other, own in curve)
    count = counted.of.get(shots, 0.0)
    return [
        Worth(
            *name,
            _exchange(points, drawn, runs, count)
            if is_known and drawn.has_enough(runs)
            else Exchange(count, rate=Rate.TOO_FEW),
            counted,
            collapsed + len(set(runs.values()) & drawn.collapsed),
        )
        for name, runs in rows.items()
        if runs
    ]


def _exchange(points: Mapping[float, Cells], drawn: _Resampled, runs: Mapping[Run, str], count: float) -> Exchange:
    generator = rng("exchange", drawn.table.dataset, *drawn.table.folds)
    return exchange(points, drawn.cells(runs), count, generator, drawn.item_freedom, drawn.folds_drawn)


def baseline_among(names: Collection[str], against: str | None = None) -> str:
    """Return ``against``, or the first of `BASELINES` among the augmenters of a table; "" where there is none.

    On pages of several stores a name with several settings has the start of a digest appended, which is accepted too.
    """
    for wanted in (against,) if against else BASELINES:
        found = [name for name in sorted(names) if name == wanted or name.startswith(f"{wanted} #")]
        if len(found) == 1 or wanted in found:
            return wanted if wanted in found else found[0]
    return ""


def _partner(name: tuple[str, int], baseline: str, keys: Keys) -> tuple[str, int] | None:
    """Return the baseline row to compare a row with: that without synthetic images, else that with the same N_aug."""
    if not baseline or name[0] == baseline:
        return None
    return next((other for other in ((baseline, 0), (baseline, name[1])) if other in keys), None)


def _compared(
    drawn: _Resampled, keys: Keys, wanted: Sequence[tuple[tuple[str, int], tuple[str, int]]]
) -> list[Comparison]:
    """Compare these pairs of rows, corrected for multiple comparisons."""
    paired = [pair_runs(keys[a], keys[b]) for a, b in wanted]
    decided = sum(bool(pairs) and drawn.has_enough(pairs) for pairs in paired)
    made = [_one(drawn, a, b, pairs, decided) for (a, b), pairs in zip(wanted, paired, strict=True)]
    tested = [index for index, one in enumerate(made) if one.p == one.p]
    for index, p in zip(tested, inference.holm([made[index].p for index in tested]), strict=True):
        made[index] = replace(made[index], p_holm=p)
    return made


def _artefact_checks(
    drawn: _Resampled, keys: Keys, gains: Sequence[Comparison], nulls: Mapping[tuple[str, int], tuple[str, int]]
) -> list[ArtefactCheck]:
    """Check the gains of the rows that have a null, by what is left over it and by what it gains itself."""
    own = {one.row: one for one in gains}
    wanted = [pair for pair in nulls.items() if set(pair) <= own.keys()]
    bases = dict.fromkeys((null, (own[null].versus, own[null].versus_n_aug)) for _, null in wanted)
    compared = _compared(drawn, keys, [*wanted, *bases])
    null_gains = {one.row: one for one in compared[len(wanted) :]}
    return [
        ArtefactCheck(
            own[row],
            null_gains[null],
            over,
            inference.finding(own[row].verdict, over.verdict, null_gains[null].verdict),
        )
        for (row, null), over in zip(wanted, compared, strict=False)
    ]


def _one(
    drawn: _Resampled, a: tuple[str, int], b: tuple[str, int], pairs: Mapping[Run, tuple[str, str]], comparisons: int
) -> Comparison:
    by_seed: dict[int, list[float]] = {}
    alone = together = Interval()
    if runs := list(pairs):
        first, second = (drawn.of(keys, drawn.metrics[0]) for keys in zip(*pairs.values(), strict=True))
        values, sampled = first[0] - second[0], first[1] - second[1]
        alone, together = (
            resampling.interval(values, sampled, drawn.runs(runs), drawn.item_freedom, number)
            for number in (1, max(comparisons, 1))
        )
        for (_, _, seed, _), value in zip(runs, values.tolist(), strict=True):
            if seed >= 0:
                by_seed.setdefault(seed, []).append(value)
    p = nan
    if len(by_seed) >= inference.FEWEST_SEEDS:
        means = np.array([np.mean(by_seed[seed]) for seed in sorted(by_seed)])
        p = inference.sign_flip_p(means, rng("compare-signs", drawn.table.dataset, *a, *b))
    decision = inference.verdict(together.low, together.high, together.runs, drawn.is_random(pairs))
    collapsed = len({key for keys in pairs.values() for key in keys} & drawn.collapsed)
    return Comparison(*a, *b, alone, together, decision, len(by_seed), p, collapsed=collapsed)


# -- test scores as arrays


TOLERANCE = 1e-6  # between a record's metric and that of its scores; rounding differs by far less


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of one cell's N test images."""

    labels: np.ndarray  # N: in detection bool, True = defect; in recognition int64 class indices
    answers: np.ndarray  # N: in detection logits, float32; in recognition int64 predicted class indices
    groups: np.ndarray  # N str: images of one physical item share a group
    defective: np.ndarray  # N bool


def load_predictions(store: Store, keys: Sequence[str]) -> dict[str, Predictions]:
    """Load the test scores of these cells, by key.

    Raises:
        UserError: scores are missing, damaged, or not scores.
    """
    contents = store.files.read_many([store.name("scores", key) for key in keys])
    return {key: _predictions_of(data, store.where("scores", key)) for key, data in zip(keys, contents, strict=True)}


def _predictions_of(data: bytes | None, place: str) -> Predictions:
    if data is None:
        raise UserError(f"scores '{place}' are missing: run the grid again to make them anew")
    try:
        table = scores_frame(data)
        test = table[table["part"] == "test"]
        names, groups = test["label"].to_numpy(str), test["group"].to_numpy(str)
        if "logit" in test:
            return Predictions(names != GOOD, test["logit"].to_numpy(), groups, names != GOOD)
        columns = [column for column in test if column.startswith("logit_")]
        number = {column.removeprefix("logit_"): place for place, column in enumerate(columns)}
        labels = np.array([number[name] for name in names], np.int64)
        return Predictions(labels, test[columns].to_numpy().argmax(axis=1), groups, names != GOOD)
    except (KeyError, ValueError) as error:
        raise UserError(f"scores '{place}' are damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def check_against(stated: float, found: float, metric: str, place: str) -> None:
    """Raise UserError where a record's metric does not follow from its scores: one of the two is of another run."""
    if not abs(stated - found) <= TOLERANCE:
        raise UserError(f"scores '{place}' give {metric} {found:.6f}, their record says {stated:.6f}: {FIX_HINT}")

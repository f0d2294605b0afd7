"""Grid -> plan: every cell and what it needs.

The plan is a graph of stages. A cell needs the first chunks of its pools, a pool may need an adapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from augbench.core import registry
from augbench.core.contracts import GOOD, Augmenter, Part, Shots
from augbench.core.errors import UserError
from augbench.core.protocol import Protocol
from augbench.core.specs import AdapterSpec, AugmenterSpec, Cell, DataSpec, FidelitySpec, PoolSpec, SearchSpec, regime
from augbench.planning.extractor_choice import resolve
from augbench.planning.grid import AugmenterEntry, DatasetEntry, Grid
from augbench.planning.library import ABSENT, Library
from augbench.storage.store import Store

FEWEST = 2  # pictures that can be compared with real ones


@dataclass(frozen=True)
class PoolSlice:
    """The first ``n`` pictures of a pool."""

    pool: PoolSpec
    n: int

    @property
    def chunks(self) -> int:
        """How many of the pool's chunks must be there."""
        return self.pool.chunks_for(self.n)


@dataclass
class Plan:
    """What a grid means: its cells and pools, and what was left out and why."""

    grid: Grid
    library: Library
    cells: list[Cell]
    needs: dict[str, tuple[PoolSlice, ...]]  # cell key -> what it trains on besides real pictures
    pools: dict[str, PoolSpec]
    pool_sizes: dict[str, int]  # pool key -> pictures, the largest N_aug that any cell takes
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> cells
    absent: list[str] = field(default_factory=list)  # datasets whose files are not at hand
    not_runnable: dict[str, str] = field(default_factory=dict)  # augmenter -> why
    fidelity: dict[str, FidelitySpec] = field(default_factory=dict)  # pool key -> how it is compared with real defects

    @cached_property
    def by_key(self) -> dict[str, Cell]:
        """The cells by key."""
        return {cell.key: cell for cell in self.cells}

    @property
    def images(self) -> int:
        """Pictures to generate for the whole grid."""
        return sum(self.pool_sizes.values())

    @property
    def naive_images(self) -> int:
        """Pictures if every cell made its own, as a script per table row does."""
        return sum(take.n for cell in self.cells for take in self.needs[cell.key])

    def adapter(self, pool: PoolSpec) -> AdapterSpec | None:
        """What must be learned before this pool, if anything."""
        return pool.adapter if self.library.augmenter(pool.augmenter).learns else None

    def search(self, pool: PoolSpec) -> SearchSpec | None:
        """What must be chosen before anything is learned or made for this pool, if anything."""
        return SearchSpec(pool.adapter) if self.library.augmenter(pool.augmenter).candidates() else None

    def require_runnable(self) -> None:
        """Raises UserError where a dataset or an augmenter of the grid cannot run here."""
        for label in self.absent:
            self.library.dataset(label).root()  # says what is missing, and where to get it
        for name, reason in self.not_runnable.items():
            raise UserError(f"augmenter '{name}' cannot run yet: {reason}")


def make_plan(grid: Grid, store: Store | None = None) -> Plan:
    """Expand a grid: drop what cannot be and say why, share what can be shared, check what each part needs.

    Args:
        grid: the checked grid file.
        store: where fingerprints of datasets are cached, if anywhere.

    Raises:
        UserError: an unknown name or setting, or something that a dataset cannot give (shots, masks, pictures).
    """
    _refuse_borrowed_names(grid)
    plan = Plan(grid, Library.of(grid.datasets), [], {}, {}, {})
    augmenters = [(e, _augmenter_spec(plan.library, e.name, e.settings, e.label)) for e in grid.augmenters]
    for data, protocol in _data_axis(grid, plan, store):
        for entry, spec in augmenters:
            for cell in _cells(grid, plan, data, protocol, entry, spec):
                _add(plan, cell)
    if not plan.cells:
        why = "; ".join(plan.dropped) or "an axis is empty"
        raise UserError(f"grid '{grid.name}' holds no cell that can be trained: {why}")
    _check_needs(plan)
    _add_fidelity(plan)
    return plan


def _add_fidelity(plan: Plan) -> None:
    """One measurement a pool; all pools of a dataset by equally many pictures, or they could not be compared.

    None where there are too few pictures on either side.
    """
    entry, sizes = plan.grid.fidelity, {}
    if entry is None:
        return
    extractor = resolve(entry.extractor)
    for key, pool in plan.pools.items():
        sizes[pool.data.alias] = min(plan.pool_sizes[key], sizes.get(pool.data.alias, plan.pool_sizes[key]))
    for key, pool in plan.pools.items():
        count = min(entry.pictures or sizes[pool.data.alias], plan.pool_sizes[key])
        if pool.data.alias not in plan.absent and min(count, _unseen(plan, pool.data)) >= FEWEST:
            plan.fidelity[key] = FidelitySpec(pool, extractor, count)


def _unseen(plan: Plan, data: DataSpec) -> int:
    """Defective pictures of the test split."""
    return int((plan.library.split(data).test["label"] != GOOD).sum())


def _refuse_borrowed_names(grid: Grid) -> None:
    """In tables and keys an alias stands where a name stands: it must not be the name of something else."""
    for room, entries in (("datasets", grid.datasets), ("augmenters", grid.augmenters)):
        for entry in entries:
            if entry.label != entry.name and entry.label in registry.find(room):
                raise UserError(
                    f"grid '{grid.name}': {room}: '{entry.name}' cannot go as '{entry.label}', which exists"
                )


def _augmenter_spec(library: Library, name: str, settings: Mapping[str, Any], label: str) -> AugmenterSpec:
    """An augmenter's spec; makes the plug-in once to check its settings and hash their content.

    What a mixture is made of enters its key by the digests of the parts.
    """
    augmenter = library.augmenter(AugmenterSpec(name, label, settings, settings))
    key_settings = {**augmenter.key_settings(), **registry.version("augmenters", name)}
    if augmenter.parts():
        parts = [(part_spec(library, part).digest, part.share) for part in augmenter.parts()]
        if len({spec for spec, _ in parts}) < len(parts):
            raise UserError(f"augmenter '{label}': two parts are the same, so their pictures would be too: join them")
        key_settings = {"parts": parts}
    return AugmenterSpec(name, label, settings, key_settings)


def part_spec(library: Library, part: Part) -> AugmenterSpec:
    """The spec of a mixture's part; the same as if the grid named it with these settings."""
    return _augmenter_spec(library, part.augmenter, part.settings, part.augmenter)


def notes_of(library: Library, cell: Cell, takes: Iterable[PoolSlice]) -> list[str]:
    """What a reader of the cell's numbers must know about the pictures it takes, a line each."""
    notes = [(take.pool.augmenter.name, library.augmenter(take.pool.augmenter).notes(cell.shots)) for take in takes]
    return list(dict.fromkeys(f"{name}: {note}" for name, note in notes if note))


def _data_axis(grid: Grid, plan: Plan, store: Store | None) -> Iterator[tuple[DataSpec, Protocol]]:
    """Every dataset, in every fold, under every protocol."""
    for entry in grid.datasets:
        dataset = plan.library.dataset(entry.label)
        fingerprint = plan.library.fingerprint(entry.label, store)
        if fingerprint == ABSENT:
            plan.absent.append(entry.label)
        for protocol in grid.protocols:
            for fold in _folds(grid, entry, dataset.folds, protocol.test_share):
                yield _data_spec(plan, entry, fingerprint, fold, protocol), protocol


def _data_spec(plan: Plan, entry: DatasetEntry, fingerprint: str, fold: int | None, protocol: Protocol) -> DataSpec:
    dataset = plan.library.dataset(entry.label)
    holdout = protocol.holdout if dataset.task == "detection" else 0.0
    test_share = protocol.test_share if dataset.folds else None  # an official split is never drawn anew
    classes = dataset.classes() if dataset.task == "recognition" and fingerprint != ABSENT else ()
    settings = {**dataset.key_settings(), **registry.version("datasets", entry.name)}
    return DataSpec(entry.name, entry.label, settings, fingerprint, fold, holdout, classes, test_share)


def _folds(grid: Grid, entry: DatasetEntry, k: int, test_share: float | None) -> tuple[int | None, ...]:
    """The folds to run; (None,) where the official split is used. Of draws of a test share there is no end."""
    if not k:
        return (None,)
    folds = entry.folds or grid.folds
    for fold in folds:
        if fold >= k and test_share is None:
            raise UserError(f"grid '{grid.name}': fold {fold} does not exist: '{entry.label}' has folds 0 to {k - 1}")
    return folds


def _cells(
    grid: Grid, plan: Plan, data: DataSpec, protocol: Protocol, entry: AugmenterEntry, spec: AugmenterSpec
) -> Iterator[Cell]:
    """All cells of one augmenter on one dataset; what cannot be is counted in ``plan.dropped``."""
    augmenter = plan.library.augmenter(spec)
    task = plan.library.dataset(data.alias).task
    counts = entry.n_aug or grid.n_aug if augmenter.makes_images else (0,)
    seeds = entry.seeds or grid.seeds
    for shots in entry.shots or grid.shots:
        draws: tuple[int | None, ...] = grid.draws if shots not in (0, "all") else (None,)
        for n_aug in counts:
            reason = _why_not(augmenter, entry.label, task, shots, n_aug)
            if reason:
                plan.dropped[reason] += len(draws) * len(seeds)
                continue
            for draw in draws:
                for seed in seeds:
                    fresh = grid.fresh_pools and n_aug > 0
                    yield Cell(data, spec, shots, draw, n_aug, seed, protocol, fresh)


def _why_not(augmenter: Augmenter, label: str, task: str, shots: Shots, n_aug: int) -> str:
    """Why a cell makes no sense, in words for the plan's table; "" if it does."""
    if augmenter.makes_images and task not in augmenter.tasks:
        return f"{label}: made for {' and '.join(sorted(augmenter.tasks))}, not for {task}"
    if shots == 0 and not augmenter.makes_images:
        return f"{label} at zero-shot: no defective picture to learn from"
    if augmenter.makes_images and n_aug == 0:
        return f"{label} with N_aug 0: that is the augmenter 'none'"
    refusal = augmenter.refuses(shots)
    return f"{label} at {regime(shots)}-shot: {refusal}" if refusal else ""


def _add(plan: Plan, cell: Cell) -> None:
    """Add a cell and the pools it takes from; one that is there already counts as dropped."""
    if cell.key in plan.needs:
        plan.dropped["named twice by the grid"] += 1
        return
    takes = tuple(_takes(plan, cell.augmenter, cell, cell.n_aug * max(len(cell.data.classes), 1)))
    plan.cells.append(cell)
    plan.needs[cell.key] = takes
    for take in takes:
        plan.pools.setdefault(take.pool.key, take.pool)
        plan.pool_sizes[take.pool.key] = max(plan.pool_sizes.get(take.pool.key, 0), take.n)


def _takes(plan: Plan, spec: AugmenterSpec, cell: Cell, n: int) -> Iterator[PoolSlice]:
    """The pools behind ``n`` pictures: one, or for a mixture those of its parts, the first taking what is left over."""
    augmenter = plan.library.augmenter(spec)
    if not n:
        return
    if augmenter.not_runnable:
        plan.not_runnable[spec.name] = augmenter.not_runnable
    parts = augmenter.parts()
    if not parts:
        yield PoolSlice(_pool(plan, spec, cell), n)
        return
    shares = [int(part.share * n) for part in parts]
    shares[0] += n - sum(shares)
    for part, share in zip(parts, shares, strict=True):
        yield from _takes(plan, part_spec(plan.library, part), cell, share)


def _pool(plan: Plan, spec: AugmenterSpec, cell: Cell) -> PoolSpec:
    """The pool a cell takes from. It holds shots and draw only where the augmenter reads them in this regime."""
    augmenter = plan.library.augmenter(spec)
    reads = augmenter.reads(cell.shots)
    shots, draw = (cell.shots, cell.draw) if "shots" in reads else (None, None)
    fresh_for = cell.n_aug if cell.fresh_pools else None
    return PoolSpec(cell.data, spec, shots, draw, cell.seed, augmenter.chunk_size, fresh_for, "regions" in reads)


def _check_needs(plan: Plan) -> None:
    """Ask every dataset at hand for what the cells need, before hours are spent."""
    asked = set()
    for cell in plan.cells:
        question = (cell.data.digest, cell.shots, cell.draw)
        if cell.data.alias not in plan.absent and question not in asked:
            asked.add(question)
            plan.library.shots(cell.data, cell.shots, cell.draw)
    for pool, size in _largest_pools(plan):
        if pool.data.alias not in plan.absent:
            _check_pool(plan, pool, size)


def _largest_pools(plan: Plan) -> Iterable[tuple[PoolSpec, int]]:
    """Of the pools made from one view the largest: pools of other seeds see the same, and making a view takes time."""
    largest: dict[tuple, tuple[PoolSpec, int]] = {}
    for key, pool in plan.pools.items():
        view = (pool.data.digest, pool.augmenter.digest, pool.shots, pool.draw)
        if view not in largest or plan.pool_sizes[key] > largest[view][1]:
            largest[view] = pool, plan.pool_sizes[key]
    return largest.values()


def _check_pool(plan: Plan, pool: PoolSpec, size: int) -> None:
    augmenter = plan.library.augmenter(pool.augmenter)
    reads = augmenter.reads(pool.shots or 0)
    dataset = plan.library.dataset(pool.data.alias)
    lacks = f"augmenter '{pool.augmenter.name}' needs masks, and dataset '{pool.data.alias}' has none"
    if reads & {"masks", "regions"} and not dataset.has_masks():
        raise UserError(f"{lacks}: {augmenter.without_masks}")
    view = plan.library.view(pool.data, pool.shots, pool.draw, reads)
    if "regions" in reads and not view.regions:
        raise UserError(f"{lacks} on its training side: {augmenter.without_masks}")
    capacity = augmenter.capacity(view)
    if capacity is not None and size > capacity:
        raise UserError(
            f"augmenter '{pool.augmenter.name}' can make {capacity} pictures on '{pool.data.alias}', "
            f"the grid asks for {size}: lower n_aug"
        )

"""Expand a grid to a plan: all cells and what they depend on.

A cell needs the first chunks of its pools; a pool may need an adapter, and an adapter a search. A cell with a frozen
backbone also needs the features of these chunks and of the dataset.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from typing import Any

from augbench.core import registry
from augbench.core.contracts import GOOD, Augmenter, Part, Shots
from augbench.core.errors import UserError, listed
from augbench.core.filters import make_filters
from augbench.core.models import NamedIds
from augbench.core.protocol import Protocol
from augbench.core.specs import (
    FEATURE_CHUNK,
    AdapterSpec,
    AugmenterSpec,
    Cell,
    DataSpec,
    Draw,
    FeatureSpec,
    FidelitySpec,
    PoolSpec,
    SearchSpec,
    regime,
    shots_in_all,
)
from augbench.planning.extractor_choice import INCEPTION, resolve
from augbench.planning.grid import AugmenterEntry, DatasetEntry, Grid
from augbench.planning.library import ABSENT, Library
from augbench.storage.store import Store

FEWEST = 2  # images needed to compute fidelity
NOTHING_MEMORISED = "its filter 'memorised' drops nothing: its images are made without real defect images"
LONGEST_KEY = 228  # characters: with suffix and the mark of an unfinished file it fits into 255 bytes
_FILE_NAME = re.compile(r"[A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class PoolSlice:
    """The first ``n`` images of a pool."""

    pool: PoolSpec
    n: int

    @property
    def chunks(self) -> int:
        """The number of chunks that must be committed."""
        return self.pool.chunks_for(self.n)


@dataclass(frozen=True)
class FeatureSlice:
    """The first ``chunks`` chunks of features."""

    features: FeatureSpec
    chunks: int


@dataclass
class Plan:
    """An expanded grid: cells, pools, and the cells that were dropped with reasons."""

    grid: Grid
    library: Library
    cells: list[Cell]
    needs: dict[str, tuple[PoolSlice, ...]]  # cell key -> synthetic images that it trains on
    pools: dict[str, PoolSpec]
    pool_sizes: dict[str, int]  # pool key -> number of images: the largest slice of any cell
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> cells
    absent: list[str] = field(default_factory=list)  # datasets whose files are not available
    not_runnable: dict[str, str] = field(default_factory=dict)  # augmenter -> reason
    fidelity: dict[str, FidelitySpec] = field(default_factory=dict)  # pool key -> its fidelity computation
    reads: dict[str, tuple[FeatureSlice, ...]] = field(default_factory=dict)  # cell key -> features
    features: dict[str, FeatureSpec] = field(default_factory=dict)
    feature_chunks: dict[str, int] = field(default_factory=dict)  # key -> the most chunks that a cell needs
    # while planning: identity -> spec, so that its key is hashed once
    pool_of: dict[tuple, PoolSpec] = field(default_factory=dict, repr=False)
    features_of: dict[tuple, FeatureSpec] = field(default_factory=dict, repr=False)

    @cached_property
    def by_key(self) -> dict[str, Cell]:
        """The cells by key."""
        return {cell.key: cell for cell in self.cells}

    @property
    def images(self) -> int:
        """The number of images to generate for the whole grid."""
        return sum(self.pool_sizes.values())

    @property
    def naive_images(self) -> int:
        """The number of images without sharing pools, as with one script per table row."""
        return sum(pool_slice.n for cell in self.cells for pool_slice in self.needs[cell.key])

    def adapter(self, pool: PoolSpec) -> AdapterSpec | None:
        """Return the adapter that this pool needs, if any."""
        return pool.adapter if self.library.augmenter(pool.augmenter).learns else None

    def training_steps(self, pool: PoolSpec) -> int | None:
        """Return the optimiser steps of the adapter of a pool; None if there is none, or the number is unknown."""
        augmenter = self.library.augmenter(pool.augmenter)
        images = self._images_to_learn_from(pool) if augmenter.learns else None
        return images and augmenter.training_steps(pool.shots or 0, images, max(len(pool.data.classes), 1))

    def _images_to_learn_from(self, pool: PoolSpec) -> int | None:
        """Count the shots, or normal images without shots; where files are absent, as the dataset is known to have."""
        if isinstance(pool.shots, int) and pool.shots:
            return shots_in_all(pool.shots, pool.draw, pool.data.classes)
        if pool.data.alias not in self.absent:
            split = self.library.split(pool.data)
            return len(split.positives if pool.shots else split.negatives)
        counts = self.library.dataset(pool.data.alias).official_counts
        train = {kind.removeprefix("train "): n for kind, n in counts.items() if kind.startswith("train ")}
        normal = train.pop(GOOD, None)
        return (sum(train.values()) or None) if pool.shots else normal

    def search(self, pool: PoolSpec) -> SearchSpec | None:
        """Return the search that this pool or its adapter needs, if any."""
        return SearchSpec(pool.adapter) if self.library.augmenter(pool.augmenter).candidates() else None

    def require_runnable(self) -> None:
        """Raise UserError if a dataset or an augmenter of the grid cannot run here."""
        for label in self.absent:
            self.library.dataset(label).root()  # raises with a hint where to get the files
        for name, reason in self.not_runnable.items():
            raise UserError(f"augmenter '{name}' cannot run yet: {reason}")


def make_plan(grid: Grid, store: Store | None = None) -> Plan:
    """Expand a grid: drop impossible cells with a reason, share pools and adapters, check requirements.

    A store that holds cells of `Grid.former` goes on with that grid: its names are in their keys.

    Args:
        grid: the validated grid.
        store: cache for fingerprints of datasets; None: no cache, and no cells.

    Raises:
        UserError: an unknown name or setting, or a dataset without enough shots, masks or images.
    """
    if grid.former is not None and store is not None:
        plan = _expanded(grid.former, store)
        if not store.keys("cells").isdisjoint(plan.by_key):
            return plan
    return _expanded(grid, store)


def _expanded(grid: Grid, store: Store | None) -> Plan:
    _refuse_borrowed_names(grid)
    plan = Plan(grid, Library.of(grid.datasets), [], {}, {}, {})
    augmenters = [
        (e, _augmenter_spec(plan.library, e.name, e.settings, e.label, e.filters.as_dict())) for e in grid.augmenters
    ]
    for data, protocol in _data_axis(grid, plan, store):
        for entry, spec in augmenters:
            for cell in _cells(grid, plan, data, protocol, entry, spec):
                _add(plan, cell)
    if not plan.cells:
        why = "; ".join(plan.dropped) or "an axis is empty"
        raise UserError(f"grid '{grid.name}' holds no cell that can be trained: {why}")
    _check_needs(plan)
    _add_fidelity(plan)
    _check_keys(plan)
    return plan


def _check_keys(plan: Plan) -> None:
    """Refuse keys that cannot be names of files."""
    where = f"grid '{plan.grid.name[:40]}'"
    if len(plan.grid.name) > LONGEST_KEY:
        raise UserError(
            f"{where}: its name has {len(plan.grid.name)} characters, the most are {LONGEST_KEY}: shorten it"
        )
    for key in chain(plan.by_key, plan.pools, (spec.key for spec in plan.fidelity.values()), plan.features):
        if len(key) > LONGEST_KEY:
            what = f"the key '{key[:40]}...' has {len(key)} characters, names of files at most {LONGEST_KEY}"
            raise UserError(f"{where}: {what}: shorten the names ('as') of its dataset or augmenter")
        if not _FILE_NAME.fullmatch(key):
            raise UserError(f"{where}: the key '{key}' cannot be the name of a file: change the name in it")


def _add_fidelity(plan: Plan) -> None:
    """Add one fidelity computation per pool, with the same number of images for all pools of a dataset.

    Skip pools with too few generated or real images.
    """
    entry = plan.grid.fidelity
    if entry is None:
        return
    extractor = resolve(entry.extractor)
    sizes: dict[str, int] = {}
    unseen: dict[str, int] = {}
    if entry.layers and not extractor.startswith("inception_v3"):
        raise UserError(
            f"grid '{plan.grid.name}': fidelity.layers are of Inception, and fidelity.extractor is {extractor}: set it "
            f"to {INCEPTION}"
        )
    for key, pool in plan.pools.items():
        data = pool.data
        sizes[data.alias] = min(plan.pool_sizes[key], sizes.get(data.alias, plan.pool_sizes[key]))
        if data.digest not in unseen and data.alias not in plan.absent:
            unseen[data.digest] = int((plan.library.split(data).test["label"] != GOOD).sum())  # defect images
    for key, pool in plan.pools.items():
        count = min(entry.pictures or sizes[pool.data.alias], plan.pool_sizes[key])
        if min(count, unseen.get(pool.data.digest, 0)) >= FEWEST:
            plan.fidelity[key] = FidelitySpec(pool, extractor, count, entry.layers)


def _refuse_borrowed_names(grid: Grid) -> None:
    """Refuse an alias that is the name of another plug-in: tables and keys could not distinguish them."""
    for kind, entries in (("datasets", grid.datasets), ("augmenters", grid.augmenters)):
        for entry in entries:
            if entry.label != entry.name and entry.label in registry.find(kind):
                raise UserError(
                    f"grid '{grid.name}': {kind}: '{entry.name}' cannot be '{entry.label}', a plug-in's name"
                )


def _augmenter_spec(
    library: Library, name: str, settings: Mapping[str, Any], label: str, filters: Mapping[str, Any]
) -> AugmenterSpec:
    """Create an augmenter's spec; instantiates the plug-in to validate its settings and hash their content.

    The key settings of a mixture are the digests and shares of its parts, which its filters apply to.
    """
    augmenter = library.augmenter(AugmenterSpec(name, label, settings, settings))
    if filters and not augmenter.makes_images:
        raise UserError(f"augmenter '{label}' makes no images: take its filters out")
    if filters and (augmenter.from_outside or augmenter.certified()):
        raise UserError(
            f"augmenter '{label}' cannot make images again in place of dropped ones: take its filters out, and the "
            "images out of their folder"
        )
    key_settings = {**augmenter.key_settings(), **registry.version("augmenters", name)}
    if augmenter.parts():
        parts = [(part_spec(library, part, filters).digest, part.share) for part in augmenter.parts()]
        if len({spec for spec, _ in parts}) < len(parts):
            raise UserError(
                f"augmenter '{label}': two parts are equal, so their images would be equal, too: merge them"
            )
        key_settings = {"parts": parts}
    return AugmenterSpec(name, label, settings, key_settings, filters)


def part_spec(library: Library, part: Part, filters: Mapping[str, Any]) -> AugmenterSpec:
    """Return the spec of a mixture's part, equal to that of a grid entry with these settings and the filters."""
    return _augmenter_spec(library, part.augmenter, part.settings, part.augmenter, filters)


def notes_of(library: Library, cell: Cell, slices: Iterable[PoolSlice]) -> list[str]:
    """Return the caveats about the synthetic images of a cell, one line each."""
    notes = []
    for pool in (pool_slice.pool for pool_slice in slices):
        augmenter = library.augmenter(spec := pool.augmenter)
        notes += [(spec.name, augmenter.notes(cell.shots)), (spec.name, _training_note(library, cell, augmenter))]
        if not pool.shots and make_filters(spec.filters).memorised:
            notes.append((spec.alias, NOTHING_MEMORISED))
    return list(dict.fromkeys(f"{name}: {note}" for name, note in notes if note))


def _training_note(library: Library, cell: Cell, augmenter: Augmenter) -> str:
    """Say what a generator outside of augbench was trained on, against the shots of a cell; "" if that is unknown."""
    ids = augmenter.trained_on()
    if not ids or cell.data.fingerprint == ABSENT:
        return ""
    defects = set(ids) & set(library.split(cell.data).positives["id"])
    beyond = len(defects - set(library.shots(cell.data, cell.shots, cell.draw)["id"]))
    more = f", of which {beyond} are not among the shots" if beyond else ""
    return f"{augmenter.learned_words} {len(ids)} training images, {len(defects)} of them defects{more}"


def _data_axis(grid: Grid, plan: Plan, store: Store | None) -> Iterator[tuple[DataSpec, Protocol]]:
    """Yield every dataset in every fold with every protocol."""
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
    test_share = protocol.test_share if dataset.folds else None  # an official split is never replaced
    classes = dataset.classes() if dataset.task == "recognition" and fingerprint != ABSENT else ()
    settings = {**dataset.key_settings(), **registry.version("datasets", entry.name)}
    return DataSpec(entry.name, entry.label, settings, fingerprint, fold, holdout, classes, test_share)


def _folds(grid: Grid, entry: DatasetEntry, k: int, test_share: float | None) -> tuple[int | None, ...]:
    """Return the folds to run; (None,) for the official split. With a test share, fold numbers are unlimited."""
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
    """Yield all cells of one augmenter on one dataset; count impossible ones in ``plan.dropped``."""
    augmenter = plan.library.augmenter(spec)
    task = plan.library.dataset(data.alias).task
    counts = entry.n_aug or grid.n_aug if augmenter.makes_images else (0,)
    seeds: tuple[int | None, ...] = entry.seeds or grid.seeds
    if not protocol.is_random and not augmenter.makes_images:
        seeds = (None,)  # nothing is random
    adapter_seeds = grid.adapter_seeds if _learns(plan.library, spec) else (0,)
    for given in entry.shots or grid.shots:
        shots, draws = _shots_and_draws(given, grid)
        for n_aug in counts:
            reason = _why_not(augmenter, entry.label, task, shots, n_aug, protocol)
            if reason:
                plan.dropped[reason] += len(draws) * len(seeds) * len(adapter_seeds)
                continue
            for draw, adapter_seed, seed in product(draws, adapter_seeds, seeds):
                fresh = grid.fresh_pools and n_aug > 0
                yield Cell(data, spec, shots, draw, n_aug, seed, protocol, fresh, adapter_seed)


def _shots_and_draws(given: Shots | NamedIds, grid: Grid) -> tuple[Shots, tuple[Draw, ...]]:
    """Return a regime and its draws: named shots are one draw, of as many shots as there are ids."""
    if isinstance(given, NamedIds):
        return len(given.ids), (given.ids,)
    return given, grid.draws if given not in (0, "all") else (None,)


def _learns(library: Library, spec: AugmenterSpec) -> bool:
    """Whether an augmenter, or a part of a mixture, has adapters."""
    augmenter = library.augmenter(spec)
    return augmenter.learns or any(_learns(library, part_spec(library, part, {})) for part in augmenter.parts())


def _why_not(augmenter: Augmenter, label: str, task: str, shots: Shots, n_aug: int, protocol: Protocol) -> str:
    """Return why a cell is impossible, for the plan's table; "" if it is possible."""
    if protocol.normals_only:
        if task != "detection":
            return f"protocol {protocol.name}: made for detection, not for {task}"
        unread = augmenter.makes_images or shots != 0
        return f"protocol {protocol.name} uses no defect image: only none at zero-shot" if unread else ""
    if protocol.normality and task != "detection":
        return f"protocol {protocol.name}: its normality is made for detection, not for {task}"
    if protocol.labels == "masks" and task != "detection":
        return f"protocol {protocol.name}: labels from masks are made for detection, not for {task}"
    if protocol.budget == "steps" and protocol.sampler == "balanced" and shots == 0:
        return f"protocol {protocol.name} at zero-shot: no real defects that budget: steps could count"
    if augmenter.makes_images and task not in augmenter.tasks:
        return f"{label}: made for {' and '.join(sorted(augmenter.tasks))}, not for {task}"
    if shots == 0 and not augmenter.makes_images:
        return f"{label} at zero-shot: no defect image to learn from"
    if augmenter.makes_images and n_aug == 0:
        return f"{label} with N_aug 0: that is the augmenter 'none'"
    refusal = augmenter.refuses(shots)
    return f"{label} at {regime(shots)}-shot: {refusal}" if refusal else ""


def _add(plan: Plan, cell: Cell) -> None:
    """Add a cell and its pools; a duplicate counts as dropped."""
    if cell.key in plan.needs:
        plan.dropped["listed twice by the grid"] += 1
        return
    slices = tuple(_pool_slices(plan, cell.augmenter, cell, cell.n_aug * max(len(cell.data.classes), 1)))
    plan.cells.append(cell)
    plan.needs[cell.key] = slices
    for pool_slice in slices:
        plan.pools.setdefault(pool_slice.pool.key, pool_slice.pool)
        plan.pool_sizes[pool_slice.pool.key] = max(plan.pool_sizes.get(pool_slice.pool.key, 0), pool_slice.n)
    if cell.protocol.kind != "finetune" or cell.protocol.roundtrip:
        plan.reads[cell.key] = tuple(_feature_slices(plan, cell, slices))
        for one in plan.reads[cell.key]:
            plan.features.setdefault(one.features.key, one.features)
            plan.feature_chunks[one.features.key] = max(plan.feature_chunks.get(one.features.key, 0), one.chunks)


def _feature_slices(plan: Plan, cell: Cell, slices: Iterable[PoolSlice]) -> Iterator[FeatureSlice]:
    """Yield the features of all images of the dataset, and of the pool slices; in fine-tuning of the dataset alone."""
    rows = 0 if cell.data.alias in plan.absent else len(plan.library.row_of(cell.data.alias))
    own = (cell.data, cell.data.digest, -(-rows // FEATURE_CHUNK))
    read = slices if cell.protocol.kind != "finetune" else ()
    parts: list[tuple[DataSpec | PoolSpec, str, int]]
    parts = [own, *((one.pool, one.pool.key, one.chunks) for one in read if one.n)]
    for images, digest, chunks in parts:
        identity = (digest, cell.protocol.digest)
        if identity not in plan.features_of:
            plan.features_of[identity] = FeatureSpec(images, cell.protocol)
        yield FeatureSlice(plan.features_of[identity], chunks)


def _pool_slices(plan: Plan, spec: AugmenterSpec, cell: Cell, n: int) -> Iterator[PoolSlice]:
    """Yield the slices for ``n`` images: one, or for a mixture one per part; the first part gets the remainder."""
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
        yield from _pool_slices(plan, part_spec(plan.library, part, spec.filters), cell, share)


def _pool(plan: Plan, spec: AugmenterSpec, cell: Cell) -> PoolSpec:
    """Return the pool of a cell. Its spec has shots and draw only if the augmenter reads them in this regime."""
    augmenter = plan.library.augmenter(spec)
    reads = augmenter.reads(cell.shots)
    shots, draw = (cell.shots, cell.draw) if "shots" in reads else (None, None)
    fresh_for = cell.n_aug if cell.fresh_pools else None
    adapter_seed = cell.adapter_seed if augmenter.learns else 0
    assert cell.seed is not None  # the seed of a cell with synthetic images
    choices = (shots, draw, cell.seed, augmenter.chunk_size, fresh_for, "regions" in reads, adapter_seed)
    identity = (cell.data.prefix, cell.data.digest, spec.digest, *choices)
    if identity not in plan.pool_of:
        plan.pool_of[identity] = PoolSpec(cell.data, spec, *choices)
    return plan.pool_of[identity]


def _check_needs(plan: Plan) -> None:
    """Check that the available datasets meet the requirements of all cells, before hours of compute."""
    checked = set()
    for cell in plan.cells:
        request = (cell.data.digest, cell.shots, cell.draw)
        if cell.data.alias not in plan.absent and request not in checked:
            checked.add(request)
            plan.library.shots(cell.data, cell.shots, cell.draw)
    for pool, size in _largest_pools(plan):
        if pool.data.alias not in plan.absent:
            _check_pool(plan, pool, size)


def _largest_pools(plan: Plan) -> Iterable[tuple[PoolSpec, int]]:
    """Return the largest pool per view: pools of other seeds use the same view, and creating one is slow."""
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
    _check_trained_on(plan, pool, augmenter)
    if pool.augmenter.filters and make_filters(pool.augmenter.filters).unseen:
        items = plan.library.split(pool.data).negatives["group"].nunique()
        if items < 2:
            raise UserError(
                f"augmenter '{pool.augmenter.alias}': filters.unseen compares with normal images of at least 2 items, "
                f"and '{pool.data.alias}' has {items} to train on: take this filter out"
            )
    review = make_filters(pool.augmenter.filters).review
    if review is not None:
        reviewed = before_review(pool).key
        accepted = review.chosen(reviewed).capacity(pool.data.classes)
        if size > accepted:
            raise UserError(
                f"augmenter '{pool.augmenter.alias}': review '{review.root}' accepted {accepted} images of pool "
                f"'{reviewed}', the grid asks for {size}: lower n_aug, or certify more with augbench studio "
                f"--pool {reviewed} --store STORE --review {review.root}"
            )
    capacity = augmenter.capacity(view)
    if capacity is not None and size > capacity:
        raise UserError(
            f"augmenter '{pool.augmenter.name}' can make {capacity} images on '{pool.data.alias}', "
            f"the grid asks for {size}: lower n_aug"
        )


def before_review(pool: PoolSpec) -> PoolSpec:
    """Return the pool whose images a person reviewed."""
    filters = make_filters(pool.augmenter.filters).before_review.as_dict()
    return replace(pool, augmenter=replace(pool.augmenter, filters=filters))


def _check_trained_on(plan: Plan, pool: PoolSpec, augmenter: Augmenter) -> None:
    """Refuse a generator outside of augbench that saw images which are not of the training part."""
    split = plan.library.split(pool.data)
    strangers = set(augmenter.trained_on() or ()) - {*split.negatives["id"], *split.positives["id"]}
    if strangers:
        fold = "" if pool.data.fold is None else f" in fold {pool.data.fold}"
        raise UserError(
            f"augmenter '{pool.augmenter.name}' was trained on {listed(sorted(strangers))}, not in the training part "
            f"of '{pool.data.alias}'{fold}: its images cannot be evaluated there; train the generator without them"
        )

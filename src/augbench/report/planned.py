"""A plan as `augbench plan` and notebooks show it: the trainings, pools and images of a grid, and what is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from augbench.core.specs import FEATURE_CHUNK, Cell, FeatureSpec, PoolSpec, regime
from augbench.planning.audits import Audit, audits_of, load_audits
from augbench.planning.gpu_memory import estimates
from augbench.planning.plan import Plan, notes_of
from augbench.planning.remaining import Remaining
from augbench.report.evidence.forecast import forecast
from augbench.report.sheet import Section, Sheet
from augbench.storage.store import Store

Regime = tuple[float, str]  # how many shots, and its name in keys


def plan_section(plan: Plan, remaining: Remaining, store: Store) -> Section:
    """Return the units of a plan, as sheets, and sentences on what the store lacks of them."""
    sheets = [_cells_sheet(plan), *([_pools_sheet(plan)] if plan.pools else [])]
    return Section(plan.grid.name, sentences=list(_lines(plan, remaining, store)), sheets=sheets, lead=plan.grid.about)


def _lines(plan: Plan, remaining: Remaining, store: Store) -> Iterator[str]:
    if plan.pools:
        saved = f" ({plan.naive_images / plan.images:.1f} times fewer)" if plan.images < plan.naive_images else ""
        yield (
            f"{_pool_arithmetic(plan)} = {plan.images:,} images to generate; "
            f"without shared pools it would be {plan.naive_images:,}{saved}."
        )
    yield from _training_steps(plan)
    if plan.features:
        yield _features(plan)
    if line := _gpu_memory(plan):
        yield line
    for reason, count in plan.dropped.items():
        yield f"left out: {count} x {reason}"
    for note, regimes in _notes(plan).items():
        yield f"note ({', '.join(_names(regimes))}): {note}"
    for protocol in (one for one in plan.grid.protocols if one.superseded_by):
        better = f"superseded by {protocol.superseded_by}: augbench protocols show {protocol.superseded_by}"
        yield f"protocol {protocol.name} is {better}"
    for label in plan.absent:
        yield f"not available: dataset '{label}' has no root; the numbers are exact, the keys depend on its files"
    for name, reason in plan.not_runnable.items():
        yield f"not runnable: augmenter '{name}': {reason}"
    for place, audit in _audits(plan, store).items():
        yield f"near-copies across the split of '{place}': {audit}"
    if remaining.begun_by_others:
        chunks = f"{len(remaining.begun_by_others)} chunks of unfinished pools"
        yield f"{chunks} were made by another version of augbench: they are generated again"
    yield from forecast(plan, remaining, store)
    yield _left(plan, remaining, store)


def _audits(plan: Plan, store: Store) -> dict[str, str]:
    """Return what the store knows about near-copies: dataset, with the share of random test splits -> text."""
    specs = audits_of(plan)
    found = load_audits(store, (spec.key for spec in specs.values())) if store.exists() else {}
    return {
        label + ("" if share is None else f" ({100 * share:g} % test)"): found.get(spec.key, Audit(spec.key)).text()
        for (label, share), spec in specs.items()
    }


def _cells_sheet(plan: Plan) -> Sheet:
    """Return a table of trainings by augmenter and regime."""
    counts = Counter((cell.augmenter.alias, regime(cell.shots, cell.draw)) for cell in plan.cells)
    regimes = _names(_sized(cell) for cell in plan.cells)
    augmenters = dict.fromkeys(cell.augmenter.alias for cell in plan.cells)
    rows = [(name, *(str(counts[name, one] or "-") for one in regimes)) for name in augmenters]
    return Sheet.of(["augmenter"], regimes, rows, f"{len(plan.cells):,} trainings")


def _sized(spec: Cell | PoolSpec) -> Regime:
    return float("inf") if spec.shots == "all" else spec.shots or 0, regime(spec.shots, spec.draw)


def _names(regimes: Iterable[Regime]) -> list[str]:
    """Return the names of regimes, from zero over few to full."""
    return [name for _, name in sorted(set(regimes))]


def _notes(plan: Plan) -> dict[str, set[Regime]]:
    """Return notes on synthetic images: note -> regimes of the cells it applies to."""
    found: defaultdict[str, set[Regime]] = defaultdict(set)
    for cell in plan.cells:
        for note in notes_of(plan.library, cell, plan.needs[cell.key]):
            found[note].add(_sized(cell))
    return dict(found)


def _pool_groups(plan: Plan) -> dict[tuple[str, str, str, int], int]:
    """Count pools by (dataset, augmenter, regimes, images per pool)."""
    serves: defaultdict[str, set[Regime]] = defaultdict(set)
    for cell in plan.cells:
        for pool_slice in plan.needs[cell.key]:
            serves[pool_slice.pool.key].add(_sized(cell))
    groups: Counter[tuple[str, str, str, int]] = Counter()
    for key, pool in plan.pools.items():
        groups[pool.data.prefix, pool.augmenter.name, ", ".join(_names(serves[key])), plan.pool_sizes[key]] += 1
    return dict(groups)


def _pools_sheet(plan: Plan) -> Sheet:
    rows = [
        (dataset, augmenter, regimes, str(count), f"{size:,}", f"{count * size:,}")
        for (dataset, augmenter, regimes, size), count in _pool_groups(plan).items()
    ]
    heads = ["dataset", "augmenter", "serves"], ["pools", "of", "images"]
    return Sheet.of(*heads, rows, f"{len(plan.pools):,} pools")


def _pool_arithmetic(plan: Plan) -> str:
    """Format the sum of images, such as ``4 memseg pools x 120 + 12 ddpm pools x 120``."""
    by_name: Counter[tuple[str, int]] = Counter()
    for (_, augmenter, _, size), count in _pool_groups(plan).items():
        by_name[augmenter, size] += count
    terms = (f"{count} {name} pool{'s' * (count > 1)} x {size}" for (name, size), count in by_name.items())
    return " + ".join(terms)


def _training_steps(plan: Plan) -> list[str]:
    """Format the steps of adapters: ``steps per adapter: ddpm on ksdd2 (for inout) 420 at zero, 441 at few5``."""
    serves: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for cell in plan.cells:
        for pool_slice in plan.needs[cell.key]:
            serves[pool_slice.pool.key][cell.augmenter.alias] = None
    found: defaultdict[tuple[str, str, str], dict[Regime, str]] = defaultdict(dict)
    for key, pool in plan.pools.items():
        steps = plan.training_steps(pool)
        if steps is not None:
            row = (pool.augmenter.name, pool.data.alias, ", ".join(serves[key]))
            found[row][_sized(pool)] = f"{steps:,} at {regime(pool.shots, pool.draw)}"
    return [
        f"steps per adapter: {name} on {dataset} (for {rows}) {', '.join(steps[one] for one in sorted(steps))}"
        for (name, dataset, rows), steps in found.items()
    ]


def _features(plan: Plan) -> str:
    """Count the images that a frozen backbone reads, such as ``2,120 images ...: 1,320 of datasets, 800 of pools``."""
    images: Counter[str] = Counter()
    for key, spec in plan.features.items():
        count = sum(_feature_images(plan, spec, chunk) for chunk in range(plan.feature_chunks[key]))
        images["pools" if spec.pool else "datasets, as pixels behind a VAE" if spec.pixels else "datasets"] += count
    chunks, each = sum(plan.feature_chunks.values()), ", ".join(f"{n:,} of {what}" for what, n in images.items())
    uncounted = f"; the images of {', '.join(plan.absent)} are not here to be counted" if plan.absent else ""
    return f"{images.total():,} images to extract features of in {chunks:,} chunks: {each}{uncounted}."


def _gpu_memory(plan: Plan) -> str:
    """Format the estimates, such as ``GPU memory (estimated): adapt ddpm 7.2 GiB, train inout 9.1 GiB``."""
    found = [
        f"{stage} {name} {'unknown' if gib is None else f'{gib:.1f} GiB'}"
        for stage, needs in estimates(plan).items()
        for name, gib in needs.items()
    ]
    return f"GPU memory where one is used (estimated): {', '.join(found)}" if found else ""


def _feature_images(plan: Plan, spec: FeatureSpec, chunk: int) -> int:
    """Return the number of images in a chunk of features; the last one of a dataset may have fewer."""
    if spec.pool is not None:
        return spec.pool.chunk_size
    return min(FEATURE_CHUNK, len(plan.library.row_of(spec.images.alias)) - chunk * FEATURE_CHUNK)


def _left(plan: Plan, remaining: Remaining, store: Store) -> str:
    if remaining.nothing:
        return f"done: all {len(plan.cells):,} cells are in {store.url}"
    parts = []
    if remaining.searches:
        tried = sum(len(plan.library.augmenter(s.adapter.augmenter).candidates()) for s in remaining.searches)
        parts.append(f"{len(remaining.searches)} searches over {tried} candidates")
    if remaining.adapters:
        parts.append(f"{len(remaining.adapters)} adapters")
    if remaining.chunks:
        parts.append(f"{remaining.images:,} images in {len(remaining.chunks):,} chunks")
    if remaining.features:
        images = sum(_feature_images(plan, spec, chunk) for spec, chunk in remaining.features)
        parts.append(f"the features of {images:,} images in {len(remaining.features):,} chunks")
    parts.append(f"{len(remaining.cells):,} trainings")
    if remaining.fidelity:
        parts.append(f"the fidelity of {len(remaining.fidelity)} pools")
    failed = f"; {remaining.failed_before} failed before and are tried again" if remaining.failed_before else ""
    return f"done: {remaining.done:,} of {len(plan.cells):,} cells; left: {', '.join(parts)}{failed}"

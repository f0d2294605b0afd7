"""Versions of augbench, and precisions, in one store: equal keys mean equal bytes within each, not across them.

Finished units of any version stay valid; their records name the version. Units that another version left unfinished are
regenerated, so that no pool or adapter mixes versions. Nor may a pool mix precisions, as it would where a setting
``auto`` means another one on each machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import augbench
from augbench.core.errors import UserError
from augbench.core.specs import PoolSpec
from augbench.storage.store import DIRECTORIES, Store, parse_json

FIRST = "0.1.0"  # the release that did not record its version


def mark_version(store: Store) -> tuple[str, ...]:
    """Record in the store that this version uses it.

    Returns:
        On the first use by this version, the versions that used it before; else ().
    """
    there = store.keys("versions")
    if augbench.__version__ in there:
        return ()
    used = store.files.top() & DIRECTORIES - {"fingerprints"}  # planning in a new store writes these
    earlier = (tuple(sorted(there)) or (FIRST,)) if used else ()
    for version in (*earlier, augbench.__version__):
        store.write_json("versions", version, {"augbench": version})
    return earlier


def made_by_others(store: Store, pool: PoolSpec, chunks: Iterable[int]) -> set[int]:
    """Find the committed chunks of a pool that another version made.

    Raises:
        UserError: the provenance of a chunk is damaged.
    """
    made = {chunk: origin.get("versions", {}).get("augbench") for chunk, origin in _origins(store, pool, chunks)}
    return {chunk for chunk, version in made.items() if version != augbench.__version__}


def one_precision(store: Store, pool: PoolSpec, chunks: Iterable[int], own: str = "") -> None:
    """Refuse a pool whose chunks were made in different precisions; older ones and some plug-ins name none.

    Args:
        store: holds the pool.
        pool: to check.
        chunks: its committed chunks.
        own: precision of a further chunk; "": there is none.

    Raises:
        UserError: they were, or the provenance of a chunk is damaged.
    """
    made = {origin["precision"] for _, origin in _origins(store, pool, chunks) if origin.get("precision")}
    if len(found := sorted({*made, own} - {""})) > 1:
        raise UserError(
            f"pool '{store.where('pools', pool.key)}' mixes images in {' and '.join(found)}, as 'auto' differs between "
            f"machines: delete it and run the grid again, or set precision of '{pool.augmenter.alias}'"
        )


def _origins(store: Store, pool: PoolSpec, chunks: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield chunks of a pool with the provenance of each. Raises UserError where it is damaged."""
    numbers = sorted(chunks)
    names = [store.chunk_provenance_name(pool, chunk) for chunk in numbers]
    for chunk, name, data in zip(numbers, names, store.files.read_many(names), strict=True):
        if data is not None:
            yield chunk, parse_json(data, store.files.where(name))


def discard_chunks(store: Store, chunks: Sequence[tuple[PoolSpec, int]]) -> None:
    """Remove the commit markers of these chunks, and the summaries and fidelity records of their pools.

    Regeneration overwrites their images.
    """
    pools = {pool.key: pool for pool, _ in chunks}
    for key in sorted(store.keys("fidelity")):
        record = store.read_json("fidelity", key)
        if record and PoolSpec.from_dict(record["spec"]["pool"]).key in pools:
            store.files.remove(store.name("fidelity", key))
    for key in pools:
        store.files.remove(store.pool_file(key))  # lists committed chunks; rewritten at the end of a run
    for pool, chunk in chunks:
        store.files.remove(store.chunk_name(pool, chunk))

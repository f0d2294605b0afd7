"""Versions of augbench in one store: equal keys mean equal bytes within a version, not across versions.

Finished units of any version stay valid; their records name the version. Units that another version left unfinished are
regenerated, so that no pool or adapter mixes versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import augbench
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
    numbers = sorted(chunks)
    names = [store.chunk_provenance_name(pool, chunk) for chunk in numbers]
    made = {
        chunk: parse_json(data, store.files.where(name)).get("versions", {}).get("augbench")
        for chunk, name, data in zip(numbers, names, store.files.read_many(names), strict=True)
        if data is not None
    }
    return {chunk for chunk, version in made.items() if version != augbench.__version__}


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

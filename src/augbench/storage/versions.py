"""Versions of augbench in one store: equal keys mean equal bytes within a version, not across versions.

What is finished stays and counts, whichever version made it: its record names that version. What another version began
and did not finish is made anew, so that no pool and no adapter is a mixture of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import augbench
from augbench.core.specs import PoolSpec
from augbench.storage.store import Store, parse_json

FIRST = "0.1.0"  # the release that left no mark in a store


def mark_version(store: Store) -> tuple[str, ...]:
    """Note in the store that this version works on it.

    Returns:
        The versions that did before, at the first time that this one does; else nothing.
    """
    there = store.keys("versions")
    if augbench.__version__ in there:
        return ()
    earlier = (tuple(sorted(there)) or (FIRST,)) if store.exists() else ()
    for version in (*earlier, augbench.__version__):
        store.write_json("versions", version, {"augbench": version})
    return earlier


def made_by_others(store: Store, pool: PoolSpec, chunks: Iterable[int]) -> set[int]:
    """Find the committed chunks of a pool that another version made.

    Raises:
        UserError: the file that says how a chunk was made is damaged.
    """
    numbers = sorted(chunks)
    names = [store.chunk_provenance_name(pool, chunk) for chunk in numbers]
    found = set()
    for chunk, name, data in zip(numbers, names, store.files.read_many(names), strict=True):
        if data is not None:
            versions = parse_json(data, store.files.where(name)).get("versions", {})
            found |= {chunk} if versions.get("augbench") != augbench.__version__ else set()
    return found


def discard_chunks(store: Store, chunks: Sequence[tuple[PoolSpec, int]]) -> None:
    """Take back that these chunks are committed, and what was measured of their pools.

    Their images are written over when they are made anew.
    """
    pools = {pool.key: pool for pool, _ in chunks}
    for key in sorted(store.keys("fidelity")):
        record = store.read_json("fidelity", key)
        if record and PoolSpec.from_dict(record["spec"]["pool"]).key in pools:
            store.files.remove(store.name("fidelity", key))
    for key in pools:
        store.files.remove(store.pool_file(key))  # sums up what is committed: written again at the end of the run
    for pool, chunk in chunks:
        store.files.remove(store.chunk_name(pool, chunk))

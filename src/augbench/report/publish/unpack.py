"""A store made of published results, so that a run can go on from them: ``augbench results unpack``."""

from __future__ import annotations

from augbench.core.errors import UserError, listed
from augbench.report.evidence.part_costs import COSTS
from augbench.report.publish.contents import PUBLISHED
from augbench.storage.store import Store

ORDER = (*PUBLISHED[1:], PUBLISHED[0])
"""A record comes last: a cell that has one is done."""


def unpack(published: Store, store: Store) -> str:
    """Copy records, scores, grids and costs out of published results into a new store.

    A run there makes only the cells that are missing; their images, adapters and features are made anew, as published
    results have none. After an interruption the same call goes on.

    Args:
        published: published results of any form.
        store: a new one, or one that an interrupted call left.

    Returns:
        What was done, in a sentence.

    Raises:
        UserError: there are no results, the store holds others or is a publication, or an archive is damaged.
    """
    store.require_writable()
    if not published.keys("cells"):
        raise UserError(f"'{published.url}' holds no published results: give a folder that `results export` wrote")
    keys = {kind: sorted(published.keys(kind)) for kind in ORDER}  # a damaged archive is refused before any write
    there = {kind: store.keys(kind) for kind in ORDER}
    if others := [key for kind, own in there.items() for key in sorted(own - set(keys[kind]))]:
        raise UserError(f"store '{store.url}' holds other results ({listed(others)}): give --store a new one")
    if published.files.exists(COSTS):
        store.files.write(COSTS, published.files.read(COSTS))
    for kind, own in keys.items():
        names = [published.name(kind, key) for key in own]
        for key, name, data in zip(own, names, published.files.read_many(names), strict=True):
            if data is None:
                raise UserError(f"'{published.files.where(name)}' was removed meanwhile: try again")
            if key not in there[kind]:
                store.files.write(name, data)
            elif store.files.read(name) != data:
                raise UserError(
                    f"'{store.where(kind, key)}' is another one than that of '{published.url}': give --store a new one"
                )
    return f"written to {store.url}: {', '.join(f'{kind} {len(keys[kind])}' for kind in PUBLISHED if keys[kind])}"

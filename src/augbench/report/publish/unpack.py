"""A store made of published results, so that a run can go on from them: ``augbench results unpack``."""

from __future__ import annotations

from augbench.core.errors import UserError
from augbench.report.evidence.part_costs import COSTS
from augbench.report.publish.contents import PUBLISHED
from augbench.storage.store import Store


def unpack(published: Store, store: Store) -> str:
    """Copy records, scores, grids and costs out of published results into a new store.

    A run there makes only the cells that are missing; their images, adapters and features are made anew, as published
    results have none.

    Args:
        published: published results of any form.
        store: an empty one.

    Returns:
        What was done, in a sentence.

    Raises:
        UserError: there are no results, the store holds something, or an archive is damaged.
    """
    if not published.keys("cells"):
        raise UserError(f"'{published.url}' holds no published results: give a folder that `results export` wrote")
    if store.exists():
        raise UserError(f"store '{store.url}' is not empty: give --store a new one")
    keys = {kind: sorted(published.keys(kind)) for kind in PUBLISHED}  # a damaged archive is refused before any write
    for kind, own in keys.items():
        names = [published.name(kind, key) for key in own]
        for name, data in zip(names, published.files.read_many(names), strict=True):
            if data is None:
                raise UserError(f"'{published.files.where(name)}' was removed meanwhile: try again")
            store.files.write(name, data)
    if published.files.exists(COSTS):
        store.files.write(COSTS, published.files.read(COSTS))
    return f"written to {store.url}: {', '.join(f'{kind} {len(own)}' for kind, own in keys.items() if own)}"

"""Which searches for near-copies belong to a plan, and what was found: read from the store, never made here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.core.specs import AuditSpec, DataSpec
from augbench.planning.library import Library
from augbench.planning.plan import Plan
from augbench.storage.records import AuditRecord, read_as
from augbench.storage.store import FIX_HINT, Store, parse_json

LEAK = 0.01  # share of test images with a near-copy in training from which a dataset without groups is a problem

NOT_AUDITED = "not audited"

Place = tuple[str, float | None]  # a dataset's name in the grid, and the share of random test splits


@dataclass(frozen=True)
class Audit:
    """The part of a search for near-copies that plans and tables print."""

    key: str
    folds: Mapping[int | None, tuple[int, int]] | None = None  # fold -> test images, and those with a copy

    def text(self, folds: Iterable[int | None] = ()) -> str:
        """Return e.g. ``98 %``, ``none found`` or ``not audited``, of these folds or of all."""
        share = self.share(folds)
        return NOT_AUDITED if share is None else percent(share) if share else "none found"

    def share(self, folds: Iterable[int | None] = ()) -> float | None:
        """Return the share of test images with a near-copy in training, of these folds or of all; None: unknown."""
        if self.folds is None:
            return None
        found = [self.folds[fold] for fold in (folds or self.folds) if fold in self.folds]
        return sum(copies for _, copies in found) / max(sum(test for test, _ in found), 1)


def percent(share: float) -> str:
    """Format a share: ``98 %``, below one percent ``0.4 %``."""
    return f"{100 * share:.0f} %" if share >= LEAK else f"{100 * share:.1g} %"


def place_of(data: DataSpec) -> Place:
    """Return what cells must have in common to share an audit."""
    return data.alias, data.test_share


def audits_of(plan: Plan) -> dict[Place, AuditSpec]:
    """Return the searches for near-copies that belong to a plan.

    Embedded datasets have none, since their images are drawn; nor have datasets without files.
    """
    folds: dict[Place, set[int]] = defaultdict(set)
    first: dict[Place, DataSpec] = {}
    for data in {cell.data.digest: cell.data for cell in plan.cells}.values():
        dataset = plan.library.dataset(data.alias)
        if data.alias in plan.absent or dataset.embedded:
            continue
        place = place_of(data)
        first.setdefault(place, data)
        if data.fold is not None:  # of k folds all, so that `datasets check` and every grid share the audit
            folds[place] |= {data.fold} if data.test_share is not None else set(range(dataset.folds))
    return {
        place: AuditSpec(data.name, data.settings, data.fingerprint, tuple(sorted(folds[place])), data.test_share)
        for place, data in first.items()
    }


def audit_of(library: Library, label: str, fingerprint: str) -> AuditSpec:
    """Return the search for near-copies in a dataset, across its official split or all its folds."""
    dataset, (name, _) = library.dataset(label), library.settings[label]
    settings = {**dataset.key_settings(), **registry.version("datasets", name)}
    return AuditSpec(name, settings, fingerprint, tuple(range(dataset.folds)))


def load_audits(store: Store, keys: Iterable[str]) -> dict[str, Audit]:
    """Load what was found, by key; also of the searches that were not made.

    Raises:
        UserError: a damaged record, named.
    """
    wanted = sorted(set(keys))
    contents = store.files.read_many([store.name("audits", key) for key in wanted]) if wanted else ()
    return {
        key: Audit(key, None if data is None else _folds(key, data, store.where("audits", key)))
        for key, data in zip(wanted, contents, strict=True)
    }


def _folds(key: str, data: bytes, place: str) -> dict[int | None, tuple[int, int]]:
    record: dict[str, Any] = parse_json(data, place)
    try:
        found: AuditRecord = read_as(AuditRecord, record)
        if found.key != key:
            raise UserError(f"it is that of '{found.key}'")
    except UserError as error:
        raise UserError(f"record '{place}' is damaged ({error}): {FIX_HINT}") from None
    return {one.fold: (one.test, one.copies) for one in found.result.folds}

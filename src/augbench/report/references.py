"""Reference rows in every table of detection: what is to be had without a generator, from normal images.

A score that has seen no defect image at all is what synthetic ones must beat, and so is one that knows the normal
images beside the same few real defects. Their cells belong to protocols of their own (kinds ``gaussian`` and
``neighbours``, and a probe with ``normality``), so without these rows a table would be read as a fact about the
augmenters.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

REFERENCE = "normals only"  # the rows' names
NEAREST = "nearest normal"
BESIDE = "shots + normals"
REFERENCES = {
    REFERENCE: "the Mahalanobis distance to the normal training images, whatever the shots",
    NEAREST: "the distance to the nearest normal training image, whatever the shots",
    BESIDE: "a probe of the same real defects that is also given the distance to the normal training images",
}
"""Row -> its score. Nothing in them is synthetic; the last one adds the normal images to the same real defects."""
FREE = ("none", *REFERENCES)
"""The rows that need no generator: what an augmenter must beat."""
SAME = ["dataset", "fold", "test_share", "ap_definition", "false_alarm_rate"]  # what makes its numbers comparable


def with_reference(expected: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Add `REFERENCES` to each table whose dataset and folds a protocol of theirs was run on.

    Scores of normal images alone are the same at every number of shots, so they are added at each.

    Args:
        expected: the expected cells, see `frame.load_expected`.
        records: the cell records, see `frame.load_records`.

    Returns:
        The expected cells; those of a reference occur in its own table and in each that it is added to.
    """
    parts = [expected]
    protocols = _protocols(expected, records)
    for (_, protocol, shots), table in expected.groupby(["dataset", "protocol", "shots"], sort=False):
        if protocol in (protocols.get(REFERENCE), protocols.get(NEAREST)):
            continue
        wanted = set(table[SAME].itertuples(index=False, name=None))
        for name, of in protocols.items():
            cells = expected[(expected["protocol"] == of) & (expected["augmenter"] == "none")]
            if name == BESIDE:
                cells = cells[cells["shots"] == shots]
            places = cells[SAME].itertuples(index=False, name=None)
            own = cells[np.array([place in wanted for place in places], bool)]
            folds = own[SAME].drop_duplicates()
            if of != protocol and len(folds) == len({place[1] for place in wanted}):
                parts.append(own.assign(protocol=protocol, shots=shots, augmenter=name))
    return pd.concat(parts, ignore_index=True)


def _protocols(expected: pd.DataFrame, records: pd.DataFrame) -> dict[str, str]:
    """Return the protocol that each reference was run by; of several of a grid, the first."""

    def kind_of(frozen: dict[str, object] | None) -> str:
        if not frozen:
            return ""
        distance = {"gaussian": REFERENCE, "neighbours": NEAREST}.get(str(frozen["kind"]), "")
        return distance or (BESIDE if frozen["normality"] else "")

    kinds = dict(zip(records["key"], map(kind_of, records["frozen"]), strict=True))
    protocols: dict[str, str] = {}
    for key, protocol in expected[["key", "protocol"]].itertuples(index=False):
        if name := kinds.get(key):
            protocols.setdefault(name, protocol)
    return {name: protocols[name] for name in REFERENCES if name in protocols}

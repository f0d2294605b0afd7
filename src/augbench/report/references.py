"""A reference row in every table of detection: what the normal images alone give.

A score that has seen no defect image at all is what synthetic ones must beat. Its cells belong to a protocol of their
own (kind ``gaussian``), so without it a table would be read as a fact about the augmenters.
"""

from __future__ import annotations

import pandas as pd

REFERENCE = "normals only"  # the row's name
SAME = ["dataset", "fold", "test_share", "ap_definition", "false_alarm_rate"]  # what makes its numbers comparable


def with_reference(expected: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Add the row `REFERENCE` to each table whose dataset and folds a protocol of normal images alone was run on.

    Args:
        expected: the expected cells, see `frame.load_expected`.
        records: the cell records, see `frame.load_records`.

    Returns:
        The expected cells; those of the reference occur in its own table and in each that it is added to.
    """
    alone = records.loc[[bool(one) and one["kind"] == "gaussian" for one in records["frozen"]], "key"]
    is_reference = expected["protocol"].isin(expected.loc[expected["key"].isin(alone), "protocol"])
    if not is_reference.any():
        return expected
    first = expected.loc[is_reference, "protocol"].iloc[0]  # where a grid has several
    cells = expected[expected["protocol"] == first]
    parts = [expected]
    for (_, protocol, shots), table in expected[~is_reference].groupby(["dataset", "protocol", "shots"], sort=False):
        wanted = set(table[SAME].itertuples(index=False, name=None))
        places = cells[SAME].itertuples(index=False, name=None)
        own = cells[[place in wanted for place in places]]
        if len(own) == len({place[1] for place in wanted}):
            parts.append(own.assign(protocol=protocol, shots=shots, augmenter=REFERENCE))
    return pd.concat(parts, ignore_index=True)

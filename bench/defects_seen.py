"""Tell how many images of a store's pools a probe takes for defects that learned from real ones alone.

    python bench/defects_seen.py GRID STORE [--set folds=[0]]

GRID has a protocol of kind `probe`, and STORE the features of a run of it. The probe has seen all real training images,
normal and defective, and no synthetic one. An image counts as seen where its score exceeds that of 95 % of the held-out
normal images. AUROC is that of the images against the normal test images.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from augbench.classifiers.probe import ProbeRows, fit_probe
from augbench.core.contracts import GOOD
from augbench.core.protocol import Protocol
from augbench.core.specs import FEATURE_CHUNK, DataSpec, FeatureSpec
from augbench.planning.grid import load_grid
from augbench.planning.plan import Plan, make_plan
from augbench.stages.features import read_features
from augbench.storage.store import Store

FALSE_POSITIVES = 0.05


def rows_of_real(plan: Plan, data: DataSpec, features: np.ndarray) -> ProbeRows:
    """Return all real training images of a fold, sorted by id; ``features`` are those of the dataset, N,D."""
    train = pd.concat([plan.library.split(data).negatives, plan.library.shots(data, "all", 0)]).sort_values("id")
    defects = (train["label"] != GOOD).to_numpy()
    chosen = plan.library.row_of(data.alias)[train["id"]].to_numpy()
    groups = train["group"].to_numpy().astype(str)
    return ProbeRows(features[chosen], defects.astype(np.int64), defects, groups, np.zeros(len(train), bool))


def table_of(plan: Plan, store: Store, data: DataSpec, protocol: Protocol) -> Table:
    """Return a row for the normal and the defective test images of a fold, and one for each pool."""
    library, split = plan.library, plan.library.split(data)
    chunks = -(-len(library.samples(data.alias)) // FEATURE_CHUNK)
    real = read_features(store, FeatureSpec(data, protocol), chunks).values
    probe, _ = fit_probe(rows_of_real(plan, data, real), 1, protocol, seed=0)
    row_of = library.row_of(data.alias)
    held, test = (probe(real[row_of[part["id"]]])[:, 0] for part in (split.heldout, split.test))
    defective = (split.test["label"] != GOOD).to_numpy()
    threshold = np.quantile(held, 1 - FALSE_POSITIVES)
    rows = {"normal test images": test[~defective], "defective test images": test[defective]}
    for key in sorted(key for key, pool in plan.pools.items() if pool.data == data):
        pool = plan.pools[key]
        features = read_features(store, FeatureSpec(pool, protocol), pool.chunks_for(plan.pool_sizes[key]))
        rows[key] = probe(features.values)[:, 0]
    table = Table("images", "number", "seen as defects", "AUROC", title=f"{data.name}, fold {data.fold}")
    for name, scores in rows.items():
        labels = np.repeat([0, 1], [len(test[~defective]), len(scores)])
        auroc = roc_auc_score(labels, np.concatenate([test[~defective], scores]))
        table.add_row(name, str(len(scores)), f"{(scores > threshold).mean():.0%}", f"{auroc:.3f}")
    return table


def main() -> None:
    """Print a table for each dataset and fold of the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid")
    parser.add_argument("store")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    options = parser.parse_args()
    store = Store(options.store)
    plan = make_plan(load_grid(options.grid, options.changes), store)
    protocol = next(one for one in plan.grid.protocols if one.kind == "probe")
    for data in {(cell.data.alias, cell.data.fold): cell.data for cell in plan.cells}.values():
        Console().print(table_of(plan, store, data, protocol))


if __name__ == "__main__":
    main()

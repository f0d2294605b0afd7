"""Do intervals of a difference hold the truth? Simulated tables of two methods, whose scores of an item differ.

    python bench/coverage.py [--tables 300]

The scores of an item are a sum: the item's own, which both methods share, what a method makes of this item, a gain on
defects, and noise of the run. Intervals are those of `augbench compare`, with two degrees of freedom of the variance
over items: of the smallest stratum (items of a kind in a fold), and of the rarer kind, added up over the folds.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from augbench.metrics.resampling import ap_under_weights, interval, run_weights, unit_weights

DESIGNS = (
    (5, 4, 30),
    (5, 8, 30),
    (5, 20, 60),
    (2, 4, 20),
    (1, 10, 60),
)  # folds, items with and without a defect in each
RUNS, RESAMPLES, SEPARATION, GAIN, OF_METHOD, OF_RUN = 4, 400, 1.5, 0.4, 0.5, 0.15


def scores(rng: np.random.Generator, defects: int, normal: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the test items of a fold: labels N, and scores of both methods in each run, 2,R,N."""
    labels = np.repeat([True, False], [defects, normal])
    item = rng.normal(size=len(labels)) + SEPARATION * labels
    of_method = OF_METHOD * rng.normal(size=(2, 1, len(labels))) + np.array([0, GAIN])[:, None, None] * labels
    return labels, item + of_method + OF_RUN * rng.normal(size=(2, runs, len(labels)))


def gains(labels: np.ndarray, both: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the second method's AP minus the first one's under weights N,B: R,B."""
    units = np.arange(len(labels))
    ap = [[ap_under_weights(labels, one, units, weights) for one in method] for method in both]
    return np.array(ap[1]) - np.array(ap[0])


def main() -> None:
    """Print coverage and width for each design."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=300)
    tables = parser.parse_args().tables
    rng = np.random.default_rng(0)
    heads = [f"{name}: {what}" for name in ("smallest stratum", "rarer kind") for what in ("holds it", "width")]
    shown = Table("folds x (defects + normal)", "true gain", *heads)
    for folds, defects, normal in DESIGNS:
        ones = np.ones((defects + normal, 1))
        truth = np.mean([gains(*scores(rng, defects, normal, 1), ones) for _ in range(4000)])
        runs = [(fold, -1, run) for fold in range(folds) for run in range(RUNS)]
        found = []
        for _ in range(tables):
            values, sampled = [], []
            for _fold in range(folds):
                labels, both = scores(rng, defects, normal, RUNS)
                values.append(gains(labels, both, ones)[:, 0])
                sampled.append(gains(labels, both, unit_weights(labels, RESAMPLES, rng)))
            weights = run_weights(runs, RESAMPLES, rng, folds=False)
            for freedom in (defects - 1, folds * (defects - 1)):
                one = interval(np.concatenate(values), np.concatenate(sampled), weights, freedom)
                found.append((one.low <= truth <= one.high, one.high - one.low))
        each = np.array(found, float).reshape(tables, 2, 2).mean(axis=0)
        texts = [f"{share:.1%}" if place == 0 else f"{share:.3f}" for row in each for place, share in enumerate(row)]
        shown.add_row(f"{folds} x ({defects} + {normal})", f"{truth:+.3f}", *texts)
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()

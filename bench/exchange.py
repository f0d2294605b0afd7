"""Whether the intervals of the exchange rate hold: simulations whose truth is planted.

    python bench/exchange.py --trials 400

Each trial draws the metric of every cell of a benchmark: test items that are easy or hard for every classifier, draws
of the shots and pool seeds that are lucky or not, and noise. The curve over real defects is known, and so is the number
of real defects that the row with synthetic images is worth. Printed: how often what is said is true, how often anything
is said, and how often the images were shown to be worth fewer than none, or more.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from augbench.metrics.exchange import Cells, Exchange, Rate, exchange
from augbench.metrics.resampling import unit_weights

Curve = Callable[[float], float]


@dataclass(frozen=True)
class Setting:
    """A benchmark to simulate."""

    name: str
    curve: Curve  # number of independent defects -> expected metric
    count: float = 5  # real defects beside the synthetic images
    worth: float = 5  # the truth: what both are worth
    counts: tuple[float, ...] = (2, 5, 10, 20, 50, 60)
    folds: int = 5
    items: int = 40  # of each fold
    draws: int = 4
    seeds: int = 2
    item: float = 0.15  # standard deviations
    draw: float = 0.03  # of a draw in all its numbers of shots, which are nested, and as much in each of them
    seed: float = 0.01
    noise: float = 0.05  # of an item in one cell


def steep(number: float) -> float:
    """Return a metric that gains most from the first defects."""
    return 0.95 - 0.6 * number**-0.45


def slow(number: float) -> float:
    """Return a metric that gains .02 with each doubling."""
    return 0.6 + 0.02 * np.log2(number)


def flat(number: float) -> float:
    """Return a metric that gains nothing."""
    return 0.7


def early(number: float) -> float:
    """Return a metric that gains nothing after ten defects."""
    return steep(min(number, 10))


SETTINGS = (
    Setting("steep, worth 9.9", steep, worth=9.9),
    Setting("steep, worth nothing", steep),
    Setting("steep, worth fewer than none", steep, worth=3),
    Setting("steep, beyond the curve", steep, worth=300),
    Setting("steep, zero-shot, worth 7", steep, count=0, worth=7),
    Setting("steep, 8 draws, 3 seeds", steep, worth=9.9, draws=8, seeds=3),
    Setting("slow, worth 9.9", slow, worth=9.9),
    Setting("slow, worth nothing", slow),
    Setting("flat from 10 on, worth 7", early, worth=7),
    Setting("flat, worth nothing", flat),
)


def simulate(setting: Setting, rng: np.random.Generator, resamples: int) -> Exchange:
    """Draw one benchmark and compute the exchange rate of its row."""
    s = setting
    weights = [unit_weights(np.zeros(s.items), resamples, rng) for _ in range(s.folds)]  # items,B each
    item = rng.normal(0, s.item, (s.folds, s.items))
    draw = rng.normal(0, s.draw, (s.folds, s.draws))  # shared by all numbers of shots: they are nested
    seed = rng.normal(0, s.seed, (s.folds, s.seeds))

    def cells(level: float, is_full: bool, seeds: int) -> Cells:
        runs, values, sampled = [], [], []
        for fold in range(s.folds):
            for d in (-1,) if is_full else range(s.draws):
                for one in range(seeds) if seeds else (-1,):
                    own = level + item[fold] + rng.normal(0, s.noise, s.items)
                    own = own + (0 if d < 0 else draw[fold, d] + rng.normal(0, s.draw))
                    own = own + (0 if one < 0 else seed[fold, one])
                    runs.append((fold, d, one, 0))
                    values.append(own.mean())
                    sampled.append(own @ weights[fold] / weights[fold].sum(0))
        return Cells(runs, np.array(values), np.stack(sampled))

    curve = {k: cells(s.curve(k), k == s.counts[-1], 0) for k in s.counts}
    row = cells(s.curve(s.worth), s.count == 0, s.seeds)
    return exchange(curve, row, s.count, rng, s.folds * (s.items - 1))


def covers(setting: Setting, found: Exchange) -> bool:
    """Whether what is said is true; where nothing is said, it is.

    On a flat part several numbers are worth the same: the interval is to hold one of them.
    """
    if found.rate == Rate.UNKNOWN:
        return True
    same = [k for k in np.geomspace(0.5, 500, 2000) if abs(setting.curve(k) - setting.curve(setting.worth)) < 1e-4]
    return any(found.low <= k <= found.high for k in (setting.worth, *same))


def main() -> None:
    """Print a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    print(f"{'setting':<32}{'true':>8}{'true where said':>17}{'said':>7}{'shown fewer':>13}{'shown more':>12}")
    for setting in SETTINGS:
        found = [
            simulate(setting, np.random.default_rng([number, *map(ord, setting.name)]), options.resamples)
            for number in range(options.trials)
        ]
        said = [one for one in found if one.rate != Rate.UNKNOWN]
        true = Counter(covers(setting, one) for one in said)
        shares = (
            (len(found) - true[False]) / len(found),
            true[True] / max(len(said), 1),
            len(said) / len(found),
            sum(one.high < one.count for one in said) / len(found),
            sum(one.low > one.count for one in said) / len(found),
        )
        texts = [f"{share:.3f}" if said or place not in (1,) else "-" for place, share in enumerate(shares)]
        print(f"{setting.name:<32}{texts[0]:>8}{texts[1]:>17}{texts[2]:>7}{texts[3]:>13}{texts[4]:>12}", flush=True)


if __name__ == "__main__":
    main()

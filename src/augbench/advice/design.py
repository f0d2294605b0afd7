"""Design what to run on a user's folder, so that it can answer within a budget of time, and say beforehand how well.

A pilot measures two things: how long an image and a training take here, and how widely the *paired* difference between
MemSeg and no synthetic images varies on these items. From the second follows the smallest difference that could be
told from chance. What is dropped for time depends on the first alone, so that no choice is made by looking at a gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from augbench.advice.understand import Understood
from augbench.core.protocol import load_preset
from augbench.metrics.inference import FEWEST_RUNS, smallest_difference
from augbench.metrics.resampling import Interval
from augbench.report.numbers import share
from augbench.report.table_notes import plural

N_AUG = 80
PREVIEWED = 8  # images of an augmenter that is not compared
DRAWS = 8  # of the few shots
POOLS = (4, 8)  # synthetic pools of each augmenter: at least, and where there is time
PILOT_POOLS = 2
FEW = (5, 20)  # shots of the curve over real defects, where there are more
ALIKE, LESS = "probe_as_papers", "probe"
"""Protocols: a synthetic image counts like a real one; how much it counts is chosen on real training images."""

AUGMENTERS: tuple[dict[str, Any], ...] = (
    {"name": "memseg"},
    {"name": "classic"},
    {"name": "cutpaste"},
    {"name": "memseg", "as": "memseg_structure", "settings": {"texture_share": 0.0}},
    {"name": "noise_patch", "null_of": ["memseg"]},
)
"""What is compared, as many as time allows: the one that helped most on other data, the free option, and so on.

The last is MemSeg without its texture, to tell a gain from an artefact.
"""
DIFFUSION = "ddpm"
FREE = ("none", "classic")  # of the augmenters: they need no generator
FINETUNE = "finetune_lite0"  # the protocol by which a recommendation is confirmed
STEP = 2.0  # a training step at 160 x 160, in units of the features of its images at 224 x 224 (seen: 1.7)
OVERHEAD = 15.0  # seconds until workers have started


@dataclass(frozen=True)
class Speed:
    """How long things take on this machine, all workers together."""

    image: float  # seconds to make one synthetic image and its features
    features: float  # seconds of its features alone
    training: float  # seconds of one training, averaged over the two protocols
    diffusion: float | None = None  # seconds to make one image with the diffusion model, and its features
    adapting: float = 0.0  # seconds to adapt the diffusion model to the defects of a fold


@dataclass(frozen=True)
class Design:
    """What is run, and what it can show."""

    augmenters: tuple[str, ...]  # their names in the grid
    dropped: tuple[str, ...]  # for lack of time
    pools: int
    shots: tuple[int, ...]  # of the curve over real defects, besides all
    smallest: float  # smallest difference of AP that is detected four times out of five
    needed: int  # items with a defect from which on .05 would be
    seconds: float  # that the rest takes
    confirming: float  # seconds that fine-tuning with and without a recommended augmenter takes
    over_budget: bool

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; inverse of `Design(**...)` up to tuples."""
        return asdict(self)

    def sentence(self, understood: Understood) -> str:
        """Say what can be expected, before anything is run."""
        defects = len(understood.table) - understood.normal
        on = f" on {plural(understood.items, 'item')}" if understood.items != defects else ""
        text = f"{plural(defects, 'defect')}{on}: only gains above {share(max(self.smallest, 0.001))} AP would show"
        return f"{text}; .050 needs defects on about {self.needed:,}." if self.needed > understood.items else f"{text}."


def diffusion(bundle: str) -> dict[str, Any]:
    """Return the entry of the diffusion model, by the name or path of its pipeline."""
    return {"name": DIFFUSION, "settings": {"bundle": bundle}}


def diffusion_grid(name: str, dataset: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    """Return the grid that tells how long an image of the diffusion model takes: one chunk, one training."""
    grid = _grid(name, dataset, 1, [diffusion(bundle)], 1, (), "how long a diffusion model takes")
    return grid | {"augmenters": grid["augmenters"][1:], "draws": [0], "n_aug": [1], "protocols": _protocols(ALIKE)}


def pilot_grid(name: str, dataset: Mapping[str, Any], folds: int) -> dict[str, Any]:
    """Return the grid that is run first: MemSeg against no synthetic images, with all real defects."""
    return _grid(
        name, dataset, folds, AUGMENTERS[:1], PILOT_POOLS, (), "how long things take, and how widely they vary"
    )


def free_grid(name: str, dataset: Mapping[str, Any], folds: int) -> dict[str, Any]:
    """Return the grid of the scores that need no synthetic image but more than a classifier of real ones."""
    grid = _grid(name, dataset, folds, (), 1, (), "the distance to normal images, alone and beside real defects")
    return grid | {"shots": [0, "all"], "protocols": _protocols("normals_only", "nearest_normal", "probe_normality")}


def full_grid(
    name: str, dataset: Mapping[str, Any], folds: int, design: Design, more: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the grid that the answer comes from, with ``more`` augmenters; the pilot is a part of it."""
    chosen = [*(entry for entry in AUGMENTERS if _label(entry) in design.augmenters), *more]
    return _grid(name, dataset, folds, chosen, design.pools, design.shots, "what helps on these images")


def preview_grid(name: str, dataset: Mapping[str, Any], dropped: Sequence[str]) -> dict[str, Any]:
    """Return the grid that makes a few images of the augmenters that were left out for lack of time, to look at."""
    chosen = [entry | {"null_of": []} for entry in AUGMENTERS if _label(entry) in dropped]
    grid = _grid(name, dataset, 1, chosen, 1, (), "what the augmenters look like that were left out for lack of time")
    few = {"draws": [0], "n_aug": [PREVIEWED], "protocols": _protocols(ALIKE)}
    return grid | few | {"augmenters": grid["augmenters"][1:]}


def confirm_grid(
    name: str, dataset: Mapping[str, Any], folds: int, augmenter: str, more: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the grid that fine-tunes a classifier with and without the images that are recommended."""
    chosen = [entry for entry in (*AUGMENTERS, *more) if _label(entry) == augmenter]
    grid = _grid(name, dataset, folds, chosen, FEWEST_RUNS, (), f"does {augmenter} help a fine-tuned classifier, too")
    return grid | {"protocols": _protocols(FINETUNE)}


def confirm_seconds(folds: int, speed: Speed) -> float:
    """Estimate how long `confirm_grid` takes: a training step costs `STEP` times the features of its images."""
    protocol = load_preset(FINETUNE)
    shown = (protocol.epochs or 0) * (protocol.epoch_pictures or 0)
    return OVERHEAD + 2 * FEWEST_RUNS * max(folds, 1) * shown * STEP * speed.features


def _grid(
    name: str,
    dataset: Mapping[str, Any],
    folds: int,
    augmenters: Sequence[Mapping[str, Any]],
    pools: int,
    few: Sequence[int],
    about: str,
) -> dict[str, Any]:
    """Return a grid: no synthetic images at every number of shots, augmenters beside all real defects."""
    return {
        "name": name,
        "about": f"{dataset['as']}: {about}.",
        "datasets": [dict(dataset)],
        "augmenters": [{"name": "none"}, *({**entry, "shots": "all"} for entry in augmenters)],
        "shots": [*few, "all"],
        "draws": list(range(DRAWS)),
        "n_aug": [N_AUG],
        "seeds": list(range(pools)),
        "folds": list(range(max(folds, 1))),
        "protocols": _protocols(ALIKE, LESS),
        "fidelity": None,
    }


def choose(understood: Understood, speed: Speed, pilot: Interval, seconds: float, wanted: bool = False) -> Design:
    """Choose what is run in the time that is left.

    Whole augmenters are dropped, from the end of `AUGMENTERS`; never MemSeg, and never draws or folds. The diffusion
    model comes last, and is compared where there is time for it.

    Args:
        understood: the folder.
        speed: how long things take, as the pilot measured it.
        pilot: the paired difference of the pilot, from `PILOT_POOLS` pools.
        seconds: that are left.
        wanted: the diffusion model comes right after MemSeg, and is never dropped.
    """
    sides = max(understood.folds, 1)
    train = understood.items * (understood.folds - 1) // understood.folds if understood.folds else understood.items // 2
    few = tuple(number for number in FEW if 2 * number <= train)
    names = [_label(entry) for entry in AUGMENTERS]
    enough = len(names)  # to make more pools rather than compare more
    if speed.diffusion is not None:
        names.insert(1 if wanted else enough, DIFFUSION)
        enough += wanted
    options = [(number, POOLS[0]) for number in range(2 if wanted else 1, enough + 1)]
    options += [(number, pools) for number in range(enough, len(names) + 1) for pools in POOLS][1:]
    took = {option: _seconds(speed, sides, len(few), names[: option[0]], option[1]) for option in options}
    fitting = [option for option in options if took[option] <= seconds]
    number, pools = fitting[-1] if fitting else options[0]
    others = {*FREE, *(_label(entry) for entry in AUGMENTERS if entry.get("null_of"))}  # not to be recommended
    comparisons = 2 * len(set(names[:number]) - others)
    smallest = smallest_difference(pilot.parts, pilot.freedom, comparisons, {"seed": PILOT_POOLS / pools})
    return Design(
        augmenters=tuple(names[:number]),
        dropped=tuple(names[number:]),
        pools=pools,
        shots=few,
        smallest=smallest,
        needed=ceil(understood.items * (smallest / 0.05) ** 2),
        seconds=took[number, pools],
        confirming=confirm_seconds(understood.folds, speed),
        over_budget=not fitting,
    )


def _seconds(speed: Speed, folds: int, few: int, names: Sequence[str], pools: int) -> float:
    """Estimate how long the full grid takes after the pilot."""
    drawn = N_AUG * ((len(names) - (DIFFUSION in names)) * pools - PILOT_POOLS) * speed.image
    diffusion = speed.adapting + N_AUG * pools * (speed.diffusion or 0.0) if DIFFUSION in names else 0.0
    trainings = 2 * folds * (len(names) * pools - PILOT_POOLS + few * DRAWS + 1)  # 1: those of `free_grid`
    return OVERHEAD + folds * (drawn + diffusion) + trainings * speed.training


def _protocols(*names: str) -> list[Any]:
    return list(names)


def _label(entry: Mapping[str, Any]) -> str:
    return entry.get("as") or entry["name"]

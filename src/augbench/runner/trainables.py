"""What Ray Tune runs, made known to it. Trainings and searches start in different threads, and its registry is not
made for two at once."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from ray import tune

_lock = threading.Lock()
_numbers = itertools.count()
NOTHING = {"memory": 1}  # bytes: Tune wants a trial to reserve something, and CPUs may all be taken by others


def registered(trainable: Any, shared: dict[str, Any], bundle: dict[str, float]) -> str:
    """The name by which a `tune.Tuner` finds the trainable.

    Args:
        trainable: a function of ``config`` and ``shared``, or a class whose ``setup`` takes them.
        shared: what all trials get, through the object store.
        bundle: what a trial reserves, as Ray calls it: ``CPU``, ``GPU``; {}: next to nothing.
    """
    with _lock:
        name = f"augbench-{next(_numbers)}"
        given = tune.with_parameters(trainable, shared=shared)
        tune.register_trainable(name, tune.with_resources(given, tune.PlacementGroupFactory([bundle or NOTHING])))
    return name

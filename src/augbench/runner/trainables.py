"""Registration of trainables with Ray Tune.

Trainings and searches start in different threads, and Tune's registry is not thread-safe.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from ray import tune

_lock = threading.Lock()
_numbers = itertools.count()
MINIMAL = {"memory": 1}  # bytes: Tune requires a trial to reserve something, and all CPUs may be in use


def registered(trainable: Any, shared: dict[str, Any], bundle: dict[str, float]) -> str:
    """Register a trainable; return the name by which a `tune.Tuner` finds it.

    Args:
        trainable: a function of ``config`` and ``shared``, or a class whose ``setup`` takes them.
        shared: passed to all trials through the object store.
        bundle: the resources that a trial reserves, such as ``CPU`` and ``GPU``; {}: `MINIMAL`.
    """
    with _lock:
        name = f"augbench-{next(_numbers)}"
        given = tune.with_parameters(trainable, shared=shared)
        tune.register_trainable(name, tune.with_resources(given, tune.PlacementGroupFactory([bundle or MINIMAL])))
    return name

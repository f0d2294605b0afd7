"""The adapt job: let an augmenter learn from what it may see, and commit its adapter."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from augbench.core.contracts import AdaptContext
from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec
from augbench.stages.context import Context, chosen_augmenter, one_thread
from augbench.stages.provenance import device_name, versions
from augbench.storage.store import ADAPTER_MARKER, Store, json_bytes

SAY_EVERY = 1.0  # seconds
LOG_EVERY = 10.0  # seconds: a log is read later
Say = Callable[[str, int, int, float], None]
"""Told the adapter's key, the step, the number of steps and the loss."""
log = logging.getLogger(__name__)


def adapt(context: Context, spec: AdapterSpec, say: Say = lambda *progress: None) -> None:
    """Make one adapter. Its folder appears in the store whole, with ``adapter.json`` in it, or not at all.

    ``say`` hears of its progress, at most every `SAY_EVERY` seconds and at the last step.

    Raises:
        UserError: the view cannot serve it.
    """
    started = time.perf_counter()
    augmenter, search = chosen_augmenter(context, spec)
    view = context.library.view(spec.data, spec.shots, spec.draw, augmenter.reads(spec.shots or 0))
    with tempfile.TemporaryDirectory(prefix="augbench-adapt-") as scratch:
        made = Path(scratch) / "adapter"
        made.mkdir()
        scratch = context.store.files.scratch_folder(spec.key)
        shared = SharedParts(context.store)
        room = AdaptContext(scratch, shared, context.device, Throttled(spec.key, say))
        with one_thread(augmenter.uses_gpu, context.device):
            learned = augmenter.adapt(view, made, derive_seed("adapt", spec.augmenter.name), room)
        record = {
            "key": spec.key,
            "spec": spec.as_dict(),
            "learned": learned or {},
            **({"search": search["result"]} if search else {}),
            "provenance": {
                "seconds": time.perf_counter() - started,
                "shared_seconds": shared.seconds,
                "device": device_name(context.device),
                "git_sha": context.git_sha,
                "versions": versions(),
            },
        }
        (made / ADAPTER_MARKER).write_bytes(json_bytes(record))
        context.store.files.commit_folder(made, context.store.name("adapters", spec.key), ADAPTER_MARKER)
    shutil.rmtree(scratch, ignore_errors=True)
    context.store.clear_failure(spec.key)
    log.info("learned and committed in %.2f s", time.perf_counter() - started)


class SharedParts:
    """The store's shared parts, and what making them took here: so much of an adapter's time serves others too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seconds: dict[str, float] = {}  # key -> seconds of making it here; 0 where it was there

    def __call__(self, key: str, make: Callable[[Path], None]) -> Path:
        """As `Store.shared`."""
        self.seconds.setdefault(key, 0.0)

        def timed(folder: Path) -> None:
            started = time.perf_counter()
            make(folder)
            self.seconds[key] += time.perf_counter() - started

        return self._store.shared(key, timed)


class Throttled:
    """Passes progress on, but not every step of it."""

    def __init__(self, key: str, say: Say) -> None:
        self.key, self.say, self.last, self.logged = key, say, 0.0, 0.0

    def __call__(self, step: int, steps: int, loss: float) -> None:
        """Progress of a learning augmenter."""
        now = time.monotonic()
        if now - self.last > SAY_EVERY or step == steps:
            self.last = now
            self.say(self.key, step, steps, loss)
        if now - self.logged > LOG_EVERY or step == steps:
            self.logged = now
            log.info("step %d of %d: loss %.4f", step, steps, loss)

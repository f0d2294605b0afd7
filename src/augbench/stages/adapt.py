"""The adapt stage: let an augmenter learn from its training view, and commit the adapter."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from augbench.core.contracts import AdaptContext, json_problem
from augbench.core.guard import breach
from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec
from augbench.stages.context import Context, chosen_augmenter, repeatable
from augbench.storage.store import ADAPTER_MARKER, Store, json_bytes

REPORT_INTERVAL = 1.0  # seconds between progress reports
LOG_INTERVAL = 10.0  # seconds between log lines
ReportProgress = Callable[[str, int, int, float], None]
"""Called with the adapter's key, the step, the number of steps and the loss."""
log = logging.getLogger(__name__)


def adapt(context: Context, spec: AdapterSpec, report_progress: ReportProgress = lambda *progress: None) -> None:
    """Make one adapter. Its folder is committed atomically, with ``adapter.json`` in it.

    ``report_progress`` is called at most every `REPORT_INTERVAL` seconds, and at the last step.

    Raises:
        UserError: the view lacks what the augmenter needs; PluginError: what it learned cannot be stored.
    """
    started = time.perf_counter()
    augmenter, search = chosen_augmenter(context, spec)
    view = context.view(augmenter, spec)
    with tempfile.TemporaryDirectory(prefix="augbench-adapt-") as temporary:
        folder = Path(temporary) / "adapter"
        folder.mkdir()
        scratch = context.store.files.scratch_folder(spec.key)
        shared = SharedParts(context.store)
        adapt_context = AdaptContext(scratch, shared, context.device, Throttled(spec.key, report_progress))
        precision = augmenter.precision_on(context.device)
        with repeatable(augmenter.uses_gpu, context.device, precision):
            own = [spec.adapter_seed] if spec.adapter_seed else []
            learned = augmenter.adapt(view, folder, derive_seed("adapt", spec.augmenter.name, *own), adapt_context)
        record = {
            "key": spec.key,
            "spec": spec.as_dict(),
            "learned": learned or {},
            **({"search": search["result"]} if search else {}),
            "provenance": {"seconds": time.perf_counter() - started, "shared_seconds": shared.seconds}
            | context.origin(precision),
        }
        if problem := json_problem(record["learned"]):
            raise breach(type(augmenter), "adapt", problem)
        (folder / ADAPTER_MARKER).write_bytes(json_bytes(record))
        context.store.files.commit_folder(folder, context.store.name("adapters", spec.key), ADAPTER_MARKER)
    shutil.rmtree(scratch, ignore_errors=True)
    context.store.clear_failure(spec.key)
    log.info("adapted and committed in %.2f s", time.perf_counter() - started)


class SharedParts:
    """Shared parts of the store, with the time spent making them here, which serves other adapters too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seconds: dict[str, float] = {}  # key -> seconds spent making it here; 0 where it existed

    def __call__(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of a shared part, as `Store.shared` does."""
        self.seconds.setdefault(key, 0.0)

        def timed(folder: Path) -> None:
            started = time.perf_counter()
            make(folder)
            self.seconds[key] += time.perf_counter() - started

        return self._store.shared(key, timed)


class Throttled:
    """Report and log progress at most once per interval."""

    def __init__(self, key: str, report_progress: ReportProgress) -> None:
        self.key, self.report_progress, self.reported, self.logged = key, report_progress, 0.0, 0.0

    def __call__(self, step: int, steps: int, loss: float) -> None:
        """Receive the progress of an augmenter's `adapt`."""
        now = time.monotonic()
        if now - self.reported > REPORT_INTERVAL or step == steps:
            self.reported = now
            self.report_progress(self.key, step, steps, loss)
        if now - self.logged > LOG_INTERVAL or step == steps:
            self.logged = now
            log.info("step %d of %d: loss %.4f", step, steps, loss)

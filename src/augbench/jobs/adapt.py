"""The adapt job: let an augmenter learn from what it may see, and commit its adapter."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec
from augbench.core.store import ADAPTER_MARKER, json_bytes
from augbench.jobs.context import Context
from augbench.jobs.provenance import device_name, versions


def adapt(context: Context, spec: AdapterSpec) -> None:
    """Make one adapter. Its folder appears in the store whole, with ``adapter.json`` in it, or not at all.

    Raises:
        UserError: the view cannot serve it.
    """
    started = time.perf_counter()
    augmenter = context.library.augmenter(spec.augmenter)
    view = context.library.view(spec.data, spec.shots, spec.draw, augmenter.reads(spec.shots or 0))
    with tempfile.TemporaryDirectory(prefix="augbench-adapt-") as scratch:
        made = Path(scratch) / "adapter"
        made.mkdir()
        augmenter.adapt(view, made, derive_seed("adapt", spec.augmenter.name))
        record = {
            "key": spec.key,
            "spec": spec.as_dict(),
            "provenance": {
                "seconds": time.perf_counter() - started,
                "device": device_name(context.device),
                "git_sha": context.git_sha,
                "versions": versions(),
            },
        }
        (made / ADAPTER_MARKER).write_bytes(json_bytes(record))
        context.store.files.commit_folder(made, context.store.name("adapters", spec.key), ADAPTER_MARKER)
    context.store.clear_failure(spec.key)

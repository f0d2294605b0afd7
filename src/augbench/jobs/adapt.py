"""The adapt job: let an augmenter learn from what it may see, and commit its adapter."""

from __future__ import annotations

import shutil
import time
import uuid

from augbench.core.seeds import derive_seed
from augbench.core.specs import AdapterSpec
from augbench.core.store import commit_folder, json_bytes, write_atomic
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
    target = context.store.path("adapters", spec.key)
    made = target.with_name(f".{spec.key}.{uuid.uuid4().hex[:8]}.part")
    made.mkdir(parents=True)
    try:
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
        write_atomic(made / "adapter.json", json_bytes(record))
        commit_folder(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    context.store.clear_failure(spec.key)

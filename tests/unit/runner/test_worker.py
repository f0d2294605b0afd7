"""The setup of a worker: a GPU only where one is reserved."""

import sys
from types import SimpleNamespace

import pytest
from helpers import tiny_plan

from augbench.runner import worker
from augbench.runner.worker import WorkerSetup


@pytest.mark.parametrize(("reserved", "device"), [([0], "cuda"), ([], "cpu")])
def test_a_worker_of_ray_looks_for_a_gpu_only_if_it_reserved_one(store, monkeypatch, reserved, device):
    ids = SimpleNamespace(get_node_id=lambda: "node", get_worker_id=lambda: "worker")
    ray = SimpleNamespace(is_initialized=lambda: True, get_gpu_ids=lambda: reserved, get_runtime_context=lambda: ids)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(worker, "best_device", lambda: "cuda")
    setup = WorkerSetup.of(tiny_plan(store), store)
    assert setup.context(use_gpu=True).device == device and setup.context(use_gpu=False).device == "cpu"

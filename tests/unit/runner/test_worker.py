"""Worker processes: the cap of their GPU memory, and failures that a whole GPU may cure."""

import pytest
import torch
from helpers import tiny_plan

from augbench.core.errors import PluginError, UserError
from augbench.core.gpu import enough_memory
from augbench.runner import nodes, worker
from augbench.runner.worker import Failure, WorkerSetup, cap_memory

GIB = 2**30


@pytest.mark.parametrize(("share", "cap"), [(0.5, 11.5 / 24), (0.25, 5.5 / 24), (0.01, 0), (1, None), (2, None)])
def test_a_share_of_a_gpu_caps_the_allocator(share, cap, monkeypatch):
    card, caps = type("Card", (), {"total_memory": 24 * GIB}), []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", caps.append)
    cap_memory(share)
    assert caps == ([] if cap is None else [pytest.approx(cap)])


@pytest.mark.parametrize(("reserved", "device", "capped"), [(0, "cpu", []), (0.25, "cuda", [0.25]), (1, "cuda", [1])])
def test_a_worker_looks_for_a_gpu_only_if_it_reserved_one(store, monkeypatch, reserved, device, capped):
    caps = []
    monkeypatch.setattr(worker, "best_device", lambda: "cuda")
    monkeypatch.setattr(worker, "cap_memory", caps.append)
    assert WorkerSetup.of(tiny_plan(store), store).context(reserved).device == device and caps == capped


def raised(outer, cause):
    try:
        raise outer from cause
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (raised(UserError("change 'batch'"), torch.OutOfMemoryError("CUDA out of memory")), True),
        (raised(PluginError("a plug-in"), torch.OutOfMemoryError("CUDA out of memory")), True),
        (UserError("change 'batch'"), False),
        (RuntimeError("CPU allocator: not enough memory"), False),
    ],
)
def test_out_of_memory_on_a_shared_gpu_is_worth_another_try(error, again):
    assert Failure.of(error, gpu=0.5).again is again
    assert not Failure.of(error, gpu=1).again


def test_too_little_memory_names_settings_and_owner(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (GIB, 8 * GIB))
    message = r"1.0 of 8.0 GiB free\): change 'batch' and 'precision' of protocol 'diag'"
    with pytest.raises(UserError, match=message), enough_memory("batch", "precision", of="protocol 'diag'"):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("script", "gib"), [("printf '24564\\n81559\\n'", 24564 / 1024), ("echo [N/A]", 0), ("exit 9", 0), ("true", 0)]
)
def test_the_smallest_gpu_of_a_machine(script, gib, monkeypatch):
    monkeypatch.setattr(nodes, "QUERY", ("sh", "-c", script))
    assert nodes.smallest_gpu() == pytest.approx(gib)
    monkeypatch.setattr(nodes, "QUERY", ("no-such-program",))
    assert nodes.smallest_gpu() == 0

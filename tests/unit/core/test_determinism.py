"""TF32 and nondeterministic algorithms: by request alone, and only while it lasts."""

import pytest
import torch

from augbench.core.determinism import deterministic
from augbench.core.errors import UserError


def flags():
    return {
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "convolutions": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
    }


@pytest.mark.parametrize("strict", [False, True])
def test_fp32_is_fp32_and_ends(strict):
    before = flags()
    assert before["convolutions"], "PyTorch's default: without this test's subject, fp32 would be TF32"
    with pytest.raises(ZeroDivisionError), deterministic("cpu", "fp32", strict):
        assert flags() == {"matmul": False, "convolutions": False, "deterministic": True, "warns": not strict}
        raise ZeroDivisionError
    assert flags() == before


def test_tf32_where_a_gpu_has_it(monkeypatch):
    capability = {"cuda": (8, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability.get)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # a user's choice stays
    with deterministic("cuda", "tf32"):
        assert flags()["matmul"] and flags()["convolutions"] and flags()["deterministic"]
        with deterministic("cuda", "bf16", strict=True):
            assert not flags()["convolutions"]
        assert flags()["convolutions"] and flags()["warns"]
    capability["cuda"] = (7, 5)
    for device in ("cuda", "cpu"):
        with pytest.raises(UserError, match=r"tf32 needs a GPU .*: set it to fp32"), deterministic(device, "tf32"):
            pass

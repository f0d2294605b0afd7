import pytest
import torch
from helpers import library_of
from layouts import draw_surfaces


@pytest.fixture(scope="module")
def surfaces():
    return library_of("surfaces", draw_surfaces(None)).dataset("surfaces")


@pytest.fixture
def out_of_memory(monkeypatch):
    """Let a function run out of memory, on a GPU with 1 of 8 GiB free."""

    def burst(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def replace(owner, name):
        monkeypatch.setattr(owner, name, burst)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 8 * 2**30))

    return replace

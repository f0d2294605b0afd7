"""Each test runs on a CPU, on a GPU that is not there (`fake_cuda`: placement alone), and on a GPU (marker `gpu`)."""

import pytest
from fake_cuda import fake_cuda, require_gpu

PLACES = (pytest.param("cpu"), pytest.param("fake"), pytest.param("cuda", marks=pytest.mark.gpu))
SLOW = {("cpu", "bf16", "precision_of_pipeline")}  # half a minute and more on a CPU without bf16
PRECISIONS = {"precision": ("fp32", "tf32", "bf16"), "precision_of_pipeline": ("fp32", "tf32", "bf16", "fp16")}


def _cases(place, name):
    """Yield a place with each precision that it can have; placement is the same with TF32 as without."""
    (where,) = place.values
    for precision in PRECISIONS[name]:
        if where == "cuda" or precision not in {"cpu": ("tf32", "fp16"), "fake": ("tf32",)}[where]:
            slow = [pytest.mark.slow] if (where, precision, name) in SLOW else []
            yield pytest.param(where, precision, marks=[*place.marks, *slow])


def pytest_generate_tests(metafunc):
    for name in [name for name in PRECISIONS if name in metafunc.fixturenames]:
        metafunc.parametrize(("place", name), [case for place in PLACES for case in _cases(place, name)])
        return
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("place", PLACES)


@pytest.fixture
def device(place, one_thread):
    """The torch device of a place."""
    if place == "cuda":
        require_gpu()
    if place == "fake":
        with fake_cuda():
            yield "cuda"
    else:
        yield place

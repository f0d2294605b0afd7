"""Each test runs on a CPU, on a GPU that is not there (`fake_cuda`: placement alone), and on a GPU (marker `gpu`)."""

import pytest
from fake_cuda import fake_cuda, require_gpu

PLACES = (pytest.param("cpu"), pytest.param("fake"), pytest.param("cuda", marks=pytest.mark.gpu))
PRECISIONS = {"precision": ("fp32", "tf32", "bf16"), "precision_of_pipeline": ("fp32", "tf32", "bf16", "fp16")}


def pytest_generate_tests(metafunc):
    for name in [name for name in PRECISIONS if name in metafunc.fixturenames]:
        cases = [(place, one) for place in PLACES for one in PRECISIONS[name]]
        has = [(place, one) for place, one in cases if place.values != ("cpu",) or one in ("fp32", "bf16")]
        metafunc.parametrize(
            ("place", name), [pytest.param(*place.values, one, marks=place.marks) for place, one in has]
        )
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

"""A grid on Ray, whose workers share one GPU, gives what one process gives."""

import pytest
from fake_cuda import require_gpu
from helpers import TINY_DDPM, results_of, tiny_grid

from augbench.runner.driver import run
from augbench.stages.context import best_device
from augbench.stages.provenance import device_name
from augbench.storage.store import ADAPTER_MARKER, Store

GRID = {
    "augmenters": [{"name": "ddpm", "settings": TINY_DDPM}],
    "shots": [0],
    "n_aug": [2],
    "seeds": [0, 1],
    "fidelity": {"extractor": "micro_resnet", "pictures": 4},
}


@pytest.mark.parametrize("gpu", [pytest.param(0, marks=pytest.mark.slow), pytest.param(0.25, marks=pytest.mark.gpu)])
def test_a_grid_of_two_cells(gpu, tmp_path):
    if gpu:
        require_gpu()
    resources = {stage: {"gpu": gpu, "workers": 2} for stage in ("train", "generate")}
    stores = {executor: Store(tmp_path / executor) for executor in ("ray", "inline")}
    for executor, store in stores.items():
        assert not run(tiny_grid(**GRID, resources=resources), store, executor=executor).failures
    by_ray = stores["ray"]
    assert results_of(by_ray) == results_of(stores["inline"]) and len(results_of(by_ray)) == 2
    images = [by_ray.read_pool(key)["provenance"] for key in by_ray.keys("pools")]
    names = [f"{by_ray.name('adapters', key)}/{ADAPTER_MARKER}" for key in by_ray.keys("adapters")]
    images += [by_ray.parsed(name)["provenance"] for name in names]
    assert len(images) == 3 and {made["precision"] for made in images} == {"fp16" if gpu else "fp32"}
    cells = [record["provenance"] for record in by_ray.read_records(sorted(by_ray.keys("cells")))]
    assert {made["precision"] for made in cells} == {"fp32"}
    assert {made["device"] for made in images + cells} == {device_name(best_device())}

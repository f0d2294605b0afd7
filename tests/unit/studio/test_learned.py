"""Augmenters that learn before they generate: the page uses what a run has learned."""

import pytest
from helpers import TINY_DDPM, tiny_plan

from augbench.core.errors import UserError
from augbench.stages.adapt import adapt
from augbench.stages.context import Context
from augbench.storage.store import Store
from augbench.studio.opening import Asked, open_studio

STABLESDG = {"bundle": "micro-sd", "token_steps": 1, "lora_steps": 1, "batch": 2, "steps": 2}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A store with adapters of ddpm at zero-shot and of stablesdg at two shots: augmenter -> key."""
    folder = tmp_path_factory.mktemp("learned")
    entries = [
        {"name": "ddpm", "shots": 0, "settings": TINY_DDPM},
        {"name": "stablesdg", "shots": 2, "settings": STABLESDG},
    ]
    store, plan = Store(folder / "s"), tiny_plan(augmenters=entries, n_aug=[2])
    adapters = {pool.augmenter.name: pool.adapter for pool in plan.pools.values()}
    for spec in adapters.values():
        adapt(Context(store, plan.library), spec)
    return folder / "s", {name: spec.key for name, spec in adapters.items()}


@pytest.mark.parametrize("name", ["ddpm", "stablesdg"])
def test_the_page_generates_with_an_adapter(learned, name, tmp_path):
    store, keys = learned
    studio = open_studio(Asked(augmenter=name, adapter=keys[name], store=str(store)), tmp_path / "r")
    try:
        state = studio.state()
        assert not state["needs_region"] and ("strength" in state["settings"]) == (name == "stablesdg")
        normal = set(studio.training.normals)
        assert state["sources"] == (2 if name == "stablesdg" else len(normal))
        (source, *_) = studio.sources()["names"]
        assert (source in normal) == (name == "ddpm")
        prompt = state["presets"][0]["prompts"][0]
        for _ in range(2):
            studio.generate(source, prompt, 5)
            assert studio.worker.wait() == ""
        studio.generate(source, f"{prompt} cracked", 5)
        assert studio.worker.wait() == ""
        digests = [item.made["sha256"] for item in studio.review.items()]
        assert digests[0] == digests[1] != digests[2], "the prompt is that of the page"
        first = studio.review.item("000000")
        assert "region" not in first.made and not studio.public(first)["has_mask"]
        studio.decide("000000", "accept")
        assert studio.commands(1) and len(studio.review.seen("learned")) == (2 if name == "stablesdg" else 0)
    finally:
        studio.close()


def test_an_adapter_of_another_augmenter_is_refused(learned, tmp_path):
    store, keys = learned
    with pytest.raises(UserError, match="give --augmenter ddpm"):
        open_studio(Asked(augmenter="stablesdg", adapter=keys["ddpm"], store=str(store)), tmp_path / "r")

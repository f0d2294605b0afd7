"""Resource allotment: what each stage reserves, and that nothing waits for resources it does not use."""

import pytest
from helpers import TINY, TINY_PROBE, grid_file, tiny_grid, tiny_plan

from augbench.core.errors import UserError
from augbench.planning.grid import load_grid, make_grid
from augbench.planning.remaining import subtract
from augbench.runner.resources import Node, Share, allot
from augbench.runner.scheduler import Scheduler
from augbench.storage.leases import Leases

DDPM = {"name": "ddpm", "settings": {"bundle": "micro-sd"}}
BOTH = {"augmenters": ["none", "memseg", DDPM], "shots": [5]}
CPU_16, GPU_1, GPU_2 = Node(16), Node(16, 1), Node(16, 2)


def lanes_of(lanes):
    """Return reserved GPUs and workers by kind of augmenter."""
    return {kind: (lane.share.gpu, lane.share.workers) for lane in lanes for kind in lane.kinds}


# -- settings of a grid


@pytest.mark.parametrize(
    ("text", "found"),
    [("8GB", 8 * 10**9), ("8 gb", 8 * 10**9), ("1.5GiB", 3 * 2**29), ("512MiB", 2**29), ("7B", 7), (4096, 4096)],
)
def test_memory_is_bytes_or_has_a_unit(text, found):
    grid = tiny_grid(resources={"train": {"memory": text}})
    assert grid.resources.train.memory == found
    assert make_grid(grid.as_dict()).resources == grid.resources


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"memory": "8 potatoes"}, "memory"),
        ({"memory": 0}, "memory"),
        ({"memory": "0GB"}, "memory"),
        ({"memory": "-1GB"}, "memory"),
        ({"memory": float("inf")}, "memory"),
        ({"gpu": 1.5}, "a share of one"),
        ({"gpu": float("nan")}, "gpu"),
        ({"cpu": float("inf")}, "cpu"),
        ({"workers": 0}, "workers"),
        ({"gpus": 1}, "did you mean 'gpu'"),
    ],
)
@pytest.mark.parametrize("name", ["adapt", "train"])
def test_resources_are_checked(stage, message, name):
    with pytest.raises(UserError, match=message):
        tiny_grid(resources={name: stage})


def test_what_adapt_leaves_open_is_as_in_generate():
    grid = tiny_grid(resources={"generate": {"gpu": 1, "workers": 2}, "adapt": {"memory": "32GB", "workers": 1}})
    adapting = grid.resources.adapting
    assert (adapting.gpu, adapting.workers, adapting.memory, adapting.cpu) == (1, 1, 32 * 10**9, None)
    assert tiny_grid().resources.adapting == tiny_grid().resources.generate


def test_resources_never_enter_keys_nor_names(tmp_path):
    plain = tiny_plan(**BOTH)
    stage = {"cpu": 2, "gpu": 1, "memory": "8GB", "workers": 3}
    spread = tiny_plan(**BOTH, resources={"adapt": stage, "generate": stage, "train": stage})
    assert spread.by_key.keys() == plain.by_key.keys() and spread.pools.keys() == plain.pools.keys()
    assert load_grid(grid_file(tmp_path), ["resources.adapt.memory=8GB", "resources.train.gpu=0.5"]).name == "tiny"


# -- reservations


def test_a_laptop_reserves_cpus_for_trainings_alone():
    plan = tiny_plan(**{**BOTH, "seeds": list(range(50))})
    found = allot(plan, [CPU_16])
    assert found.train == Share(1, 0, 0, 16)
    (lane,) = found.generate
    assert lane.kinds == {"gpu", "cpu"} and lane.share == Share(0, 0, 0, 8)  # one lane: there is no GPU to wait for
    assert found.measure.bundle == {}


def test_trainings_fit_the_cluster():
    many = {"seeds": list(range(200))}
    assert allot(tiny_plan(**many), [CPU_16]).train.workers == 16
    assert allot(tiny_plan(**many), [GPU_2]).train == Share(1, 0.25, 0, 8)  # MemSeg reserves no GPU
    assert allot(tiny_plan(**many, resources={"train": {"workers": 3}}), [CPU_16]).train.workers == 3
    assert allot(tiny_plan(seeds=[0, 1], augmenters=["none"], shots=[5]), [CPU_16]).train.workers == 2
    plan = tiny_plan(protocols=[{"name": "t", **TINY, "threads_per_cell": 4}])
    for nodes in ([Node(2)], [Node(2), Node(2)]):  # 4 CPUs, but on no machine
        with pytest.raises(UserError, match="no training fits"):
            allot(plan, nodes)


@pytest.mark.parametrize(
    ("train", "nodes", "slots"),
    [
        ({"gpu": 0.6}, [GPU_2], 2),  # a share must fit on one GPU: 2 / 0.6 is 3, and the third would wait forever
        ({"gpu": 0.3}, [GPU_2], 6),
        ({"gpu": 1}, [GPU_1, GPU_1], 2),
        ({"gpu": 2}, [GPU_2, GPU_1], 1),
        ({"gpu": 0.25, "memory": "30GB"}, [Node(16, 1, memory=64e9)], 2),
        ({"gpu": 0, "cpu": 10}, [CPU_16, CPU_16, Node(8)], 2),
        ({"gpu": 0, "cpu": 0}, [Node(0)], 40),  # no limit: nothing is reserved
    ],
)
def test_trainings_are_counted_machine_by_machine(train, nodes, slots):
    plan = tiny_plan(augmenters=["none"], shots=[5], seeds=list(range(40)), resources={"train": train})
    assert allot(plan, nodes).train.workers == slots


def test_an_augmenter_without_gpu_reserves_none_where_others_do():
    """A head and a machine with CPUs, one with GPUs: MemSeg runs on the former, DDPM on the latter."""
    found = allot(tiny_plan(**BOTH, seeds=list(range(40))), [Node(4), CPU_16, GPU_2])
    assert lanes_of(found.generate) == {"gpu": (0.25, 2), "cpu": (0, 18)}
    assert lanes_of(found.adapt) == {"gpu": (0.25, 2)}  # MemSeg has no adapter
    assert found.train == Share(1, 0.25, 0, 6)  # beside two generators
    assert found.measure.gpu == 0.25


def test_generators_with_cpus_of_their_own_leave_gpu_machines_alone():
    plan = tiny_plan(**BOTH, seeds=list(range(40)), resources={"generate": {"cpu": 4, "gpu": 0.25, "workers": 2}})
    found = allot(plan, [GPU_1, Node(8)])
    assert found.train.workers == 2  # beside two generators on the GPU; those of MemSeg are on the other machine
    assert lanes_of(found.generate) == {"gpu": (0.25, 2), "cpu": (0, 2)}


def test_a_worker_that_would_wait_forever_is_refused():
    for stage, settings, nodes in (
        ("generate", {"gpu": 1}, [CPU_16]),
        ("generate", {"memory": "100GB"}, [Node(16, 1, memory=64e9)]),
        ("adapt", {"gpu": 2}, [GPU_1, GPU_1]),
        ("adapt", {"cpu": 17}, [GPU_2]),
    ):
        with pytest.raises(UserError, match=f"no worker that is to {stage} fits.*lower resources.{stage}"):
            allot(tiny_plan(**BOTH, resources={stage: settings}), nodes)
    allot(tiny_plan(resources={"generate": {"gpu": 1}}), [CPU_16])  # MemSeg would not use it


A100, T4, L4 = Node(16, 4, kind="A100"), Node(16, 4, kind="T4"), Node(16, 2, kind="L4")


@pytest.mark.parametrize(
    ("train", "nodes", "kind", "slots"),
    [
        ({}, [A100, A100], "", 32),  # one kind only
        ({}, [T4, A100, T4, L4], "T4", 32),  # the kind with most GPUs, whatever the order
        ({}, [Node(16, 8), A100], "A100", 16),  # Ray knows the kind of some nodes only: those can be requested
        ({"accelerator": "A100"}, [T4, A100, T4], "A100", 16),
        ({"accelerator": "any"}, [T4, A100, T4], "", 48),
        ({"gpu": 0, "cpu": 4}, [T4, A100], "", 8),
        ({}, [CPU_16, CPU_16], "", 32),
    ],
)
def test_trainings_of_a_table_share_a_kind_of_gpu(train, nodes, kind, slots):
    plan = tiny_plan(augmenters=["none"], shots=[5], seeds=list(range(100)), resources={"train": train})
    found = allot(plan, nodes)
    assert (found.train.kind, found.train.workers) == (kind, slots)
    decided = bool(kind) and not train
    assert [f"on {kind} alone" in note for note in found.notes] == [True] * decided


def test_a_kind_of_gpu_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"0\.25 GPUs \(H100\).*4 GPUs \(T4\) \(2 times\): lower resources.train"):
        allot(tiny_plan(resources={"train": {"accelerator": "H100"}}), [T4, T4])
    with pytest.raises(UserError, match=r"generate fits: .* \(H100\)"):
        allot(tiny_plan(**BOTH, resources={"generate": {"accelerator": "H100"}}), [T4, A100])
    found = allot(tiny_plan(**BOTH, resources={"generate": {"accelerator": "A100"}}), [T4, A100])
    assert {lane.share.kind for lane in found.generate if "gpu" in lane.kinds} == {"A100"}
    assert {lane.share.kind for lane in found.generate if "cpu" in lane.kinds} == {""}  # MemSeg uses none


def test_node_from_rays_resources():
    assert Node.of({"CPU": 8.0, "GPU": 2.0, "accelerator_type:T4": 1.0, "node:10.0.0.1": 1.0}) == Node(8, 2, kind="T4")
    assert Node.of({"memory": 5.0}) == Node(0, 0, 5.0)


def test_bundle_and_options_of_a_share():
    of_kind = Share(1, 0.5, 0, 3, "T4")
    assert of_kind.bundle == {"CPU": 1, "GPU": 0.5, "accelerator_type:T4": 0.001}
    assert of_kind.options["resources"] == {"accelerator_type:T4": 0.001}
    share = Share(2, 0.5, 8 * 10**9, 3)
    assert share.bundle == {"CPU": 2, "GPU": 0.5, "memory": 8 * 10**9}
    assert share.options == {"num_cpus": 2, "num_gpus": 0.5, "memory": 8 * 10**9}
    assert Share(0, 0, 0, 1).bundle == {} and Share(0, 0, 0, 1).options["memory"] is None


# -- lanes


def test_a_lane_serves_its_kind_alone(store):
    plan = tiny_plan(**BOTH)
    gpu, plain = sorted(allot(plan, [GPU_2]).generate, key=lambda lane: lane.kinds != {"gpu"})
    with Leases(store.files) as leases:
        scheduler = Scheduler(plan, subtract(plan, store), store, leases)
        assert {pool.augmenter.name for pool, _ in scheduler.next_chunks(plain.serves)} == {"memseg"}
        assert scheduler.next_chunks(gpu.serves) == []  # its adapter is not learned yet
        assert scheduler.chunks_left_of(gpu.serves) and scheduler.chunks_left_of(plain.serves)
        assert [a.augmenter.name for a in scheduler.next_adapters(1, gpu.serves)] == ["ddpm"]
        assert scheduler.next_adapters(1, plain.serves) == []
        (pool,) = [pool for pool in plan.pools.values() if pool.augmenter.name == "memseg"]
        scheduler.chunk_done(pool.key, 0)
        assert not scheduler.chunks_left_of(plain.serves) and scheduler.chunks_left_of(gpu.serves)


# -- default shares of a GPU

SD_AND_SDXL = {"augmenters": [{"name": "ddpm", "settings": {"bundle": "sd15"}}, "diag"], "shots": [5]}
PAPERS = {**SD_AND_SDXL, "protocols": ["diag"], "seeds": list(range(40))}


@pytest.mark.parametrize(
    ("card", "adapt", "generate", "train"),
    [(24, 0.3, 0.45, 0.4), (40, 0.25, 0.3, 0.25), (80, 0.25, 0.25, 0.25), (0, 0.3, 0.45, 0.4), (8, 0.9, 1, 1)],
)
def test_default_shares_follow_from_the_estimates_and_the_card(card, adapt, generate, train):
    found = allot(tiny_plan(**PAPERS), [Node(16, 4, gpu_memory=card)])
    assert [lane.share.gpu for lane in found.adapt] == [adapt]
    assert [lane.share.gpu for lane in found.generate] == [generate] and found.train.gpu == train
    assert found.in_turn is (card == 8) and len(found.notes) == (3 if card == 8 else 0)
    assert all("GiB of GPU memory, and a GPU has 8" in note or "wait for all" in note for note in found.notes)


def test_the_smallest_card_of_the_kind_decides():
    nodes = [Node(16, 2, kind="A100", gpu_memory=40), Node(16, 2, kind="A100", gpu_memory=80), Node(16, 1, kind="T4")]
    assert allot(tiny_plan(**PAPERS), nodes).train.gpu == 0.25
    assert allot(tiny_plan(**PAPERS, resources={"train": {"gpu": 0.1}}), nodes).train.gpu == 0.1, "a grid's share wins"


def test_what_has_no_estimate_gets_fixed_shares():
    other = {**TINY, "name": "other", "backbone": "resnet26"}
    found = allot(tiny_plan(augmenters=["none"], shots=[5], protocols=[other]), [Node(16, 1, gpu_memory=8)])
    assert found.train.gpu == 0.25


def test_on_whole_gpus_stages_and_lanes_take_turns():
    grid = {"protocols": [{"name": "tiny", **TINY}, TINY_PROBE], "augmenters": ["memseg", DDPM], "shots": [5]}
    node = Node(16, 1, gpu_memory=24)
    found = allot(tiny_plan(**grid), [node], whole_gpus=True)
    shares = [lane.share for lane in (*found.adapt, *found.generate) if "cpu" not in lane.kinds]
    assert [(share.gpu, share.workers) for share in (*shares, found.train)] == [(1, 1)] * 4 and found.in_turn
    plan = tiny_plan(**grid, resources={"train": {"gpu": 0}, "generate": {"gpu": 0.1}})
    assert allot(plan, [node], whole_gpus=True).train.gpu == 0, "what uses no GPU gets none"

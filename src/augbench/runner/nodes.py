"""The nodes of the cluster that Ray runs on, with the memory of their GPUs, which Ray does not know."""

from __future__ import annotations

import subprocess

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from augbench.runner.resources import Node

WAIT = 60.0  # seconds for the answers of all nodes
QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


def read_nodes() -> list[Node]:
    """Return the nodes that are alive; those with a GPU are asked for its memory, by a task that reserves nothing."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = {
        node["NodeID"]: _gpu_memory.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in alive
        if node["Resources"].get("GPU")
    }
    answered = ray.wait(list(asked.values()), num_returns=len(asked), timeout=WAIT)[0] if asked else []
    memory = {key: ray.get(answer) for key, answer in asked.items() if answer in answered}
    return [Node.of(node["Resources"], memory.get(node["NodeID"], 0.0)) for node in alive]


@ray.remote(num_cpus=0)
def _gpu_memory() -> float:
    return smallest_gpu()


def smallest_gpu() -> float:
    """Return the memory in GiB of the smallest GPU of this machine by NVIDIA's driver; 0: it gives none."""
    try:
        found = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(line) for line in found.split("\n") if line.strip()) / 1024  # of MiB
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0.0

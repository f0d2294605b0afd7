"""Test plug-in: adapting and generating run out of GPU memory unless the worker reserves a whole GPU."""

import numpy as np
import ray
import torch

from augbench import Augmenter, Synthetic


def demand_a_whole_gpu():
    if ray.get_runtime_context().get_assigned_resources().get("GPU", 0) < 1:
        raise torch.OutOfMemoryError("CUDA out of memory")


class Hungry(Augmenter):
    title = "hungry"
    learns = True
    uses_gpu = True
    chunk_size = 4

    def adapt(self, view, out, seed, room):
        demand_a_whole_gpu()

    def generate(self, requests, view):
        demand_a_whole_gpu()
        image = view.image(view.negatives["id"].iloc[0])
        return [Synthetic(image, request.label, np.ones(image.shape[:2], bool), {}) for request in requests]

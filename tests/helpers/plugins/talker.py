"""Test plug-in: says things on every way there is, and fails where it is told to."""

import logging
import sys
import warnings

import numpy as np

from augbench import Augmenter, Settings, Synthetic


class Talker(Augmenter):
    title = "talker"
    learns = True
    chunk_size = 4

    class Config(Settings):
        broken_from: int | None = None

    def reads(self, shots):
        return frozenset({"negatives"})

    def adapt(self, view, out, seed, room):
        print("adapting as", process_title())
        room.say(1, 1, 0.25)
        (out / "nothing.json").write_text("{}")

    def load(self, adapter, device):
        print("loading", file=sys.stderr)

    def generate(self, requests, view):
        print("generating as", process_title())
        warnings.warn("the light flickers", stacklevel=1)
        logging.getLogger("some.library").warning("the lamp is %s", "old")
        logging.getLogger("some.library").info("nobody wants to know")
        if self.config.broken_from is not None and requests[0].index >= self.config.broken_from:
            raise RuntimeError("the talker lost its voice")
        image = view.image(str(view.negatives["id"].iloc[0]))
        mask = np.zeros(image.shape[:2], bool)
        mask[:4, :4] = True
        return [Synthetic(image, request.label, mask, {}) for request in requests]


def process_title():
    """What `ps` shows of this process in a Ray worker."""
    ray = sys.modules.get("ray")
    return ray._raylet.getproctitle() if ray is not None and ray.is_initialized() else "no worker of Ray"

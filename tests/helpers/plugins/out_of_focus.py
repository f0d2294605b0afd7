"""Test plug-in: the dataset `surfaces` with an artefact: test images with a defect, and no others, are out of focus."""

import numpy as np
from PIL import Image, ImageFilter

from augbench.core.contracts import GOOD
from augbench.datasets import surfaces


class OutOfFocus(surfaces.Surfaces):
    title = "surfaces, test defects out of focus"

    def read_image(self, sample):
        image = super().read_image(sample)
        if sample["label"] == GOOD or sample["split"] == "train":
            return image
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)))

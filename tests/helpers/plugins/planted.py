"""Test plug-in: a perfect generator of the dataset `surfaces`, or with ``defects: false`` its null.

New items are drawn by the procedure of the dataset; the null draws the same items without their defects.
"""

from augbench import Augmenter, Settings, Synthetic
from augbench.datasets._surface_defects import DEFECTS, add_defect
from augbench.datasets._surface_materials import make_surface, photograph
from augbench.datasets.surfaces import HEIGHT, WIDTH


class Planted(Augmenter):
    title = "planted gain"

    class Config(Settings):
        defects: bool = True

    def generate(self, requests, view):
        return [self._one(request) for request in requests]

    def _one(self, request):
        item, defect, exposure = request.rng.spawn(3)
        surface, mask = make_surface(item, (HEIGHT, WIDTH)), None
        if self.config.defects:
            mask = add_defect(defect, surface, list(DEFECTS)[request.index % len(DEFECTS)])
        return Synthetic(photograph(exposure, surface), request.label, mask)

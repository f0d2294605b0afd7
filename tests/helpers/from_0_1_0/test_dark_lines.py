"""Tests of dark_lines: those that every augmenter inherits, and its own."""

from pathlib import Path

import numpy as np
from augbench.core import plugins
from augbench.core.contracts import Augmenter, Dataset
from augbench.testing import AugmenterContract, prepare, requests, view_of

plugins.load_file(Path(__file__).with_name("dark_lines.py"))


class TestDarkLines(AugmenterContract):
    """What every augmenter must keep; override the fixture ``settings`` where its defaults would need hours."""

    plugin = "dark_lines"

    def test_it_changes_what_its_mask_says_and_nothing_else(
        self, augmenter: Augmenter, surfaces: Dataset, tmp_path: Path
    ) -> None:
        """Whoever trains on masks can rely on them."""
        view = view_of(surfaces, augmenter.reads(0))
        prepare(augmenter, view, tmp_path)
        for made in augmenter.generate(requests(5), view):
            changed = (made.image != view.image(made.meta["source"])).any(axis=2)
            assert made.mask is not None and not (changed & ~made.mask).any()
            assert np.count_nonzero(changed) > 0, "a picture without a defect"

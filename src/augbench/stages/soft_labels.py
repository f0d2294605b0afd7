"""Labels from masks, as mixed-segdec has them: the maximum of a defect image's average-pooled mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augbench.core.contracts import GOOD
from augbench.core.specs import Cell
from augbench.planning.plan import PoolSlice
from augbench.stages.cell_data import CellData
from augbench.stages.context import Context
from augbench.stages.decoded_images import Geometry, fit_to_protocol, geometry

STEP = 8  # pixels: mixed-segdec's segmentation has an eighth of the image's size


def soft_labels(context: Context, cell: Cell, slices: Sequence[PoolSlice], data: CellData) -> np.ndarray:
    """Return the label of each training image in [0, 1], N float32: real, then synthetic, as in ``data``.

    It is 0 for a normal image, and 1 for a defect image without a mask.
    """
    dataset, size = context.library.dataset(cell.data.alias), geometry(cell.protocol)
    masks = [None if row["label"] == GOOD else dataset.read_mask(row) for row in data.train.to_dict("records")]
    for one in slices:
        names = [context.store.mask_name(one.pool, index) for index in range(one.n)]
        found = context.store.files.read_many(names)
        masks += [
            None if file is None else context.store.decoded(one.pool, name, file)[..., 0] > 127
            for name, file in zip(names, found, strict=True)
        ]
    return np.array(
        [
            float(label) if mask is None else pooled_maximum(mask, size)
            for label, mask in zip(data.labels, masks, strict=True)
        ],
        np.float32,
    )


def pooled_maximum(mask: np.ndarray, size: Geometry) -> float:
    """Resize a mask H,W bool as an image, average 17 x 17 pixels in steps of 8, and return the largest average."""
    import torch

    grey = fit_to_protocol(np.repeat(np.uint8(255) * mask[..., None], 3, axis=2), size)[..., 0]
    padded = torch.nn.functional.pad(torch.from_numpy(grey.copy())[None, None].float() / 255, (STEP,) * 4, "reflect")
    return torch.nn.functional.avg_pool2d(padded, 2 * STEP + 1, STEP).max().item()

"""Compare images that were made elsewhere with real ones: augbench cannot know what their generator has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from augbench.core.contracts import Synthetic
from augbench.core.errors import UserError
from augbench.core.specs import PoolSpec
from augbench.metrics.near_copies import FULL_SIDE, near_copies, thumbnail
from augbench.stages.context import Context
from augbench.stages.fidelity import images_of

SHOT_COPIES = "shot_copies"  # in the provenance of a chunk: indices of near-copies of real training defects


def refuse_test_copies(context: Context, pool: PoolSpec, samples: Sequence[Synthetic]) -> list[int]:
    """Refuse near-copies of evaluated images; return which samples are near-copies of real training defects.

    An image that resembles a training image more closely than an evaluated one is no copy of the latter: it was made
    from the former, and where the two are alike the dataset is to blame.

    Raises:
        UserError: an image is a near-copy of a test image, or of a held-out one that thresholds are chosen on.
    """
    library = context.library
    evaluated, split = library.evaluated(pool.data), library.split(pool.data)
    ids = library.samples(pool.data.alias)["id"].to_numpy()
    real = _thumbnails(context, pool)
    dataset, rows = library.dataset(pool.data.alias), library.samples(pool.data.alias).to_dict("records")
    is_evaluated, is_defect = np.isin(ids, evaluated["id"]), np.isin(ids, split.positives["id"])
    nearest = np.full((len(samples), 2), -1)  # real image that is most alike: of training, evaluated
    best = np.zeros((len(samples), 2))
    copies = set()
    for other, index, score in copies_of(real, lambda row: dataset.read_image(rows[row]), samples):
        side = int(is_evaluated[other])
        if is_defect[other]:
            copies.add(index)
        if score > best[index, side]:
            best[index, side], nearest[index, side] = score, other
    for index in np.flatnonzero(best[:, 1] > best[:, 0]):
        name = ids[nearest[index, 1]]
        part = {"test": "test", "heldout": "held-out"}[evaluated.set_index("id")["part"][name]]
        file = samples[index].meta.get("file", f"number {index} of the chunk")
        fold = "" if pool.data.fold is None else f", fold {pool.data.fold}"
        raise UserError(
            f"augmenter '{pool.augmenter.name}': image '{file}' is a near-copy of the {part} image '{name}' of "
            f"'{pool.data.alias}'{fold}: take it out, and see that its generator was trained without this part"
        )
    return sorted(copies)


def copies_of(
    real: np.ndarray, read: Callable[[int], np.ndarray], samples: Sequence[Synthetic]
) -> Iterator[tuple[int, int, float]]:
    """Yield near-copies of real images among synthetic ones: index of the real image, of the synthetic one, score.

    The best come first.

    Args:
        real: thumbnails of the real images, N,SIDE,SIDE uint8.
        read: reads a real image by its index: H,W,3 uint8.
        samples: the synthetic images.
    """

    def large(index: int) -> np.ndarray:
        return thumbnail(read(index) if index < len(real) else samples[index - len(real)].image, FULL_SIDE)

    found = near_copies(
        np.concatenate([real, np.stack([thumbnail(sample.image) for sample in samples])]),
        lambda indices: np.stack([large(index) for index in indices.tolist()]),
    )
    for (other, own), score in zip(found.pairs.tolist(), found.scores, strict=True):
        if other < len(real) <= own:
            yield other, own - len(real), score


def _thumbnails(context: Context, pool: PoolSpec) -> np.ndarray:
    """Return the thumbnails of all images of a dataset, in the order of its table; read once per process."""
    label = pool.data.alias
    if label not in context.thumbnails:
        images = images_of(context.library, pool.data, context.library.samples(label))
        context.thumbnails[label] = np.stack([thumbnail(image) for image in images])
    return context.thumbnails[label]

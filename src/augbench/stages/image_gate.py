"""The gate that every synthetic image passes before it is committed, whatever made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from augbench.core.contracts import Augmenter, Request, Synthetic, TrainView, json_problem
from augbench.core.guard import breach

BLACK = 1.0  # mean of values in 0..255, below which an image is black
FLAT = 16  # range of values in 0..255, up to which a patch may happen to equal what it covers


def check_images(
    augmenter: Augmenter,
    requests: Sequence[Request],
    samples: Sequence[Synthetic],
    view: TrainView,
    may_be_unchanged: bool = False,
) -> None:
    """Check the output of an augmenter, which may be a third party's, against its contract.

    An image whose ``meta`` names a visible sample as its ``source`` is compared with that, any other with all visible
    samples.

    Args:
        augmenter: what made the images.
        requests: what was asked for.
        samples: what came back.
        view: what the augmenter saw.
        may_be_unchanged: an image may equal its source inside its mask, since a filter drops it.

    Raises:
        PluginError: an image breaks the contract; the message names augmenter, contract and index of the image.
    """
    if len(samples) != len(requests):
        raise breach(type(augmenter), "generate", f"{len(samples)} images for {len(requests)} requests")
    real = _RealImages(view)
    for request, sample in zip(requests, samples, strict=True):
        for field, problem in _problems(request, sample, real, may_be_unchanged):
            raise breach(type(augmenter), f"generate: Synthetic.{field} at image {request.index}", problem)


def _problems(
    request: Request, sample: Synthetic, real: _RealImages, may_be_unchanged: bool
) -> Iterator[tuple[str, str]]:
    """Yield the field of `Synthetic` and what is wrong with it."""
    image, mask, meta = sample.image, sample.mask, sample.meta
    if sample.label != request.label:
        yield "label", f"it is '{sample.label}' where '{request.label}' was asked"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        yield "image", f"it must be H,W,3 uint8, not {_described(image)}"
        return
    if problem := json_problem(meta):
        yield "meta", problem
        return
    source = real.source(meta.get("source"))
    its, none = ("that of its source", "its source is not") if source is not None else ("of a real", "no real image is")
    if not (real.any_has_shape(image.shape) if source is None else image.shape == source.shape):
        yield "image", f"its size {image.shape[1]} x {image.shape[0]} is not {its} image"
    for name, holds in (("of one colour", _is_plain), ("black", _is_black)):
        if holds(image) and not (real.any_is(holds) if source is None else holds(source)):
            yield "image", f"it is {name}, and {none}"
    if mask is None:
        return
    if not isinstance(mask, np.ndarray) or mask.shape != image.shape[:2] or mask.dtype != bool:
        yield "mask", f"it must be H,W bool like its image, not {_described(mask)}"
    elif not mask.any():
        yield "mask", "it is empty: return None where there is none"
    elif may_be_unchanged or source is None:
        return
    elif np.ptp(source[mask]) > FLAT and np.array_equal(image[mask], source[mask]):
        yield "mask", f"the image is unchanged inside it, equal to its source '{meta['source']}'"


def _described(value: object) -> str:
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _is_plain(image: np.ndarray) -> bool:
    return bool((image == image[:1, :1]).all())


def _is_black(image: np.ndarray) -> bool:
    return float(image.mean()) < BLACK


class _RealImages:
    """The images of a view, read as far as they are needed: a few, or all where a check is about to fail."""

    def __init__(self, view: TrainView) -> None:
        self._view = view
        self._ids = [
            name for table in ("negatives", "shots") if view.reads(table) for name in getattr(view, table)["id"]
        ]
        self._visible, self._unread = set(self._ids), list(reversed(self._ids))
        self._sources: dict[str, np.ndarray] = {}
        self._shapes: set[tuple[int, ...]] = set()

    def source(self, name: object) -> np.ndarray | None:
        """Return the image of a visible sample, H,W,3 uint8; None where the name is not of one."""
        if not isinstance(name, str) or name not in self._visible:
            return None
        if name not in self._sources:
            self._sources[name] = self._view.image(name)
        return self._sources[name]

    def any_has_shape(self, shape: tuple[int, ...]) -> bool:
        """Return whether an image has this shape; True where there is none."""
        while shape not in self._shapes and self._unread:
            self._shapes.add(self._view.image(self._unread.pop()).shape)
        return shape in self._shapes or not self._shapes

    def any_is(self, holds: Callable[[np.ndarray], bool]) -> bool:
        """Return whether something holds for an image; True where there is none."""
        return not self._ids or any(holds(self._view.image(name)) for name in self._ids)

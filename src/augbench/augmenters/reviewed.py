"""Images that a person certified with `augbench studio`: the accepted images of a review (In&Out, section 4.1).

What certification is worth, the setting ``random_subset`` shows: as many images, at random, of all that the person
reviewed. The images were made from training images; the review names every real image that was looked at on the way,
and the plan refuses a review that saw a test image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import Augmenter, Reads, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.core.reviews import Chosen, certified_words, seen_in
from augbench.diffusion.pipelines import embedded

SAME = "every seed trains on the same images, so deviations do not cover making and reviewing them again"


class Reviewed(Augmenter):
    """Takes the images that a person accepted with `augbench studio`, as they are and in their order."""

    title = "images that a person certified"
    paper = "In&Out, VISAPP 2024 (the human-in-the-loop cycle)"
    licence = "that of the pipeline that made them"
    tasks = frozenset({"detection", "recognition"})
    learned_words = "for its images and prompts a person looked at"

    class Config(Settings):
        """Where the review is."""

        root: Path = setting(..., "the review, or its folder accepted", OURS)
        random_subset: int | None = setting(
            None,
            "instead, as many images at random of all that were decided: the draw of this number; what certification "
            "is worth is the difference",
            OURS,
            ge=0,
        )

    config: Config

    def reads(self, shots: Shots) -> frozenset[Reads]:
        """Read normal images: the certified ones were made from some."""
        return frozenset({"negatives"})

    def notes(self, shots: Shots) -> str:
        """Say that seeds do not differ."""
        return SAME

    def certified(self) -> str:
        """Say how many images the person accepted."""
        chosen = self._chosen
        return certified_words(chosen.accepted, chosen.decided, self.config.random_subset)

    def embedded(self) -> bool:
        """Whether a pipeline that comes with the package made some of its images."""
        return any(embedded(str(line.get("bundle"))) for line in self._chosen.lines)

    def trained_on(self) -> tuple[str, ...] | None:
        """Return the ids of the real images that the person looked at, or that a generator learned from."""
        return seen_in(self.config.root) or None

    def key_settings(self) -> dict[str, object]:
        """Return the settings that enter keys: of the review its images.

        Raises:
            UserError: it is no review, or its metadata is damaged.
        """
        return super().key_settings() | {"root": self._chosen.content}

    def capacity(self, view: TrainView) -> int:
        """Return the number of accepted images; in recognition that of the rarest class, for each class."""
        return self._chosen.capacity(view.classes)

    def ready(self) -> None:
        """Check that every image can be read and is what was reviewed."""
        if not self._chosen.lines:
            raise UserError(f"review '{self.config.root}' has no accepted image: accept some with augbench studio")
        for line in self._chosen.lines:
            self._chosen.read(line)

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Take one image per request; its meta holds prompt, source and file. Beyond the last image it starts anew."""
        found = []
        for request in requests:
            image, mask, line = self._chosen.take(request.index, request.label, view.classes)
            meta = {name: line[name] for name in ("source", "prompt", "seed") if name in line}
            found.append(Synthetic(image, request.label, mask, meta | {"reviewed": line["file_name"]}))
        return found

    @cached_property
    def _chosen(self) -> Chosen:
        return Chosen.of(self.config.root, self.config.random_subset)

"""What the page can do, without the web: each method takes and returns JSON values, or bytes of an image."""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from PIL import Image
from pydantic import Field

from augbench.core.errors import UserError
from augbench.core.images import decode_grey
from augbench.core.reviews import ACCEPTED, REJECTED
from augbench.core.seeds import rng
from augbench.core.types import Synthetic
from augbench.diffusion.masks import Kind, procedural_region
from augbench.diffusion.prompts import prompt_set_names, read_prompts
from augbench.diffusion.sampling import fit_mask
from augbench.report.contact_sheet import Section, Tile, draw_sheet
from augbench.report.leaderboard.sources import Pool
from augbench.storage.files import write_atomic
from augbench.studio.catch import Catches
from augbench.studio.generate import MOST, Generator, Wish, Worker
from augbench.studio.review import QUEUE, REASONS, Decision, Item, Review, State
from augbench.studio.training import TrainingImages

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**53)]  # as JavaScript counts
Offset = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]

MOST_PIXELS = 16_000_000  # of a region
PAGE = 60  # rows of a list
HELD = 32  # regions that wait to be used
THUMB, MOST_THUMBS = 144, 5000  # pixels of the longer side; how many are held
SHOTS_FOR_KID = 50  # fewer real defects make it a matter of chance
SHEET = 48, 24  # accepted and rejected images of the contact sheet
GRID = "grid.yaml"
GRID_NOTE = """\
# Written by augbench studio: what the certified images are worth. `certified` against `random_subset` is the value of
# certification: as many images, at random, of all that were reviewed. Copy it before you change it.
"""


class Studio:
    """A review, the training images it is of, and what makes images."""

    def __init__(
        self, review: Review, training: TrainingImages, generator: Generator | None, catches: Catches, worker: Worker
    ) -> None:
        """``generator``: None where the images of a pool are reviewed."""
        self.review, self.training, self.generator = review, training, generator
        self.catches, self.worker = catches, worker
        self._regions: OrderedDict[str, tuple[np.ndarray, str, str]] = OrderedDict()
        self._thumbs: OrderedDict[str, bytes] = OrderedDict()

    def close(self) -> None:
        """End the background thread, and let others open the review."""
        self.worker.close()
        self.review.close()

    # -- state

    def state(self) -> dict[str, Any]:
        """Return all that the page prints besides images."""
        review, generator, shares = self.review, self.generator, self.training.mask_shares
        return {
            "dataset": self.training.spec.alias,
            "review": str(review.folder),
            "augmenter": review.facts.get("augmenter", ""),
            "title": self._make().augmenter.title if generator else "",
            "pool": review.facts.get("pool", ""),
            "device": generator.device if generator else "",
            "is_loaded": bool(generator and generator.is_loaded),
            "needs_region": bool(generator and generator.needs_region),
            "settings": generator.settings() if generator else {},
            "presets": self._presets(),
            "preset": getattr(generator.augmenter.config, "prompts", "") if generator else "",
            "sources": len(generator.sources()) if generator else 0,
            "start": "shots" if generator and generator.sources() != self.training.normals else "normal images",
            "mask_shares": [float(np.quantile(shares, q)) for q in (0.05, 0.5, 0.95)] if shares else [],
            "problems": review.problems,
            "reasons": list(REASONS),
            "hides": self.catches.are_hidden,
            "most": MOST,
            **self.progress(),
        }

    def progress(self) -> dict[str, Any]:
        """Return what changes while the page is open."""
        items = self.review.items()
        waiting = sum(item.state == QUEUE for item in items)
        return {
            "counts": {"queue": waiting, "decided": len(items) - waiting},
            "can_undo": self.review.can_undo(),
            "prompts": [vars(one) | {"rate": one.rate} for one in self.review.prompts()],
            "masks": [{"name": name, **about} for name, about in self.review.kept_masks().items()],
            "seen": {kind: len(self.review.seen(kind)) for kind in ("normal", "defects")},
            "job": self.worker.seen(),
            "is_loaded": bool(self.generator and self.generator.is_loaded),
        }

    def _presets(self) -> list[dict[str, Any]]:
        if self.generator is None:
            return []
        if self.generator.needs_region:
            return [
                {"name": name, "prompts": list(found.prompts), "negative": found.negative_prompt}
                for name, found in ((name, read_prompts(name)) for name in prompt_set_names())
            ]
        config = self.generator.augmenter.config
        regime = {0: "zero", "all": "full"}.get(self.generator.shots, "few")
        own = getattr(config, regime).prompts if hasattr(config, regime) else (config.prompt,)
        return [{"name": self.generator.augmenter.paper, "prompts": list(own), "negative": None}]

    # -- Surface

    def sources(self, query: Text = "", offset: Offset = 0) -> dict[str, Any]:
        """List images to start from, whose ids contain all words of the query; they count as seen."""
        found = self.training.found(self._make().sources(), query)
        page = found[offset : offset + PAGE]
        self._saw(page)
        return {"total": len(found), "names": page}

    def source(self, name: Name) -> bytes:
        """Return an image to start from, as PNG."""
        image = self.training.image(name)
        self._saw([name])
        return _png(image)

    def thumb(self, name: Name) -> bytes:
        """Return a small copy of an image to start from, as PNG."""
        return self._small("source " + name, lambda: self.training.image(name))

    def _saw(self, names: Sequence[str]) -> None:
        normal = set(self.training.normals)
        for kind, seen in (("normal", normal.__contains__), ("defects", lambda name: name not in normal)):
            self.review.saw(kind, [name for name in names if seen(name)])

    # -- Where

    def defects(self, query: Text = "", offset: Offset = 0) -> dict[str, Any]:
        """List the real training defects with a mask."""
        found = self.training.found(self.training.masked, query)
        rows = [{"name": name, "label": self.training.label(name)} for name in found[offset : offset + PAGE]]
        return {"total": len(found), "rows": rows}

    def defect_mask(self, name: Name, source: Name) -> bytes:
        """Return the mask of a real training defect at the size of an image, as PNG; it counts as seen."""
        mask = self.training.mask(name)
        if mask is None or not mask.any():
            raise UserError(f"'{name}' has no mask: take another")
        self.review.saw("defects", [name])
        return _png(np.uint8(255) * fit_mask(mask, self.training.image(source).shape[:2]))

    def kept_mask(self, name: Name, source: Name) -> bytes:
        """Return a region of the review at the size of an image, as PNG."""
        if name not in self.review.kept_masks():
            raise UserError("no such region: it may have been dropped in another window")
        path = self.review.folder / "masks" / name
        mask = decode_grey(self.review.read_file(path), name) > 127
        return _png(np.uint8(255) * fit_mask(mask, self.training.image(source).shape[:2]))

    def procedural(self, source: Name, kind: Kind, area: Share, seed: Seed) -> bytes:
        """Draw a region by rules, as PNG."""
        shape = self.training.image(source).shape[:2]
        mask, _ = procedural_region(rng("studio-region", kind, seed), shape, (kind,), (area, area))
        return _png(np.uint8(255) * mask)

    def region(
        self, data: bytes, source: Name, origin: Literal["drawn", "procedural", "defect"], of: Name = ""
    ) -> dict[str, Any]:
        """Take a region that the page holds, a PNG: white is where. Return its id and share of the image.

        Raises:
            UserError: it is no PNG, too large, empty, or not of the size of the image.
        """
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            raise UserError("the region is not a PNG image: draw it on the page")
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))  # of its header: no pixel is read
        if width * height > MOST_PIXELS:
            raise UserError(f"the region has {width * height:,} pixels, the most are {MOST_PIXELS:,}")
        mask = decode_grey(data, "region") > 127
        shape = self.training.image(source).shape[:2]
        if mask.shape != shape:
            raise UserError(
                f"the region has {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x {shape[0]}"
            )
        if not mask.any():
            raise UserError("the region is empty: draw where the defect is to be")
        name = hashlib.sha256(data).hexdigest()[:16]
        self._regions[name] = mask, origin, of
        while len(self._regions) > HELD:
            self._regions.popitem(last=False)
        return {"region": name, "share": float(mask.mean())}

    def keep_region(self, region: Name) -> dict[str, Any]:
        """Keep a region in ``masks/``."""
        mask, origin, of = self._held(region)
        if origin == "defect":
            raise UserError("the mask of a real defect is not kept in masks/: a strict zero-shot has none")
        self.review.keep_mask(mask, origin, of)
        return self.progress()

    def drop_mask(self, name: Name) -> dict[str, Any]:
        """Take a region out of ``masks/``."""
        self.review.drop_mask(name)
        return self.progress()

    def _held(self, region: str) -> tuple[np.ndarray, str, str]:
        if region not in self._regions:
            raise UserError("the region is not here any more: draw it again")
        return self._regions[region]

    # -- What

    def keep_prompt(self, prompt: Text, kept: bool = True) -> dict[str, Any]:
        """Keep a prompt in ``prompts.yaml``, or drop it."""
        self.review.keep_prompt(prompt, kept)
        return self.progress()

    # -- Generate

    def estimate(
        self, count: Count = 1, steps: float | None = None, strength: float | None = None, guidance: float | None = None
    ) -> dict[str, Any]:
        """Return the seconds that images would take, by the last ones; null where none was made on this device."""
        given = _given(steps=steps, strength=strength, guidance=guidance)
        made = [item.made for item in self.review.items() if item.made.get("settings")]
        each = self._make().estimate(given, made)
        return {"seconds": None if each is None else each * count, "is_loaded": self._make().is_loaded}

    def generate(
        self,
        source: Name,
        prompt: Text,
        seed: Seed,
        count: Count = 1,
        negative_prompt: Text = "",
        region: Name = "",
        steps: float | None = None,
        strength: float | None = None,
        guidance: float | None = None,
        revises: Name = "",
    ) -> dict[str, Any]:
        """Begin to make images; return the number of the job.

        Args:
            source: the image to start from.
            prompt: what the defect is.
            seed: of the first image.
            count: how many.
            negative_prompt: what it is not.
            region: id of a region that `region` took; "" where the augmenter makes whole images.
            steps: denoising steps; None: the augmenter's own, as for the next two.
            strength: share of the noise schedule.
            guidance: scale of classifier-free guidance.
            revises: id of the image that these are to be better than.
        """
        generator, given = self._make(), _given(steps=steps, strength=strength, guidance=guidance)
        if not (prompt := prompt.strip()):
            raise UserError("the prompt is empty: write what the defect looks like")
        if source not in generator.sources():
            raise UserError(f"'{source}' is no image to start from: choose one under Surface")
        mask, where = None, {}
        if generator.needs_region:
            mask, origin, of = self._held(region)
            if mask.shape != self.training.image(source).shape[:2]:
                raise UserError("the region is of another size than the image: draw it again")
            if origin == "defect":
                where = {"region": "mask of a real defect", "mask_of": of}
            else:
                name = self.review.keep_mask(mask, origin, of)
                where = {"region": f"{origin}{of and f' {of}'}", "mask": name}
        self._saw([source])
        wish = Wish(source, prompt, negative_prompt.strip(), mask, seed, count, given)
        generator.steps(given)
        settings = {name: one["value"] for name, one in generator.settings().items()} | given
        about = {
            "augmenter": generator.augmenter.name,
            "source": source,
            "prompt": prompt,
            "negative_prompt": wish.negative_prompt,
            "settings": settings,
            "bundle": generator.augmenter.config.bundle,
            "device": generator.device,
            **where,
        }
        if revises:
            about["revises"] = self.review.item(revises).id

        def keep(sample: Synthetic, seed: int, seconds: float) -> str:
            own = {"seed": seed, "seconds": round(seconds, 3)}
            name = self.review.add(sample.image, sample.mask, sample.label, about | own)
            self.catches.follow()
            return name

        return {"job": self.worker.start("making images", count, lambda: generator.run(wish, keep))}

    def cancel(self) -> dict[str, Any]:
        """End what is going on at its next step."""
        self.worker.cancel()
        return self.progress()

    def _make(self) -> Generator:
        if self.generator is None:
            raise UserError("this review is of a pool: its images were made by a run")
        return self.generator

    # -- Certify

    def items(self, state: State | Literal[""] = "", prompt: Text = "", offset: Offset = 0) -> dict[str, Any]:
        """List images; those of a state and a prompt, if these are given."""
        found = [
            one
            for one in self.review.items(state, "" if self._hides_prompts(state) else prompt)
            if self._is_listed(one)
        ]
        return {"total": len(found), "items": [self.public(one) for one in found[offset : offset + PAGE]]}

    def next(self, after: Name = "", prompt: Text = "") -> dict[str, Any]:
        """Return the next image that waits for a decision, and how many wait."""
        prompt = "" if self._hides_prompts(QUEUE) else prompt
        item = self.review.next(after, prompt)
        return {"item": item and self.public(item), "left": len(self.review.items(QUEUE, prompt))}

    def item(self, name: Name) -> dict[str, Any]:
        """Return what the page may say about an image."""
        return self.public(self.review.item(name))

    def _hides_prompts(self, state: str) -> bool:
        return state != ACCEPTED and state != REJECTED and self.catches.are_hidden

    def _is_listed(self, item: Item) -> bool:
        """Whether a list may show it: decided trials would be told by what they lack."""
        return not item.catch or item.state == QUEUE

    def public(self, item: Item) -> dict[str, Any]:
        """Return what the page may say about an image: of one that may be a catch trial, nothing that gives it away."""
        made = item.made
        found = {"id": item.id, "state": item.state, "decision": item.decision, "reason": item.reason}
        found |= {"width": made["width"], "height": made["height"], "has_mask": "mask_sha256" in made}
        found["hidden"] = self._is_hidden(item)
        if not found["hidden"]:
            found |= {key: made[key] for key in SHOWN if key in made}
            found["has_source"] = self.training.holds(made.get("source"))
        return found

    def _is_hidden(self, item: Item) -> bool:
        return bool(item.catch) or (item.state == QUEUE and self.catches.are_hidden)

    def image(self, name: Name, kind: Literal["image", "mask", "source", "difference", "thumb"] = "image") -> bytes:
        """Return an image as PNG: itself, its mask, its source, how it differs from that, or a small copy."""
        item = self.review.item(name)
        if kind == "image":
            return self.review.content(name)[0]
        if kind == "thumb":
            return self._small(f"image {name} {item.made['sha256']}", lambda: self.review.image(name))
        if kind == "mask":
            if "mask_sha256" not in item.made:
                raise UserError(f"image {name} has no mask")
            return self.review.content(name, "masks")[0]
        if self._is_hidden(item):
            raise UserError("hidden until the decision: there are catch trials in the queue")
        source = self.training.image(str(item.made.get("source")))
        if kind == "source":
            return _png(source)
        image = self.review.image(name)
        if image.shape != source.shape:
            raise UserError(f"image {name} has not the size of its source")
        difference = np.abs(image.astype(int) - source).max(axis=2)
        return _png(np.uint8(255 - np.minimum(4 * difference, 255)))

    def decide(
        self,
        name: Name,
        decision: Decision,
        reason: Text = "",
        expected: Annotated[str, Field(max_length=10)] | None = None,
    ) -> dict[str, Any]:
        """Decide about an image; return the next one."""
        self.review.decide(name, decision, reason, expected)
        return self.next(name) | self.progress()

    def undo(self) -> dict[str, Any]:
        """Undo the last decision; return its image."""
        item = self.review.undo()
        return {"item": item and self.public(item)} | self.progress()

    # -- Summary

    def summary(self) -> dict[str, Any]:
        """Return what came of it, and write the grid that uses it."""
        counts = self.review.counts()
        self._write_grid(counts[ACCEPTED])
        return {
            "counts": counts,
            "prompts": [vars(one) | {"rate": one.rate} for one in self.review.prompts()],
            "regions": self.review.regions(),
            "reasons": self.review.reasons(),
            "catch": self.catches.rates(),
            "catch_share": self.catches.share,
            "chosen_by": self.review.chosen_by(),
            "defects": len(self.training.defects),
            "kid_needs": SHOTS_FOR_KID,
            "kid": self.review.last_kid(),
            "commands": self.commands(counts[ACCEPTED]),
        }

    def commands(self, accepted: int) -> list[dict[str, str]]:
        """Return the commands that use the review."""
        folder = self.review.folder
        if not accepted:
            return []
        grid, store = quote(str(folder / GRID)), quote(str(Path("runs") / folder.resolve().name))
        run = "Train on the certified images, and on as many at random of all that were reviewed"
        found = {run: f"augbench run {grid} --store {store}", "See the table again": f"augbench report {store}"}
        return [{"what": what, "command": command} for what, command in found.items()]

    def _write_grid(self, accepted: int) -> None:
        if not accepted:
            return
        folder, spec = str(self.review.folder), self.training.spec
        dataset = {"name": spec.name} | ({"as": spec.alias} if spec.alias != spec.name else {})
        dataset |= {"settings": self.training.dataset.config.model_dump(mode="json", exclude_defaults=True)}
        pool = self.review.facts.get("spec")
        if pool:
            own = {"name": pool["name"], "settings": pool["settings"]}
            earlier = pool.get("filters", {})
            certified = own | {"as": "certified", "filters": earlier | {"review": folder}}
            subset = own | {
                "as": "random_subset",
                "filters": earlier | {"review": {"root": folder, "random_subset": 0}},
            }
        else:
            accepted_folder = str(self.review.folder / ACCEPTED)
            certified = {"name": "reviewed", "as": "certified", "settings": {"root": accepted_folder}}
            subset = {
                "name": "reviewed",
                "as": "random_subset",
                "settings": {"root": accepted_folder, "random_subset": 0},
            }
        shots, draw = self.review.facts.get("shots", 0), self.review.facts.get("draw")
        share = {} if spec.test_share is None else {"test_share": spec.test_share}
        grid: dict[str, Any] = {
            "about": f"Images that a person certified: {accepted}.",
            "datasets": [dataset],
            "augmenters": [certified, subset],
            "shots": [{"ids": draw} if isinstance(draw, list) else shots],
            "draws": [draw if isinstance(draw, int) else 0],
            "n_aug": [accepted],
            "seeds": [self.review.facts.get("pool_seed", 0)],
            "adapter_seeds": [self.review.facts.get("adapter_seed", 0)],
            "protocols": [{"name": "probe", "holdout": spec.holdout} | share],
        }
        if spec.fold is not None:
            grid["folds"] = [spec.fold]
        text = yaml.safe_dump(json.loads(json.dumps(grid)), sort_keys=False, allow_unicode=True, width=120)
        write_atomic(self.review.folder / GRID, (GRID_NOTE + text).encode())

    def sheet(self) -> bytes:
        """Return a contact sheet of accepted and rejected images, the last ones, as PNG."""
        sections = []
        for state, most in zip((ACCEPTED, REJECTED), SHEET, strict=True):
            every = [item for item in self.review.items(state) if not item.catch]
            shown = every[-most:]
            tiles = [Tile(self.review.image(one.id), _caption(one), self.review.mask(one.id)) for one in shown]
            if tiles:
                sections.append(Section(state, f"{len(tiles)} of {len(every):,}", tiles))
        if not sections:
            raise UserError("nothing is decided yet")
        buffer = io.BytesIO()
        draw_sheet(f"{self.training.spec.alias}: {self.review.folder.name}", sections).save(buffer, "PNG")
        return buffer.getvalue()

    def measure_kid(self) -> dict[str, Any]:
        """Begin to compare accepted images with all real training defects; return the number of the job.

        Raises:
            UserError: there are too few of either.
        """
        accepted = [item.id for item in self.review.items(ACCEPTED) if not item.catch]
        real = self.training.defects
        if len(real) < SHOTS_FOR_KID:
            raise UserError(f"KID needs {SHOTS_FOR_KID} real training defects, and there are {len(real)}")
        if len(accepted) < 2:
            raise UserError("KID needs two accepted images")
        return {"job": self.worker.start("measuring KID", 1, lambda: self._kid(accepted, real))}

    def _kid(self, accepted: list[str], real: list[str]) -> None:
        from augbench.features.extractor import Extractor, aspect_of
        from augbench.metrics.fidelity import kid, kid_interval
        from augbench.planning.extractor_choice import AUTO, resolve
        from augbench.stages.context import best_device, repeatable

        device = best_device()
        extractor = Extractor(resolve(AUTO), device)
        sides = [self.training.image(name) for name in real], [self.review.image(name) for name in accepted]
        size = extractor.size(aspect_of(sides[0]))
        with repeatable(True, device):
            features = [extractor(side, size) for side in sides]
        low, high = kid_interval(*features, rng("studio-kid"))
        found = {"kid": kid(*features), "low": low, "high": high, "extractor": extractor.name}
        self.review.measured(found | {"accepted": len(accepted), "real": len(real)})
        self.worker.progress.done = 1

    # -- pools

    def import_pool(self, pool: Pool) -> None:
        """Begin to copy the images of a pool into the queue; those that are there already stay."""
        there = {(item.made.get("pool"), item.made.get("index")) for item in self.review.items()}
        left = [number for number, line in enumerate(pool.lines) if (pool.spec.key, line["index"]) not in there]

        self._saw([name for line in pool.lines if self.training.holds(name := line["meta"].get("source"))])

        def job() -> None:
            for number in left:
                line = pool.lines[number]
                image, mask = pool.load(number)
                about = {key: line["meta"][key] for key in ("source", "prompt") if key in line["meta"]}
                about |= {"pool": pool.spec.key, "index": line["index"], "seed": line["seed"]}
                about["pool_sha256"] = line["sha256"]
                self.review.add(image, mask, line["label"], about)
                self.catches.follow()
                self.worker.progress.done += 1
                self.worker.check()

        if left:
            self.worker.start("reading the pool", len(left), job)

    def _small(self, key: str, read: Callable[[], np.ndarray]) -> bytes:
        if (known := self._thumbs.get(key)) is not None:
            return known
        image = Image.fromarray(read())
        image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
        small = self._thumbs[key] = _png(np.asarray(image))
        while len(self._thumbs) > MOST_THUMBS:
            self._thumbs.popitem(last=False)
        return small


SHOWN = ("source", "prompt", "negative_prompt", "seed", "settings", "region", "mask", "mask_of", "seconds", "revises",
         "pool", "index")  # fmt: skip
"""What the page prints of the making of an image."""


def _given(**settings: float | None) -> Mapping[str, float]:
    return {name: value for name, value in settings.items() if value is not None}


def _caption(item: Item) -> str:
    return item.reason if item.decision != "accept" and item.reason else str(item.made.get("prompt", item.id))


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

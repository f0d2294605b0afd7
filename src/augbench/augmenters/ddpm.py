"""DDPM: Stable Diffusion 1.5 fine-tuned by DreamBooth with LoRA-C3Lier (In&Out, VISAPP 2024, section 3.2).

At zero-shot it is fine-tuned on good pictures and asked for cracks and scratches on them; otherwise on the real
defects, and asked for more of the same. Its pictures are whole pictures and come without masks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

import augbench
from augbench.augmenters._sd import Aspect, Precision, arithmetic, drawn_at, loaded, usable
from augbench.core.contracts import AdaptContext, Augmenter, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.core.hashing import digest
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion import lora
from augbench.diffusion.dreambooth import Examples, Recipe, Training, encode, joined
from augbench.diffusion.gpu_memory import enough_memory
from augbench.diffusion.pipelines import PipelineSource, embedded, fetch, find, of_content
from augbench.diffusion.sampling import check_prompts, fit_image, sample

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

GENERATION = "generation.json"  # beside the matrices: how strongly they are merged, and what is asked for
PUBLISHED = {"conv_rank": None}
"""What `as_published` sets. The published training script never reads the rank that its configuration gives to 3 x 3
convolutions, so none is trained. Beside this it lays the learning rate out for 50 epochs whatever the regime, whose
adapter is a checkpoint on the way; mirrors the instances; puts the class pictures into the folder of the instances,
where they share prompt, repeats and weight (no prior preservation); and generates without clip skip."""
PUBLISHED_EPOCHS = 50
SAMPLED_AT_ONCE = 10  # pictures of a chunk; fixed, as pictures depend a little on their batch


class Regime(Settings):
    """How long it learns from what, and what it is then asked for."""

    epochs: int = Field(ge=1)
    alpha: float = Field(ge=0, le=1)  # weight of the update when it is merged
    instances: int | None = Field(default=None, ge=1)  # that many at random; None: all there are
    prompts: tuple[str, ...] = ("skt background",)


class DDPM(Augmenter):
    """At zero-shot it is fine-tuned on negatives alone, so its pool does not depend on shots; else on the shots."""

    title = "DDPM (SD 1.5 + DreamBooth + LoRA-C3Lier)"
    paper = "In&Out, VISAPP 2024"
    learns = True
    uses_gpu = True

    class Config(Settings):
        """Defaults: the paper's text, and where it is silent the published configuration."""

        bundle: str = "sd15"
        zero: Regime = Regime(
            epochs=5, alpha=0.6, instances=50, prompts=("skt background cracked", "skt background scratched")
        )
        few: Regime = Regime(epochs=49, alpha=0.95)
        full: Regime = Regime(epochs=25, alpha=0.8)
        instance_prompt: str = "skt background"
        class_prompt: str = "background"
        class_pictures: int = Field(default=200, ge=0)  # made by the bundle, once for all adapters; 0: no prior
        prior_weight: float = Field(default=1.0, ge=0)
        repeats: int = Field(default=10, ge=1)
        batch: int = Field(default=12, ge=1)
        lr: float = Field(default=1e-5, gt=0)
        min_snr: float = Field(default=5.0, ge=0)
        cycles: int = Field(default=3, ge=1)
        clip_skip: int = Field(default=2, ge=1)
        rank: int = Field(default=32, ge=1)
        rank_alpha: float = Field(default=16.0, gt=0)
        conv_rank: int | None = Field(default=4, ge=1)  # of 3 x 3 convolutions; null: not wrapped
        conv_alpha: float = Field(default=1.0, gt=0)
        precision: Precision = "auto"  # auto: fp16 on a GPU, as published, else fp32; bf16 saves time on CPUs with it
        gradient_checkpointing: bool = False  # less memory, more time, the same result
        steps: int = Field(default=50, ge=1)  # of DDIM
        guidance: float = Field(default=7.5, ge=0)
        aspect: Aspect = "squeeze"  # squares squeezed to the picture's size, as the paper; or not
        as_published: bool = False  # where the published files part from the text, see `PUBLISHED`

        @model_validator(mode="before")
        @classmethod
        def _rest_of_a_regime(cls, given: Any) -> Any:
            """What a regime is not given it takes from its default."""
            if not isinstance(given, dict):
                return given
            known = {name: cls.model_fields[name].default.model_dump() for name in ("zero", "few", "full")}
            return given | {name: own | given[name] for name, own in known.items() if isinstance(given.get(name), dict)}

    config: Config

    def reads(self, shots: Shots) -> frozenset[str]:
        """Negatives at zero-shot (50 of them are the instances), shots otherwise."""
        return frozenset({"shots"} if shots else {"negatives"})

    def key_settings(self) -> dict:
        """A bundle that is a folder or a file counts by its content."""
        return of_content(super().key_settings(), "bundle")

    def embedded(self) -> bool:
        """Whether the bundle comes with the package."""
        return embedded(self.config.bundle)

    def ready(self) -> None:
        """The bundle is one that it can use, and on this machine."""
        fetch(usable(find(self.config.bundle), self.name))

    # -- learning

    def adapt(self, view: TrainView, out: Path, seed: int, room: AdaptContext) -> dict[str, Any]:
        """Fine-tune on the view's pictures; writes the matrices, and how they are to be used.

        Raises:
            UserError: no picture to learn from, no such bundle, a prompt that is too long, too little memory.
        """
        config, bundle = self._used(), usable(find(self.config.bundle), self.name)
        regime = self._regime(view)
        pipeline = loaded(bundle, config.precision, room.device)
        check_prompts(pipeline, bundle, [config.instance_prompt, config.class_prompt, *regime.prompts])
        pictures = [view.image(name) for name in self._instances(view, regime, seed)]
        if config.as_published:
            pictures += [picture[:, ::-1] for picture in pictures]
        shape = drawn_at(bundle, config.aspect, pictures)
        with enough_memory("batch", "gradient_checkpointing"):
            instances = encode(pipeline, shape, pictures)
            others = self._class_examples(pipeline, bundle, shape, room)
            if config.as_published and others:
                instances, others = joined(instances, others), None
            prompts = (config.instance_prompt, config.class_prompt)
            recipe = self._recipe(config, regime, room.device)
            training = Training(pipeline, bundle, recipe, prompts, instances, others, derive_seed("ddpm", seed))
            learned = training.run(room.scratch, room.say)
        lora.save(pipeline, out)
        told = {"alpha": regime.alpha, "prompts": list(regime.prompts), "shape": list(shape)}
        (out / GENERATION).write_text(json.dumps(told), encoding="utf-8")
        return learned

    def _used(self) -> DDPM.Config:
        """The settings that count."""
        return self.config.model_copy(update=PUBLISHED) if self.config.as_published else self.config

    def _regime(self, view: TrainView) -> Regime:
        if not view.reads("shots"):
            return self.config.zero
        return self.config.few if isinstance(view.regime, int) else self.config.full

    def _instances(self, view: TrainView, regime: Regime, seed: int) -> list[str]:
        """Which samples it learns from."""
        rows = view.shots if view.reads("shots") else view.negatives
        names = list(rows["id"])
        if not names:
            raise UserError("augmenter 'ddpm' has no picture to learn from: give shots, or leave out this dataset")
        if regime.instances is None or regime.instances >= len(names):
            return names
        chosen = rng("ddpm-instances", seed).choice(len(names), regime.instances, replace=False)
        return [names[i] for i in sorted(chosen)]

    def _recipe(self, config: DDPM.Config, regime: Regime, device: str) -> Recipe:
        same = ("repeats", "batch", "lr", "prior_weight", "min_snr", "clip_skip", "cycles", "gradient_checkpointing")
        return Recipe(
            epochs=regime.epochs,
            schedule_epochs=max(PUBLISHED_EPOCHS, regime.epochs) if config.as_published else None,
            precision=arithmetic(config.precision, device),
            shape=lora.LoraShape(config.rank, config.rank_alpha, config.conv_rank, config.conv_alpha),
            **{name: getattr(config, name) for name in same},
        )

    def _class_examples(
        self, pipeline: DiffusionPipeline, bundle: PipelineSource, shape: tuple[int, int], room: AdaptContext
    ) -> Examples | None:
        """Pictures that the untouched bundle makes from the class prompt: in the store, for all adapters alike."""
        config = self.config
        if not config.class_pictures:
            return None
        decided_by = {
            "bundle": of_content({"bundle": config.bundle}, "bundle"),
            **{name: getattr(config, name) for name in ("class_prompt", "class_pictures", "steps", "guidance")},
            "shape": list(shape),
            "precision": arithmetic(config.precision, pipeline.device.type),
            "augbench": augbench.__version__,  # an adapter learns from images of its own version
        }

        def make(folder: Path) -> None:
            count = config.class_pictures
            seeds = [derive_seed("class-picture", config.class_prompt, i) for i in range(count)]
            prompts = [config.class_prompt] * count
            amount = {"steps": config.steps, "guidance": config.guidance, "batch": SAMPLED_AT_ONCE}
            made = sample(pipeline, bundle, prompts, seeds=seeds, shape=shape, **amount)
            for number, picture in enumerate(made):
                Image.fromarray(picture).save(folder / f"{number:05d}.png")

        words = re.sub(r"[^a-z0-9]+", "-", config.class_prompt.lower()).strip("-")[:30]
        folder = room.shared(f"class-{words}-{digest(decided_by)[:12]}", make)
        return encode(pipeline, shape, [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])

    # -- generating

    def load(self, adapter: Path | None, device: str) -> None:
        """The bundle with the update merged at the regime's alpha."""
        from diffusers import DDIMScheduler

        told = json.loads((adapter / GENERATION).read_text(encoding="utf-8"))
        self._bundle = usable(find(self.config.bundle), self.name)
        self._pipeline = loaded(self._bundle, self.config.precision, device)
        self._pipeline.scheduler = DDIMScheduler.from_config(self._pipeline.scheduler.config)
        self._prompts, self._canvas = tuple(told["prompts"]), tuple(told["shape"])
        lora.merge(self._pipeline, adapter, told["alpha"])

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """A picture for each request, prompts in turn, at the size of a real picture."""
        config = self.config
        rows = view.shots if view.reads("shots") else view.negatives
        prompts = [self._prompts[request.index % len(self._prompts)] for request in requests]
        with enough_memory("precision"):
            made = sample(
                self._pipeline,
                self._bundle,
                prompts,
                seeds=[request.seed for request in requests],
                steps=config.steps,
                guidance=config.guidance,
                clip_skip=1 if config.as_published else config.clip_skip,
                shape=self._canvas,
                batch=SAMPLED_AT_ONCE,
            )
        found = []
        for request, prompt, picture in zip(requests, prompts, made, strict=True):
            like = view.image(str(request.rng.choice(rows["id"])))
            meta = {"prompt": prompt}
            found.append(Synthetic(fit_image(picture, like.shape[:2]), request.label, None, meta))
        return found

"""DDPM: Stable Diffusion 1.5 fine-tuned by DreamBooth with LoRA-C3Lier (In&Out, VISAPP 2024, sections 4 and 5.1).

At zero-shot it is fine-tuned on normal images and prompted for cracks and scratches on them. Otherwise it is fine-tuned
on the shots and prompted for more of the same. It generates whole images, without masks.

The paper's text is the default. ``as_published: files`` trains as its published files do: instances with both mirror
images, and class images, in one folder, each with its own caption, in aspect buckets. The text defines no epoch: by our
reading few-shot has 441 steps of training, by the published files 8,379 (``epochs_from: published``) or 8,820
(``as_published: files``); plans print the steps. An adapter that hardly moved the weights is named under the tables.
``optimiser: adamw8bit`` takes the paper's AdamW with 8-bit moments, after ``pip install 'augbench[bitsandbytes]'``.

Its ``bundle`` is ``sd15`` from the Hugging Face hub, the packaged ``micro-sd``, a diffusers folder, or one
``.safetensors`` checkpoint of Stable Diffusion 1.x as kohya's scripts and model sites write it: configurations and
tokenizer then come from a diffusers folder of its name beside it, else from the hub. Pickles are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import model_validator

import augbench
from augbench.augmenters._sd import (
    ASPECT,
    CHECKPOINTING,
    OPTIMISER,
    PRECISION,
    SAMPLE_BATCH,
    Aspect,
    PipelineAugmenter,
    Precision,
    arithmetic,
    generation_size,
)
from augbench.augmenters._settings import OURS, setting
from augbench.core.contracts import AdaptContext, Request, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError
from augbench.core.gpu import enough_memory
from augbench.core.hashing import digest
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion import lora
from augbench.diffusion.captioned import (
    FILES_PER_INSTANCE,
    Captioned,
    CaptionedTraining,
    instance_files,
    steps_per_epoch,
)
from augbench.diffusion.dreambooth import (
    EpochsFrom,
    EpochTraining,
    Optimiser,
    Recipe,
    Training,
    check_optimiser,
    encode,
    joined,
)
from augbench.diffusion.pipelines import PipelineSource, of_content
from augbench.diffusion.sampling import check_prompts, fit_image, sample

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# In&Out, section 5.2: "chosen after a series of tests and result in images containing plausible anomalies".
PAPERS_PROMPTS = "synthetic images, in a series of tests; the paper names no real ones"
GENERATION = "generation.json"  # beside the LoRA matrices: merge weight, prompts and image size
PUBLISHED_EPOCHS = 50
"""Length of the learning rate schedule with `as_published`, in every regime: adapters are intermediate checkpoints."""
FILES = "files"
"""Value of `as_published` that follows the published files.

The published training script never reads the rank that its configuration gives to 3 x 3 convolutions, so that none is
trained. Instances, with both mirror images of each and saved as JPEG, and class images lie in one folder, each with a
caption of its own, and count alike (no prior preservation). They are trained in aspect buckets. Generation is without
clip skip, and of squares."""
NOT_WITH_FILES = ("conv_rank", "conv_alpha", "prior_weight", "epochs_from")

# Sources of settings
REGIMES = "paper, sections 5.2 to 5.4"
CONFIGURATION = "published configuration"
IGNORED = f"{CONFIGURATION}; the published script ignores it"
README = "README of the published code"


class Regime(Settings):
    """Fine-tuning and generation in one shot regime."""

    epochs: int = setting(..., "epochs of fine-tuning", REGIMES, ge=1)
    alpha: float = setting(..., "weight of the LoRA update when it is merged into the pipeline", REGIMES, ge=0, le=1)
    instances: int | None = setting(None, "number of images to fine-tune on, drawn at random; none: all", REGIMES, ge=1)
    prompts: tuple[str, ...] = setting(
        ("skt background",), "prompts of the generated images, used in turn", f"paper, section 5.1, and {README}"
    )


class DDPM(PipelineAugmenter):
    """Generates whole images by Stable Diffusion fine-tuned on normal images (zero-shot) or on the shots.

    At zero-shot its pool does not depend on shots.
    """

    title = "DDPM (SD 1.5 + DreamBooth + LoRA-C3Lier)"
    paper = "In&Out, VISAPP 2024"
    learns = True
    loaded = ("_pipeline", "_pipeline_source", "_shape")

    class Config(Settings):
        """Defaults: the paper's text, and where it is silent the published configuration."""

        bundle: str = setting(
            "sd15",
            "the pipeline: a name (sd15, micro-sd), a diffusers folder or a .safetensors file",
            f"paper, section 5.1 (Stable Diffusion); version 1.5: {README}",
        )
        zero: Regime = setting(
            Regime(epochs=5, alpha=0.6, instances=50, prompts=("skt background cracked", "skt background scratched")),
            "fine-tuning and generation at zero-shot, on normal images",
            "paper, section 5.2",
        )
        few: Regime = setting(
            Regime(epochs=49, alpha=0.95),
            "fine-tuning and generation at few-shot, on the shots",
            f"paper, section 5.3; prompt: {README}",
        )
        full: Regime = setting(
            Regime(epochs=25, alpha=0.8),
            "fine-tuning and generation at full-shot, on all training defects",
            f"paper, section 5.4; prompt: {README}",
        )
        instance_prompt: str = setting("skt background", "prompt of the training images", "paper, section 5.1")
        class_prompt: str = setting("background", "prompt of the class images", "paper, section 5.1")
        class_pictures: int = setting(
            200,
            "number of class images for prior preservation; the untouched pipeline generates them once for all "
            "adapters; 0: no prior preservation",
            f"{README} (at least 200)",
            ge=0,
        )
        prior_weight: float = setting(1.0, "weight of the prior preservation loss", "paper, section 5.1", ge=0)
        repeats: int = setting(10, "times that an epoch repeats each training image", CONFIGURATION, ge=1)
        batch: int = setting(12, "training images per step", CONFIGURATION, ge=1)
        epochs_from: EpochsFrom = setting(
            "text",
            "class images of an epoch; text: as many as instances, each of those repeated; published: all of them, "
            "repeated as often (few-shot: 441 steps against 8,379)",
            f"{OURS}: the paper's text defines no epoch; published: the published files",
        )
        lr: float = setting(1e-5, "learning rate of AdamW", "paper, section 5.1", gt=0)
        optimiser: Optimiser = setting("auto", OPTIMISER, f"8 bits: paper, section 5.1; auto: {OURS}")
        min_snr: float = setting(5.0, "gamma of min-SNR loss weighting; 0: no weighting", CONFIGURATION, ge=0)
        cycles: int = setting(3, "cosine cycles of the learning rate, with restarts", CONFIGURATION, ge=1)
        clip_skip: int = setting(
            2, "text encoder layer that conditions the U-Net: 1 is the last, 2 the last but one", CONFIGURATION, ge=1
        )
        rank: int = setting(32, "LoRA rank of linear layers and 1 x 1 convolutions", CONFIGURATION, ge=1)
        rank_alpha: float = setting(
            16.0, "LoRA alpha of these layers; their update is scaled by alpha / rank", CONFIGURATION, gt=0
        )
        conv_rank: int | None = setting(4, "LoRA rank of 3 x 3 convolutions; none: they are not trained", IGNORED, ge=1)
        conv_alpha: float = setting(1.0, "LoRA alpha of 3 x 3 convolutions", IGNORED, gt=0)
        precision: Precision = setting("auto", PRECISION, f"fp16: {CONFIGURATION}; fp32 on a CPU: {OURS}")
        gradient_checkpointing: bool = setting(False, CHECKPOINTING, f"{OURS}; the {CONFIGURATION} turns it on")
        steps: int = setting(50, "DDIM steps per generated image", "defaults of the published scripts", ge=1)
        guidance: float = setting(7.5, "classifier-free guidance scale", "defaults of the published scripts", ge=0)
        aspect: Aspect = setting("squeeze", ASPECT, "squeeze: published scripts (512 x 512, resized afterwards)")
        as_published: bool | Literal["files"] = setting(
            False,
            "files: follow the published files where they differ from the paper's text: no LoRA on 3 x 3 convolutions, "
            "a schedule of 50 epochs, both mirror images of each instance, instances and class images in one folder "
            "with a caption each, aspect buckets, generation without clip skip. true: superseded by files, kept for "
            "what was made with it; it trains class images under the prompt of the instances",
            f"{OURS}: the paper's text is the default",
        )

        @model_validator(mode="before")
        @classmethod
        def _rest_of_a_regime(cls, given: Any) -> Any:
            """Fill the fields that a given regime leaves out from that regime's default."""
            if not isinstance(given, dict):
                return given
            known = {name: cls.model_fields[name].default.model_dump() for name in ("zero", "few", "full")}
            return given | {name: own | given[name] for name, own in known.items() if isinstance(given.get(name), dict)}

        @model_validator(mode="after")
        def _files_decide(self) -> Self:
            """Refuse settings that the published files leave no choice for."""
            for name in NOT_WITH_FILES if self.as_published == FILES else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"'{name}' is not read with as_published: {FILES}: leave it out")
            return self

    config: Config

    def prompts_from(self) -> str:
        """Return what the paper says of its zero-shot prompts; nobody recorded that of others."""
        default: Regime = type(self.config).model_fields["zero"].default
        return PAPERS_PROMPTS if self.config.zero.prompts == default.prompts else super().prompts_from()

    def reads(self, shots: Shots) -> frozenset[str]:
        """Read normal images at zero-shot, the shots otherwise."""
        return frozenset({"shots"} if shots else {"negatives"})

    def ready(self) -> None:
        """Check that pipeline and optimiser are available; download the pipeline if necessary."""
        check_optimiser(self.config.optimiser)
        super().ready()

    def notes(self, shots: Shots) -> str:
        """Name what the old meaning of `as_published` gets wrong."""
        wrong = (
            "as_published: true trains class images under the prompt of the instances, which the published files do not"
        )
        return f"{wrong} (as_published: {FILES})" if self.config.as_published is True else ""

    # -- fine-tuning

    def training_steps(self, shots: Shots, images: int, classes: int) -> int:
        """Return the steps of a regime's adapter; with ``as_published: files`` for instances of one aspect."""
        config, regime = self.config, self._regime_of(shots)
        instances, recipe = min(images, regime.instances or images), self._recipe(regime, "cuda")
        if config.as_published == FILES:
            return regime.epochs * steps_per_epoch((FILES_PER_INSTANCE * instances, config.class_pictures), recipe)
        if config.as_published:
            return regime.epochs * recipe.steps_per_epoch(2 * instances + config.class_pictures, 0)
        return regime.epochs * recipe.steps_per_epoch(instances, config.class_pictures)

    def adapt(self, view: TrainView, out: Path, seed: int, context: AdaptContext) -> dict[str, Any]:
        """Fine-tune on the view's images; write the LoRA matrices and the parameters of generation.

        Raises:
            UserError: no image to learn from, no such pipeline, a prompt that is too long, too little memory.
        """
        config, source = self.config, self.find_pipeline()
        regime = self._regime(view)
        pipeline = self.load_pipeline(source, context.device)
        check_prompts(pipeline, source, [config.instance_prompt, config.class_prompt, *regime.prompts])
        images = [view.image(name) for name in self._instances(view, regime, seed)]
        shape = generation_size(source, config.aspect, images)
        recipe = self._recipe(regime, context.device)
        with enough_memory("batch", "gradient_checkpointing"):
            class_images = self._class_images(pipeline, source, shape, context)
            data = (images, class_images, shape)
            training = self._training(pipeline, source.size, recipe, *data, derive_seed("ddpm", seed))
            learned = training.run(context.scratch, context.say)
        lora.save(pipeline, out)
        generation = {"alpha": regime.alpha, "prompts": list(regime.prompts), "shape": list(shape)}
        (out / GENERATION).write_text(json.dumps(generation), encoding="utf-8")
        return learned

    def _training(
        self,
        pipeline: DiffusionPipeline,
        size: int,
        recipe: Recipe,
        images: list[np.ndarray],
        class_images: list[np.ndarray],
        shape: tuple[int, int],
        seed: int,
    ) -> EpochTraining:
        """Return the training on instances and class images, as the text or the published files have it."""
        config = self.config
        prompts = (config.instance_prompt, config.class_prompt)
        if config.as_published == FILES:
            folder = [Captioned(prompts[0], file) for image in images for file in instance_files(image)]
            folder += [Captioned(prompts[1], image) for image in class_images]
            return CaptionedTraining(pipeline, recipe, folder, size, seed)
        mirrored = [image[:, ::-1] for image in images] if config.as_published else []
        instances = encode(pipeline, shape, [*images, *mirrored])
        class_examples = encode(pipeline, shape, class_images) if class_images else None
        if config.as_published and class_examples:
            instances, class_examples = joined(instances, class_examples), None
        return Training(pipeline, recipe, prompts, instances, class_examples, seed)

    def _regime(self, view: TrainView) -> Regime:
        if not view.reads("shots"):
            return self.config.zero
        return self._regime_of(view.regime if isinstance(view.regime, int) else "all")

    def _regime_of(self, shots: Shots) -> Regime:
        if shots == "all":
            return self.config.full
        return self.config.few if shots else self.config.zero

    def _instances(self, view: TrainView, regime: Regime, seed: int) -> list[str]:
        rows = view.shots if view.reads("shots") else view.negatives
        names = list(rows["id"])
        if not names:
            raise UserError("augmenter 'ddpm' has no image to learn from: give shots, or leave out this dataset")
        if regime.instances is None or regime.instances >= len(names):
            return names
        chosen = rng("ddpm-instances", seed).choice(len(names), regime.instances, replace=False)
        return [names[i] for i in sorted(chosen)]

    def _recipe(self, regime: Regime, device: str) -> Recipe:
        config = self.config
        same = ("epochs_from", "repeats", "batch", "lr", "optimiser", "prior_weight", "min_snr", "clip_skip", "cycles")
        conv_rank = None if config.as_published else config.conv_rank
        return Recipe(
            epochs=regime.epochs,
            schedule_epochs=max(PUBLISHED_EPOCHS, regime.epochs) if config.as_published else None,
            precision=arithmetic(config.precision, device),
            gradient_checkpointing=config.gradient_checkpointing,
            shape=lora.LoraShape(config.rank, config.rank_alpha, conv_rank, config.conv_alpha),
            **{name: getattr(config, name) for name in same},
        )

    def _class_images(
        self, pipeline: DiffusionPipeline, source: PipelineSource, shape: tuple[int, int], context: AdaptContext
    ) -> list[np.ndarray]:
        """Generate the class images with the untouched pipeline, once per store: each H,W,3 uint8."""
        config = self.config
        if not config.class_pictures:
            return []
        decided_by = {
            "bundle": of_content({"bundle": config.bundle}, "bundle"),
            **{name: getattr(config, name) for name in ("class_prompt", "class_pictures", "steps", "guidance")},
            "shape": list(shape),
            "precision": arithmetic(config.precision, pipeline.device.type),
            "augbench": augbench.__version__,  # an adapter learns from images of its own version
        }

        def make(folder: Path) -> None:
            seeds = [derive_seed("class-picture", config.class_prompt, i) for i in range(config.class_pictures)]
            prompts = [config.class_prompt] * config.class_pictures
            options = {"steps": config.steps, "guidance": config.guidance, "batch": SAMPLE_BATCH}
            generated = sample(pipeline, source, prompts, seeds=seeds, shape=shape, **options)
            for number, image in enumerate(generated):
                Image.fromarray(image).save(folder / f"{number:05d}.png")

        slug = re.sub(r"[^a-z0-9]+", "-", config.class_prompt.lower()).strip("-")[:30]
        folder = context.shared(f"class-{slug}-{digest(decided_by)[:12]}", make)
        return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]

    # -- generation

    def load(self, adapter: Path | None, device: str) -> None:
        """Load the pipeline and merge the LoRA update with the regime's alpha."""
        from diffusers import DDIMScheduler

        generation = json.loads((adapter / GENERATION).read_text(encoding="utf-8"))
        self._pipeline_source = self.find_pipeline()
        self._pipeline = self.load_pipeline(self._pipeline_source, device)
        self._pipeline.scheduler = DDIMScheduler.from_config(self._pipeline.scheduler.config)
        self._prompts, self._shape = tuple(generation["prompts"]), tuple(generation["shape"])
        lora.merge(self._pipeline, adapter, generation["alpha"])

    def trying(self, prompt: str, negative_prompt: str = "", **settings: Any) -> Self:
        """Return this augmenter with another prompt and other settings, as `PipelineAugmenter.trying`."""
        other = super().trying(prompt, negative_prompt, **settings)
        other._prompts = (prompt,)
        return other

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Generate one image per request, prompts in turn, resized to the size of a random real image."""
        config = self.config
        rows = view.shots if view.reads("shots") else view.negatives
        prompts = [self._prompts[request.index % len(self._prompts)] for request in requests]
        with enough_memory("precision"):
            generated = sample(
                self._pipeline,
                self._pipeline_source,
                prompts,
                seeds=[request.seed for request in requests],
                steps=config.steps,
                guidance=config.guidance,
                clip_skip=1 if config.as_published else config.clip_skip,
                shape=self._shape,
                batch=SAMPLE_BATCH,
            )
        synthetic = []
        for request, prompt, image in zip(requests, prompts, generated, strict=True):
            real = view.image(str(request.rng.choice(rows["id"])))
            synthetic.append(Synthetic(fit_image(image, real.shape[:2]), request.label, None, {"prompt": prompt}))
        return synthetic

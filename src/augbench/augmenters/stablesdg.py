"""StableSDG: Stable Diffusion adapted to each defect class in two stages; generation starts from real defect images.

arXiv 2405.01872 (IEEE T-ASE 22, 2025). For each class: (1) textual inversion, which optimises only the embedding of a
new token; (2) starting from that embedding, LoRA on the attention layers of text encoder and U-Net; (3)
"image-oriented generation": noise is added to a real defect image up to an intermediate step, and denoising starts
there instead of from pure noise; (4) a search over hyperparameters, see `QualitySearch`, off by default.

The text available to us states the stages, what they train, and the prompt. All else is our choice. ``stages`` and
``start`` are its ablations.

``quality_search: {strengths: [0.3, 0.5, 0.7], lora_steps: [500, 1000]}`` tries every combination before the adapter is
learned. It learns and generates on one half of the shots and is evaluated on the other half; copies are refused. Its
table stands in the adapter's record, its choice under the tables. With too few shots for two halves the settings stay,
and the tables say so.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

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
from augbench.core.contracts import AdaptContext, Candidate, Request, Scoring, Settings, Shots, Synthetic, TrainView
from augbench.core.errors import UserError, listed
from augbench.core.gpu import enough_memory
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion import lora
from augbench.diffusion.dreambooth import Optimiser, check_optimiser, encode
from augbench.diffusion.img2img import img2img
from augbench.diffusion.sampling import check_prompts, fit_image
from augbench.diffusion.textual_inversion import LearnedToken, StageRecipe, run_stages
from augbench.planning.extractor_choice import EMBEDDED

GENERATION = "generation.json"  # in the adapter: its classes, their folders, and the parameters of generation
DEFECT = "defect"  # in detection all shots are one class
PIPELINE = "defaults of Stable Diffusion"


class QualitySearch(Settings):
    """Step 4 of the paper: a grid search over hyperparameters of adaptation and generation.

    The available text states neither the hyperparameters nor the number of scored images: both are our choice.
    """

    strengths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = setting(
        (0.3, 0.5, 0.7), "values of strength to try", OURS, min_length=1
    )
    lora_steps: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (), "values of lora_steps to try; empty: the augmenter's setting", OURS
    )
    token_steps: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (), "values of token_steps to try; empty: the augmenter's setting", OURS
    )
    guidances: tuple[Annotated[float, Field(ge=0)], ...] = setting(
        (), "values of guidance to try; empty: the augmenter's setting", OURS
    )
    metric: Literal["kid", "fid"] = setting(
        "kid", "score of a candidate, lower is better; fid needs more images than features", f"{OURS}; the paper: FID"
    )
    extractor: str = setting(EMBEDDED, "feature extractor of the metric: a timm backbone", OURS)
    pictures: int = setting(30, "images generated per class and candidate", OURS, ge=2)
    folds: int = setting(
        2, "1: adapt on one half of the shots and score on the other; 2: also the other way round", OURS, ge=1, le=2
    )
    least_distance: float = setting(
        0.25,
        "least median distance to the nearest shot of adaptation, relative to that of real images; nearer candidates "
        "count as copies and are refused",
        OURS,
        ge=0,
    )


class StableSDG(PipelineAugmenter):
    """Adapts Stable Diffusion to each defect class and generates from real defect images by img2img.

    It reads the shots only. In recognition an adapter holds a learned token and LoRA matrices for each class.
    """

    title = "StableSDG (SD 1.5 + textual inversion + LoRA, from real defects)"
    paper = "StableSDG, arXiv 2405.01872"
    tasks = frozenset({"detection", "recognition"})
    learns = True
    loaded = ("_pipeline", "_pipeline_source", "_adapter", "_token", "_switcher", "_active")

    class Config(Settings):
        """Defaults: the paper's prompt and stages; the available text states no numbers, so those are our choice."""

        bundle: str = setting(
            "sd15",
            "the pipeline: a name (sd15, micro-sd), a diffusers folder or a .safetensors file",
            f"paper (Stable Diffusion); version 1.5: {OURS}",
        )
        stages: Literal["both", "token", "lora", "none"] = setting(
            "both", "stages of adaptation: both, one alone, or none (the untouched pipeline)", "paper, Figure 3"
        )
        start: Literal["real", "noise"] = setting(
            "real", "generation starts from real defect images or from pure noise", "paper, abstract"
        )
        prompt: str = setting(
            "A photo of <unknown>", "prompt of training and generation; holds the learned token", "paper, Figure 3"
        )
        token: str = setting("<unknown>", "the learned token", "paper, Figure 3", pattern=r"^<[a-z0-9_-]+>$")
        init_word: str = setting(
            "defect",
            "word whose embedding initialises that of the token, and stays in its place without stage one",
            OURS,
            min_length=1,
        )
        train_token_in_stage_two: bool = setting(
            False, "train the token's embedding in stage two as well; otherwise it is frozen there", OURS
        )
        token_steps: int = setting(
            1000, "training steps of stage one", f"{OURS}: a third of diffusers' textual inversion example", ge=1
        )
        token_lr: float = setting(
            5e-4, "learning rate of stage one", f"{OURS}: diffusers' textual inversion example", gt=0
        )
        lora_steps: int = setting(1000, "training steps of stage two", OURS, ge=1)
        lora_lr: float = setting(1e-4, "learning rate of stage two", f"{OURS}: diffusers' LoRA example", gt=0)
        rank: int = setting(8, "LoRA rank", f"{OURS}: between diffusers' LoRA example (4) and In&Out (32)", ge=1)
        rank_alpha: float = setting(8.0, "LoRA alpha; the update is scaled by alpha / rank", OURS, gt=0)
        batch: int = setting(4, "training images per step", OURS, ge=1)
        optimiser: Optimiser = setting("auto", OPTIMISER, OURS)
        min_snr: float = setting(0.0, "gamma of min-SNR loss weighting; 0: no weighting", OURS, ge=0)
        clip_skip: int = setting(
            1,
            "text encoder layer that conditions the U-Net: 1 is the last, 2 the last but one",
            f"{OURS}: as Stable Diffusion was trained",
            ge=1,
        )
        precision: Precision = setting("auto", PRECISION, OURS)
        gradient_checkpointing: bool = setting(False, CHECKPOINTING, OURS)
        alpha: float = setting(1.0, "weight of the LoRA update when it is merged into the pipeline", OURS, ge=0, le=1)
        strength: float = setting(
            0.5, "share of the noise schedule applied to a real image: 0 none, 1 pure noise", OURS, ge=0, le=1
        )
        steps: int = setting(
            50, "DDIM steps from pure noise; img2img takes strength * steps", f"{OURS}: {PIPELINE}", ge=1
        )
        guidance: float = setting(7.5, "classifier-free guidance scale", f"{OURS}: {PIPELINE}", ge=0)
        aspect: Aspect = setting("squeeze", ASPECT, OURS)
        quality_search: QualitySearch | None = setting(
            None,
            "search for the best hyperparameters before adaptation; none: use the settings above",
            f"{OURS}; the paper searches (Figure 2)",
        )

        @model_validator(mode="after")
        def _prompt_has_the_token(self) -> Self:
            if self.stages in ("both", "token") and self.token not in self.prompt.split():
                raise ValueError(f"'{self.prompt}' does not contain the learned token '{self.token}': add it")
            return self

    config: Config

    def reads(self, shots: Shots) -> frozenset[str]:
        """Read the shots: adaptation and generation both use them."""
        return frozenset({"shots"})

    def refuses(self, shots: Shots) -> str:
        """Refuse zero-shot: there is no real defect image to start from."""
        return "" if shots else "it learns and starts from real defect images"

    def ready(self) -> None:
        """Check that pipeline and optimiser are available; download the pipeline if necessary."""
        check_optimiser(self.config.optimiser)
        super().ready()

    # -- search

    def candidates(self) -> tuple[Candidate, ...]:
        """Return every combination of the values to try."""
        search = self.config.quality_search
        if search is None:
            return ()
        adapting = _combinations(lora_steps=search.lora_steps, token_steps=search.token_steps)
        generating = _combinations(strength=search.strengths, guidance=search.guidances)
        return tuple(Candidate(first, second) for first in adapting for second in generating)

    def scoring(self) -> Scoring:
        """Return how the search scores candidates."""
        search = self.config.quality_search
        return Scoring(search.extractor, search.pictures, search.least_distance, search.metric, search.folds)

    def chosen(self, settings: Mapping[str, Any]) -> StableSDG:
        """Return this augmenter with the chosen settings and without a search."""
        return type(self)(self.config.model_copy(update={**settings, "quality_search": None}))

    # -- adaptation

    def training_steps(self, shots: Shots, images: int, classes: int) -> int:
        """Return the steps of all stages of all classes."""
        return classes * sum(recipe.steps for recipe in self._recipes("cuda"))

    def adapt(self, view: TrainView, out: Path, seed: int, context: AdaptContext) -> dict[str, Any]:
        """Adapt the untouched pipeline to each class; write tokens, LoRA matrices and the parameters of generation.

        Raises:
            UserError: no image to learn from, no such pipeline, a prompt that is too long, too little memory.
        """
        labels = sorted(set(_labels(view)))
        if not labels:
            raise UserError(f"augmenter '{self.name}' has no image to learn from: give shots")
        steps_per_class = sum(recipe.steps for recipe in self._recipes(context.device))
        total = len(labels) * steps_per_class
        classes, learned = {}, {}
        for number, label in enumerate(labels):
            folder = f"{number:02d}-{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')[:30]}"

            def report_progress(step: int, _: int, loss: float, before: int = number * steps_per_class) -> None:
                context.say(before + step, total, loss)

            own = replace(context, scratch=context.scratch / folder, say=report_progress)
            shape, learned[label] = self._adapt_class(view, label, out / folder, derive_seed("stablesdg", seed), own)
            classes[label] = {"folder": folder, "shape": list(shape)}
        generation = {"stages": self.config.stages, "alpha": self.config.alpha, "classes": classes}
        generation |= {name: getattr(self.config, name) for name in ("prompt", "token", "init_word")}
        (out / GENERATION).write_text(json.dumps(generation), encoding="utf-8")
        last = [record["stages"][-1]["update_norm"] for record in learned.values() if record["stages"]]
        return {"classes": learned, **({"update_norm": min(last)} if last else {})}

    def _recipes(self, device: str) -> list[StageRecipe]:
        config = self.config
        names = ("batch", "optimiser", "min_snr", "clip_skip", "gradient_checkpointing")
        same = {name: getattr(config, name) for name in names}
        same["precision"] = arithmetic(config.precision, device)
        shape = lora.AttentionShape(config.rank, config.rank_alpha)
        first = StageRecipe(config.token_steps, True, lr=config.token_lr, **same)
        second = StageRecipe(config.lora_steps, config.train_token_in_stage_two, shape, lr=config.lora_lr, **same)
        return {"both": [first, second], "token": [first], "lora": [second], "none": []}[config.stages]

    def _adapt_class(
        self, view: TrainView, label: str, out: Path, seed: int, context: AdaptContext
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """Adapt to one class; return height and width of generation, and the entries of the adapter's record."""
        config, source = self.config, self.find_pipeline()
        images = [view.image(name) for name in _sources(view, label)]
        shape = generation_size(source, config.aspect, images)
        pipeline = self.load_pipeline(source, context.device)
        token = LearnedToken(pipeline, config.token, config.init_word)
        check_prompts(pipeline, source, [config.prompt])
        recipes = self._recipes(context.device)
        if not recipes:
            return shape, {"instances": len(images), "stages": []}
        with enough_memory("batch", "gradient_checkpointing"):
            examples = encode(pipeline, shape, images)
            own = derive_seed("stablesdg-class", seed, label)
            stages = run_stages(pipeline, token, recipes, config.prompt, examples, own, context.scratch, context.say)
        token.save(out)
        if config.stages != "token":
            lora.save(pipeline, out)
        return shape, {"instances": len(images), "stages": stages}

    # -- generation

    def load(self, adapter: Path | None, device: str) -> None:
        """Load the pipeline with the learned token; `generate` switches it to the requested class."""
        from diffusers import DDIMScheduler

        self._adapter = adapter
        self._generation = json.loads((adapter / GENERATION).read_text(encoding="utf-8"))
        self._pipeline_source = self.find_pipeline()
        self._pipeline = self.load_pipeline(self._pipeline_source, device)
        self._pipeline.scheduler = DDIMScheduler.from_config(self._pipeline.scheduler.config)
        self._token = LearnedToken(self._pipeline, self._generation["token"], self._generation["init_word"])
        self._switcher = lora.LoraSwitcher(self._pipeline)
        self._active: str | None = None  # the class whose token and LoRA the pipeline holds

    def trying(self, prompt: str, negative_prompt: str = "", **settings: Any) -> Self:
        """Return this augmenter with another prompt and other settings, as `PipelineAugmenter.trying`."""
        other = super().trying(prompt, negative_prompt, **settings)
        other._generation = self._generation | {"prompt": prompt}
        return other

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Generate one image per request, at the size of the shot it starts from.

        Generation proceeds class by class, in the order of their names, in batches of `SAMPLE_BATCH` images of one
        class, requests in their own order. So the same requests give the same bytes; among other requests an image is
        equal up to the rounding of its batch.

        Raises:
            UserError: a class had no shots to learn from, or memory is too small.
        """
        labels = [DEFECT if view.task == "detection" else request.label for request in requests]
        synthetic: dict[int, Synthetic] = {}
        for label in sorted(set(labels)):
            positions = [position for position, own in enumerate(labels) if own == label]
            generated = self._generate_class(label, [requests[position] for position in positions], view)
            synthetic |= dict(zip(positions, generated, strict=True))
        return [synthetic[position] for position in range(len(requests))]

    def _generate_class(self, label: str, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        self._activate(label)
        config, prompt = self.config, self._generation["prompt"]
        sources = [self._source(label, request, view) for request in requests]
        real = [view.image(source) for source in sources]
        options: dict[str, Any] = {"steps": config.steps, "guidance": config.guidance, "clip_skip": config.clip_skip}
        options |= {"shape": tuple(self._generation["classes"][label]["shape"]), "batch": SAMPLE_BATCH}
        options["seeds"] = [request.seed for request in requests]
        with enough_memory("precision"):
            strength = 1.0 if config.start == "noise" else config.strength
            prompts = [prompt] * len(requests)
            generated = img2img(self._pipeline, self._pipeline_source, prompts, real, strength=strength, **options)
        synthetic = []
        for request, source, begin, image in zip(requests, sources, real, generated, strict=True):
            meta = {"prompt": prompt} | ({"source": source, "strength": strength} if strength < 1 else {})
            synthetic.append(Synthetic(fit_image(image, begin.shape[:2]), request.label, None, meta))
        return synthetic

    def _activate(self, label: str) -> None:
        """Switch the pipeline to a class: load its token, merge its LoRA matrices into the untouched weights."""
        if label == self._active:
            return
        generation = self._generation
        if label not in generation["classes"]:
            had = f"those with shots are {listed(generation['classes'])}"
            raise UserError(f"augmenter '{self.name}' learned nothing of class '{label}', {had}: give it shots")
        self._active = None
        folder = self._adapter / generation["classes"][label]["folder"]
        self._switcher.merge(folder if generation["stages"] in ("both", "lora") else None, generation["alpha"])
        if generation["stages"] != "none":
            self._token.load(folder)
        self._active = label

    def _source(self, label: str, request: Request, view: TrainView) -> str:
        """Return the shot that a request starts from: all shots in turn, in a new order each round."""
        names = _sources(view, label)
        if not names:
            raise UserError(f"augmenter '{self.name}' has no shot of class '{label}' to start from: give it shots")
        number = request.index // len(self._generation["classes"])  # consecutive requests alternate between classes
        turn, position = divmod(number, len(names))
        return names[rng("stablesdg-sources", label, turn).permutation(len(names))[position]]


def _combinations(**axes: Sequence[float]) -> list[dict[str, float]]:
    """Return every combination of the non-empty axes; a single empty one if all are empty."""
    named = {name: values for name, values in axes.items() if values}
    return [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]


def _labels(view: TrainView) -> pd.Series:
    """Return the class of each shot, in the order of the view."""
    labels = view.shots["label"]
    return labels if view.task == "recognition" else labels.map(lambda _: DEFECT)


def _sources(view: TrainView, label: str) -> list[str]:
    """Return the ids of the shots of a class, in the order of the view."""
    return list(view.shots["id"][(_labels(view) == label).to_numpy(bool)])

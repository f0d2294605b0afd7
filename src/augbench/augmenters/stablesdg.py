"""StableSDG: Stable Diffusion adapted to each defect class in two stages, from whose real pictures it starts.

arXiv 2405.01872 (IEEE T-ASE 22, 2025). For each class: (1) textual inversion, which optimises the embedding of a new
word alone; (2) starting from that embedding, LoRA on the attention layers of text encoder and U-Net; (3)
"image-oriented generation": a real defect picture is perturbed up to an intermediate step and denoised from there,
rather than from pure noise. The paper's fourth step, a search for the hyperparameters of best FID, is no part of this.

Stated are the stages, what they train, and the prompt. Everything else is our choice, see `StableSDG.Config`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from augbench.augmenters._sd import Aspect, Precision, arithmetic, drawn_at, loaded, usable
from augbench.core.contracts import (
    AdaptContext,
    Augmenter,
    Candidate,
    Request,
    Scoring,
    Settings,
    Shots,
    Synthetic,
    TrainView,
)
from augbench.core.errors import UserError, listed
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion import lora
from augbench.diffusion.dreambooth import encode
from augbench.diffusion.gpu_memory import enough_memory
from augbench.diffusion.img2img import img2img
from augbench.diffusion.pipelines import embedded, fetch, find, of_content
from augbench.diffusion.sampling import check_prompts, fit_image
from augbench.diffusion.textual_inversion import LearnedToken, StageRecipe, run_stages
from augbench.planning.extractor_choice import EMBEDDED

GENERATION = "generation.json"  # in the adapter: its classes, where what they learned lies, and how it is used
DEFECT = "defect"  # in detection all shots are one class
SAMPLED_AT_ONCE = 10  # pictures of a chunk; fixed, as pictures depend a little on their batch


class QualitySearch(Settings):
    """Step 4 of the paper: adaptation and generation are repeated over hyperparameters, and the best are kept.

    Which ones, and how many pictures are scored, is NOT STATED; the numbers are our choice. Every combination is tried.
    """

    strengths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.3, 0.5, 0.7), min_length=1)
    lora_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()  # (): the setting of the augmenter alone
    token_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()
    guidances: tuple[Annotated[float, Field(ge=0)], ...] = ()
    metric: Literal["kid", "fid"] = "kid"  # the paper takes FID, which needs more pictures than features
    extractor: str = EMBEDDED  # a timm backbone
    pictures: int = Field(default=30, ge=2)  # of each class and candidate
    folds: int = Field(default=2, ge=1, le=2)  # 2: each half of the shots is learned from once
    least_distance: float = Field(default=0.25, ge=0)  # nearer to what it learned from, a candidate copies: refused


class StableSDG(Augmenter):
    """It sees the shots alone. In recognition each class has a word and matrices of its own, in one adapter."""

    title = "StableSDG (SD 1.5 + textual inversion + LoRA, from real defects)"
    paper = "StableSDG, arXiv 2405.01872"
    tasks = frozenset({"detection", "recognition"})
    learns = True
    uses_gpu = True

    class Config(Settings):
        """The prompt is the paper's, which states neither bundle nor numbers. Those are our choice:

        word: learning rate of diffusers' example of textual inversion, a third of its steps as stage two follows;
        matrices: learning rate of diffusers' example of LoRA, a rank between its 4 and In&Out's 32;
        generation: half of the way back to noise; guidance and steps are the defaults of Stable Diffusion.
        """

        bundle: str = "sd15"
        stages: Literal["both", "token", "lora", "none"] = "both"  # none: the untouched bundle, as a control
        start: Literal["real", "noise"] = "real"  # what pictures begin as
        prompt: str = "A photo of <unknown>"
        token: str = Field(default="<unknown>", pattern=r"^<[a-z0-9_-]+>$")  # the new word
        init_word: str = Field(default="defect", min_length=1)  # that it begins as; all it is without a stage
        train_token_in_stage_two: bool = False  # NOT STATED; False: the matrices learn around a word that stays
        token_steps: int = Field(default=1000, ge=1)
        token_lr: float = Field(default=5e-4, gt=0)
        lora_steps: int = Field(default=1000, ge=1)
        lora_lr: float = Field(default=1e-4, gt=0)
        rank: int = Field(default=8, ge=1)
        rank_alpha: float = Field(default=8.0, gt=0)
        batch: int = Field(default=4, ge=1)
        min_snr: float = Field(default=0.0, ge=0)  # gamma of min-SNR weighting; 0: none
        clip_skip: int = Field(default=1, ge=1)  # 1: the last layer, as Stable Diffusion was trained
        precision: Precision = "auto"  # auto: fp16 on a GPU, else fp32; bf16 saves time on CPUs with it
        gradient_checkpointing: bool = False  # less memory, more time, the same result
        alpha: float = Field(default=1.0, ge=0, le=1)  # weight of the update when it is merged
        strength: float = Field(default=0.5, ge=0, le=1)  # how far a real picture is perturbed towards noise
        steps: int = Field(default=50, ge=1)  # of DDIM, for the whole way
        guidance: float = Field(default=7.5, ge=0)
        aspect: Aspect = "squeeze"  # squares squeezed to the picture's size; or drawn at its aspect
        quality_search: QualitySearch | None = None  # step 4 of the paper; None: the settings above as they are

        @model_validator(mode="after")
        def _prompt_has_the_word(self) -> Self:
            if self.stages in ("both", "token") and self.token not in self.prompt.split():
                raise ValueError(f"'{self.prompt}' does not hold the word '{self.token}' that is learned: add it")
            return self

    config: Config

    def reads(self, shots: Shots) -> frozenset[str]:
        """The shots: they are learned from, and what pictures start from."""
        return frozenset({"shots"})

    def refuses(self, shots: Shots) -> str:
        """There is nothing to start from without shots."""
        return "" if shots else "it learns and starts from real defect pictures"

    def key_settings(self) -> dict:
        """A bundle that is a folder counts by its content."""
        return of_content(super().key_settings(), "bundle")

    def embedded(self) -> bool:
        """Whether the bundle comes with the package."""
        return embedded(self.config.bundle)

    def ready(self) -> None:
        """The bundle is one that it can use, and on this machine."""
        fetch(usable(find(self.config.bundle), self.name))

    # -- searching

    def candidates(self) -> tuple[Candidate, ...]:
        """Every combination that the search names."""
        search = self.config.quality_search
        if search is None:
            return ()
        adapting = _combinations(lora_steps=search.lora_steps, token_steps=search.token_steps)
        generating = _combinations(strength=search.strengths, guidance=search.guidances)
        return tuple(Candidate(first, second) for first in adapting for second in generating)

    def scoring(self) -> Scoring:
        """As the search says."""
        search = self.config.quality_search
        return Scoring(search.extractor, search.pictures, search.least_distance, search.metric, search.folds)

    def chosen(self, settings: Mapping[str, Any]) -> StableSDG:
        """With what the search chose, and no search."""
        return type(self)(self.config.model_copy(update={**settings, "quality_search": None}))

    # -- learning

    def adapt(self, view: TrainView, out: Path, seed: int, room: AdaptContext) -> dict[str, Any]:
        """Learn each class by itself, from an untouched bundle; writes words and matrices, and how they are used.

        Raises:
            UserError: no picture to learn from, no such bundle, a prompt that is too long, too little memory.
        """
        labels = sorted(set(_labels(view)))
        if not labels:
            raise UserError(f"augmenter '{self.name}' has no picture to learn from: give shots")
        recipes = self._recipes(room.device)
        of_class = sum(recipe.steps for recipe in recipes)
        classes, learned = {}, {}
        for number, label in enumerate(labels):
            place = f"{number:02d}-{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')[:30]}"
            total, before = len(labels) * of_class, number * of_class

            def say(step: int, _: int, loss: float, before: int = before, total: int = total) -> None:
                room.say(before + step, total, loss)

            own = AdaptContext(room.scratch / place, room.shared, room.device, say)
            shape, learned[label] = self._adapt_class(view, label, out / place, derive_seed("stablesdg", seed), own)
            classes[label] = {"folder": place, "shape": list(shape)}
        told = {"stages": self.config.stages, "alpha": self.config.alpha, "classes": classes}
        told |= {name: getattr(self.config, name) for name in ("prompt", "token", "init_word")}
        (out / GENERATION).write_text(json.dumps(told), encoding="utf-8")
        return {"classes": learned}

    def _recipes(self, device: str) -> list[StageRecipe]:
        """The stages in order."""
        config = self.config
        same = {name: getattr(config, name) for name in ("batch", "min_snr", "clip_skip", "gradient_checkpointing")}
        same["precision"] = arithmetic(config.precision, device)
        shape = lora.AttentionShape(config.rank, config.rank_alpha)
        first = StageRecipe(config.token_steps, True, lr=config.token_lr, **same)
        second = StageRecipe(config.lora_steps, config.train_token_in_stage_two, shape, lr=config.lora_lr, **same)
        return {"both": [first, second], "token": [first], "lora": [second], "none": []}[config.stages]

    def _adapt_class(
        self, view: TrainView, label: str, out: Path, seed: int, room: AdaptContext
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """Learn one class; returns the size it is drawn at, and what the record says of it."""
        config, bundle = self.config, usable(find(self.config.bundle), self.name)
        pictures = [view.image(name) for name in _sources(view, label)]
        shape = drawn_at(bundle, config.aspect, pictures)
        pipeline = loaded(bundle, config.precision, room.device)
        word = LearnedToken(pipeline, config.token, config.init_word)
        check_prompts(pipeline, bundle, [config.prompt])
        recipes = self._recipes(room.device)
        if not recipes:
            return shape, {"instances": len(pictures), "stages": []}
        with enough_memory("batch", "gradient_checkpointing"):
            examples = encode(pipeline, shape, pictures)
            own = derive_seed("stablesdg-class", seed, label)
            stages = run_stages(pipeline, word, recipes, config.prompt, examples, own, room.scratch, room.say)
        word.save(out)
        if config.stages != "token":
            lora.save(pipeline, out)
        return shape, {"instances": len(pictures), "stages": stages}

    # -- generating

    def load(self, adapter: Path | None, device: str) -> None:
        """The bundle with the new word; what a class learned is put in when it is asked for."""
        from diffusers import DDIMScheduler

        self._adapter = adapter
        self._told = json.loads((adapter / GENERATION).read_text(encoding="utf-8"))
        self._bundle = find(self.config.bundle)
        self._pipeline = loaded(usable(self._bundle, self.name), self.config.precision, device)
        self._pipeline.scheduler = DDIMScheduler.from_config(self._pipeline.scheduler.config)
        self._word = LearnedToken(self._pipeline, self._told["token"], self._told["init_word"])
        self._exchange = lora.LoraSwitcher(self._pipeline)
        self._shows: str | None = None  # the class that the pipeline shows now

    def generate(self, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """A picture for each request, at the size of the shot it starts from.

        Requests are made class by class, the classes in the order of their names and requests in their own order, in
        batches of `SAMPLED_AT_ONCE` of one class. So the same requests give the same bytes; among other requests a
        picture changes by the rounding of its batch, no more.

        Raises:
            UserError: a class had no shots to learn from, or memory is too small.
        """
        wanted: dict[str, list[int]] = {}  # class -> places among the requests
        for place, request in enumerate(requests):
            wanted.setdefault(DEFECT if view.task == "detection" else request.label, []).append(place)
        found: dict[int, Synthetic] = {}
        for label in sorted(wanted):
            made = self._made(label, [requests[place] for place in wanted[label]], view)
            found |= dict(zip(wanted[label], made, strict=True))
        return [found[place] for place in range(len(requests))]

    def _made(self, label: str, requests: Sequence[Request], view: TrainView) -> list[Synthetic]:
        """Pictures of one class."""
        self._show(label)
        config, prompt = self.config, self._told["prompt"]
        sources = [self._source(label, request, view) for request in requests]
        begin = [view.image(source) for source in sources]
        amount: dict[str, Any] = {"steps": config.steps, "guidance": config.guidance, "clip_skip": config.clip_skip}
        amount |= {"shape": tuple(self._told["classes"][label]["shape"]), "batch": SAMPLED_AT_ONCE}
        amount["seeds"] = [request.seed for request in requests]
        prompts, meta = [prompt] * len(requests), {"prompt": prompt}
        with enough_memory("precision"):
            strength = 1.0 if config.start == "noise" else config.strength
            made = img2img(self._pipeline, self._bundle, prompts, begin, strength=strength, **amount)
        fitted = [fit_image(picture, real.shape[:2]) for picture, real in zip(made, begin, strict=True)]
        own = [{"source": source, "strength": strength} if strength < 1 else {} for source in sources]
        return [
            Synthetic(picture, request.label, None, meta | source)
            for picture, request, source in zip(fitted, requests, own, strict=True)
        ]

    def _show(self, label: str) -> None:
        """Let the pipeline show a class: its word, and its matrices merged into untouched weights."""
        if label == self._shows:
            return
        told = self._told
        if label not in told["classes"]:
            had = f"those with shots are {listed(told['classes'])}"
            raise UserError(f"augmenter '{self.name}' learned nothing of class '{label}', {had}: give it shots")
        self._shows = None
        folder = self._adapter / told["classes"][label]["folder"]
        self._exchange.merge(folder if told["stages"] in ("both", "lora") else None, told["alpha"])
        if told["stages"] != "none":
            self._word.load(folder)
        self._shows = label

    def _source(self, label: str, request: Request, view: TrainView) -> str:
        """The shot that a request starts from: all in turn, each round in another order."""
        names = _sources(view, label)
        if not names:
            raise UserError(f"augmenter '{self.name}' has no shot of class '{label}' to start from: give it shots")
        turn, place = divmod(request.index // len(self._told["classes"]), len(names))  # classes take turns, too
        return names[rng("stablesdg-sources", label, turn).permutation(len(names))[place]]


def _combinations(**axes: Sequence[float]) -> list[dict[str, float]]:
    """Every combination of the axes that name something: one empty one where none does."""
    named = {name: values for name, values in axes.items() if values}
    return [dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())]


def _labels(view: TrainView) -> pd.Series:
    """The class of each shot, in the order of the view."""
    labels = view.shots["label"]
    return labels if view.task == "recognition" else labels.map(lambda _: DEFECT)


def _sources(view: TrainView, label: str) -> list[str]:
    """Ids of the shots of a class, in the order of the view."""
    return list(view.shots["id"][(_labels(view) == label).to_numpy(bool)])

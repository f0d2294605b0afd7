"""Two-stage adaptation (StableSDG, arXiv 2405.01872): textual inversion of a new token, then LoRA.

Stage one is textual inversion (ICLR 2023): only the embedding of the new token is trained. Stage two starts from that
embedding and trains LoRA on the attention layers of text encoder and U-Net. The paper gives no learning rates, steps or
ranks, and does not say whether the token is trained in stage two: here it is frozen by default.

Both stages draw noise and timesteps as DreamBooth does (`augbench.diffusion.dreambooth`): all randomness follows from
the seed and the step, so an interrupted stage resumes with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion.dreambooth import Checkpoint, Examples, Finetuning, Optimiser, ReportProgress
from augbench.diffusion.lora import MODELS, AttentionShape, wrap

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

EMBEDDING = "learned_embeds.safetensors"
"""File of a learned token in the format of diffusers' ``load_textual_inversion``: token -> embedding."""


@dataclass(frozen=True)
class StageRecipe:
    """Hyperparameters of one stage; the defaults are our choice (`stablesdg` explains its own)."""

    steps: int
    learns_word: bool  # whether the token's embedding is trained; stage one: True
    shape: AttentionShape | None = None  # of the LoRA in stage two; None: no LoRA
    batch: int = 4
    lr: float = 5e-4  # constant
    min_snr: float = 0.0  # gamma of min-SNR weighting (ICCV 2023); 0: none
    clip_skip: int = 1  # as `encode_tokens` counts
    precision: str = "fp32"  # of the arithmetic: fp32, tf32, bf16 or fp16
    gradient_checkpointing: bool = False
    optimiser: Optimiser = "auto"


class LearnedToken:
    """A new token of a pipeline, with an embedding in its text encoder."""

    def __init__(self, pipeline: DiffusionPipeline, token: str, like: str) -> None:
        """
        Args:
            pipeline: freshly loaded; its tokenizer and text encoder get the token.
            token: text of the new token, without spaces.
            like: word whose embedding initialises the token; the mean embedding where it has several tokens.

        Raises:
            UserError: the tokenizer knows ``token`` already, or ``like`` is empty.
        """
        import torch

        tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
        initial = tokenizer(like, add_special_tokens=False).input_ids
        if not initial:
            raise UserError(f"the new token '{token}' cannot be initialised as '{like}': give a word")
        if not tokenizer.add_tokens([token]):
            raise UserError(f"'{token}' is not a new token, the tokenizer knows it already: choose another token")
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        self.token, self.id = token, tokenizer.convert_tokens_to_ids(token)
        self.table = encoder.get_input_embeddings()
        self.vector = torch.nn.Parameter(self.table.weight[initial].detach().float().mean(0))  # D float32
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        self.write()

    def begin(self) -> None:
        """Make the text encoder use `vector` as the token's embedding, so that it receives gradients.

        The embedding table itself is not trained, so no step can change another token.
        """
        import torch

        def replace(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            is_token = (inputs[0] == self.id)[..., None]
            return torch.where(is_token, self.vector.to(output.dtype), output)

        if self._hook is None:
            self._hook = self.table.register_forward_hook(replace)

    def write(self) -> None:
        """Write `vector` into the embedding table and remove the hook of `begin`."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self.table.weight.data[self.id] = self.vector.detach()

    def save(self, folder: Path) -> None:
        """Save the embedding in the format of diffusers."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({self.token: self.vector.detach().cpu().contiguous()}, folder / EMBEDDING, {"format": "pt"})
        (folder / EMBEDDING).chmod(0o644)

    def load(self, folder: Path) -> None:
        """Load the embedding saved in ``folder``.

        Raises:
            UserError: the file is missing or damaged, or of another pipeline.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(folder / EMBEDDING).get(self.token)
        except (OSError, SafetensorError) as error:
            raise UserError(f"adapter '{folder / EMBEDDING}' cannot be read ({error}): make it again") from error
        if found is None or found.shape != self.vector.shape:
            raise UserError(f"adapter '{folder / EMBEDDING}' does not fit the pipeline: make it again")
        self.vector.data.copy_(found)
        self.write()


class Stage(Finetuning):
    """Training stage of a pipeline with a new token. A stage with LoRA wraps the pipeline (`lora.wrap`) for good."""

    file = "stage.safetensors"

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        token: LearnedToken,
        recipe: StageRecipe,
        prompt: str,
        examples: Examples,
        seed: int,
    ) -> None:
        """
        Args:
            pipeline: on the device of the training, not wrapped yet.
            token: of the pipeline; the stage starts from its current vector.
            recipe: hyperparameters; token or LoRA must be trained.
            prompt: of all examples; its length has been checked.
            examples: at least one image.
            seed: of LoRA weights, order and noise.
        """
        for part in MODELS:
            getattr(pipeline, part).requires_grad_(False)
        matrices = wrap(pipeline, recipe.shape, derive_seed("stage-weights", seed)) if recipe.shape else []
        self.token = token
        token.vector.requires_grad_(recipe.learns_word)
        token.begin()
        parameters = [*matrices, *([token.vector] if recipe.learns_word else [])]
        self.initial = token.vector.detach().clone()
        super().__init__(pipeline, recipe, [prompt], [examples], parameters, recipe.steps, seed)

    def rate(self, step: int) -> float:
        """Return the learning rate, which is constant."""
        return self.recipe.lr

    def update_norm(self) -> float:
        """Return it of the LoRA layers; without LoRA, how far the token's embedding moved, against its own norm."""
        if self.recipe.shape:
            return super().update_norm()
        return ((self.token.vector.detach() - self.initial).norm() / self.initial.norm()).item()

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return prompt and image indices of a full batch; every image is used once before any repeats."""
        count, batch = len(self.examples[0]), self.recipe.batch
        positions = np.arange(step * batch, (step + 1) * batch)
        orders = {epoch: rng("stage-order", self.seed, epoch).permutation(count) for epoch in set(positions // count)}
        which = np.array([orders[position // count][position % count] for position in positions])
        return np.zeros(batch, np.int64), which

    def run(self, scratch: Path | None = None, report_progress: ReportProgress | None = None) -> dict[str, Any]:
        """Train as `Finetuning.run` does. A finished stage keeps its last checkpoint, so it is not trained again."""
        learned = super().run(scratch, report_progress)
        self.token.write()
        if scratch is not None:
            Checkpoint(scratch / self.file, self).save(self.steps)
        return learned


def run_stages(
    pipeline: DiffusionPipeline,
    token: LearnedToken,
    recipes: Sequence[StageRecipe],
    prompt: str,
    examples: Examples,
    seed: int,
    scratch: Path,
    report_progress: ReportProgress,
) -> list[dict[str, Any]]:
    """Train the stages of one class in turn. Returns the record of each stage.

    ``report_progress`` counts the steps of all stages together. ``scratch`` may hold checkpoints. Other arguments are
    those of `Stage`.
    """
    total, done, learned = sum(recipe.steps for recipe in recipes), 0, []
    for number, recipe in enumerate(recipes):
        folder = scratch / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        stage = Stage(pipeline, token, recipe, prompt, examples, derive_seed("stage", seed, number))
        record = stage.run(folder, lambda step, _, loss, before=done: report_progress(before + step, total, loss))
        learned.append(record)
        done += recipe.steps
    return learned

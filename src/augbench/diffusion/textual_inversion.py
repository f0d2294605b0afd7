"""Two-stage adaptation (StableSDG, arXiv 2405.01872): a new word learns what pictures show, then low-rank matrices do.

Stage one is textual inversion (ICLR 2023): the embedding of the new word is all that learns. Stage two starts from that
embedding and trains LoRA on the attention layers of text encoder and U-Net. The paper's text gives no learning rates,
steps or ranks, and does not say whether the word goes on learning in stage two: here it stays as it is, by default.

Both stages draw noise and times as DreamBooth does (`augbench.diffusion.dreambooth`): everything random follows from
the seed and the step, so a stage that is cut off goes on with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augbench.core.errors import UserError
from augbench.core.seeds import derive_seed, rng
from augbench.diffusion.dreambooth import Checkpoint, Examples, Finetuning, Say
from augbench.diffusion.lora import MODELS, AttentionShape, wrap

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

EMBEDDING = "learned_embeds.safetensors"
"""The file of a learned word, as diffusers' ``load_textual_inversion`` reads it: the word -> its embedding."""


@dataclass(frozen=True)
class StageRecipe:
    """How one stage is trained; the defaults are our choice (those of `stablesdg` say why)."""

    steps: int
    learns_word: bool  # stage one: True
    shape: AttentionShape | None = None  # stage two's matrices; None: there are none
    batch: int = 4
    lr: float = 5e-4  # constant
    min_snr: float = 0.0  # gamma of min-SNR weighting (ICCV 2023); 0: none
    clip_skip: int = 1  # as `encode_tokens` counts
    precision: str = "fp32"  # fp32, bf16 or fp16: of the arithmetic
    gradient_checkpointing: bool = False


class LearnedToken:
    """A new word of a pipeline: its tokenizer knows it, and its text encoder has one more embedding."""

    def __init__(self, pipeline: DiffusionPipeline, token: str, like: str) -> None:
        """
        Args:
            pipeline: as it was loaded; it has the word from now on.
            token: the new word, without spaces.
            like: a known word that it begins as; where that is several tokens, as their mean.

        Raises:
            UserError: the bundle knows ``token`` already, or ``like`` is empty.
        """
        import torch

        tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
        known = tokenizer(like, add_special_tokens=False).input_ids
        if not known:
            raise UserError(f"the new word '{token}' cannot begin as '{like}': give a word")
        if not tokenizer.add_tokens([token]):
            raise UserError(f"'{token}' is no new word, the bundle knows it already: choose another token")
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        self.token, self.id = token, tokenizer.convert_tokens_to_ids(token)
        self.table = encoder.get_input_embeddings()
        self.vector = torch.nn.Parameter(self.table.weight[known].detach().float().mean(0))  # D float32
        self._reading: torch.utils.hooks.RemovableHandle | None = None
        self.write()

    def begin(self) -> None:
        """From now on the text encoder reads `vector` for the word, and a loss has a gradient there.

        The table of embeddings is not touched, so that no step can change another word.
        """
        import torch

        def read(_: torch.nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> torch.Tensor:
            own = (given[0] == self.id)[..., None]
            return torch.where(own, self.vector.to(found.dtype), found)

        if self._reading is None:
            self._reading = self.table.register_forward_hook(read)

    def write(self) -> None:
        """Put `vector` into the table of embeddings, where it is read from now on."""
        if self._reading is not None:
            self._reading.remove()
            self._reading = None
        self.table.weight.data[self.id] = self.vector.detach()

    def save(self, folder: Path) -> None:
        """Write the embedding, as diffusers does."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({self.token: self.vector.detach().cpu().contiguous()}, folder / EMBEDDING, {"format": "pt"})
        (folder / EMBEDDING).chmod(0o644)

    def load(self, folder: Path) -> None:
        """Take the embedding that was saved there.

        Raises:
            UserError: the file is missing or damaged, or of another bundle.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(folder / EMBEDDING).get(self.token)
        except (OSError, SafetensorError) as error:
            raise UserError(f"adapter '{folder / EMBEDDING}' cannot be read ({error}): make it again") from error
        if found is None or found.shape != self.vector.shape:
            raise UserError(f"adapter '{folder / EMBEDDING}' does not fit the bundle: make it again")
        self.vector.data.copy_(found)
        self.write()


class Stage(Finetuning):
    """One stage on a pipeline with a new word. With matrices the pipeline is wrapped by `lora.wrap` and stays so."""

    file = "stage.safetensors"

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        word: LearnedToken,
        recipe: StageRecipe,
        prompt: str,
        examples: Examples,
        seed: int,
    ) -> None:
        """
        Args:
            pipeline: on the device it is trained on, not wrapped yet.
            word: of the pipeline; its vector is where the stage starts.
            recipe: how to train; something must learn.
            prompt: of all examples; its length has been checked.
            examples: at least one picture.
            seed: of matrices, order and noise.
        """
        for part in MODELS:
            getattr(pipeline, part).requires_grad_(False)
        matrices = wrap(pipeline, recipe.shape, derive_seed("stage-weights", seed)) if recipe.shape else []
        self.word = word
        word.vector.requires_grad_(recipe.learns_word)
        word.begin()
        parameters = [*matrices, *([word.vector] if recipe.learns_word else [])]
        super().__init__(pipeline, recipe, [prompt], [examples], parameters, recipe.steps, seed)

    def rate(self, step: int) -> float:
        """The learning rate, which is constant."""
        return self.recipe.lr

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Full batches, whatever the number of pictures: none comes again before all others came."""
        count, batch = len(self.examples[0]), self.recipe.batch
        places = np.arange(step * batch, (step + 1) * batch)
        orders = {turn: rng("stage-order", self.seed, turn).permutation(count) for turn in set(places // count)}
        which = np.array([orders[place // count][place % count] for place in places])
        return np.zeros(batch, np.int64), which

    def run(self, scratch: Path | None = None, say: Say | None = None) -> dict[str, Any]:
        """As `Finetuning.run`. A stage that is done leaves its last checkpoint, so that it is not trained again."""
        learned = super().run(scratch, say)
        self.word.write()
        if scratch is not None:
            Checkpoint(scratch / self.file, self).save(self.steps)
        return learned


def run_stages(
    pipeline: DiffusionPipeline,
    word: LearnedToken,
    recipes: Sequence[StageRecipe],
    prompt: str,
    examples: Examples,
    seed: int,
    scratch: Path,
    say: Say,
) -> list[dict[str, Any]]:
    """The stages of one class, each from where the one before it ended; returns what each has to say.

    ``say`` hears of steps of all stages together. The rest is as in `Stage`; ``scratch`` may hold checkpoints.
    """
    total, done, learned = sum(recipe.steps for recipe in recipes), 0, []
    for number, recipe in enumerate(recipes):
        own = scratch / str(number)
        own.mkdir(parents=True, exist_ok=True)
        stage = Stage(pipeline, word, recipe, prompt, examples, derive_seed("stage", seed, number))
        learned.append(stage.run(own, lambda step, _, loss, before=done: say(before + step, total, loss)))
        done += recipe.steps
    return learned

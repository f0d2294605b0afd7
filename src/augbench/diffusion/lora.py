"""LoRA-C3Lier through peft: low-rank matrices on linear layers, 1 x 1 and 3 x 3 convolutions of U-Net and text encoder.

"C3Lier" (kohya-ss, used by In&Out, VISAPP 2024): in the transformers, residual blocks and samplers of the U-Net, every
linear layer and 1 x 1 convolution at one rank, every 3 x 3 convolution at another; in the text encoder the layers of
attention and MLP. Never the first and last convolution, never the embedding of time. Without 3 x 3 convolutions it is
"LierLa": the transformers alone, as kohya's script does where it is given no rank for convolutions. `AttentionShape`
takes the attention layers alone, as StableSDG (arXiv 2405.01872) and the first LoRA (ICLR 2022) do.

Stored as peft stores adapters, a folder for each model with ``adapter_config.json`` and ``adapter_model.safetensors``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from augbench.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from peft import LoraConfig
    from torch import nn

ADAPTER = "augbench"  # peft's name of it inside a model
TRANSFORMER = "Transformer2DModel"
CONVOLUTIONAL = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
IN_TEXT_ENCODER = ("CLIPAttention", "CLIPMLP", "CLIPSdpaAttention", "CLIPFlashAttention2")
IN_ATTENTION = {
    "unet": ((TRANSFORMER,), (".to_q", ".to_k", ".to_v", ".to_out.0")),
    "text_encoder": (IN_TEXT_ENCODER, (".q_proj", ".k_proj", ".v_proj", ".out_proj")),
}
"""Model -> where attention lies in it, and how the names of its layers end."""
MODELS = ("unet", "text_encoder")
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of names in peft's files


@dataclass(frozen=True)
class LoraShape:
    """Ranks and alphas; an update is ``alpha / rank * up @ down``. The defaults are those of In&Out."""

    rank: int = 32
    alpha: float = 16.0
    conv_rank: int | None = 4  # of 3 x 3 convolutions; None: LierLa
    conv_alpha: float = 1.0

    def layers(self, part: str, model: nn.Module) -> tuple[list[str], list[str]]:
        """Names of a model's layers that are wrapped: at the main rank, and at that of 3 x 3 convolutions."""
        return unet_layers(model, self) if part == "unet" else (text_layers(model), [])


@dataclass(frozen=True)
class AttentionShape(LoraShape):
    """The same for attention alone: the layers of query, key, value and output, all at the main rank."""

    conv_rank: int | None = None

    def layers(self, part: str, model: nn.Module) -> tuple[list[str], list[str]]:
        """Names of the attention layers; no convolutions."""
        homes, ends = IN_ATTENTION[part]
        return [name for name, _ in _inside(model, homes) if name.endswith(ends)], []


def unet_layers(unet: nn.Module, shape: LoraShape) -> tuple[list[str], list[str]]:
    """Names of the U-Net's layers that are wrapped: at the main rank, and at that of 3 x 3 convolutions."""
    from torch import nn

    main, three = [], []
    homes = (TRANSFORMER,) if shape.conv_rank is None else (TRANSFORMER, *CONVOLUTIONAL)
    for name, layer in _inside(unet, homes):
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
            main.append(name)
        elif isinstance(layer, nn.Conv2d) and shape.conv_rank is not None:
            three.append(name)
    return main, three


def text_layers(encoder: nn.Module) -> list[str]:
    """Names of the text encoder's layers that are wrapped."""
    from torch import nn

    return [name for name, layer in _inside(encoder, IN_TEXT_ENCODER) if isinstance(layer, nn.Linear)]


def _inside(model: nn.Module, homes: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Name and layer of all that lies in modules of these classes, each once, in the model's order."""
    within = [f"{name}." for name, module in model.named_modules() if type(module).__name__ in homes]
    for name, layer in model.named_modules():
        if name.startswith(tuple(within)):
            yield name, layer


def wrap(pipeline: DiffusionPipeline, shape: LoraShape, seed: int) -> list[nn.Parameter]:
    """Put untrained low-rank matrices into U-Net and text encoder, whose own weights stop learning.

    ``down`` is drawn as layers are, ``up`` is zero, so that nothing changes before the first step.

    Returns:
        What is to be trained, float32.
    """
    import torch
    from peft import inject_adapter_in_model

    torch.manual_seed(seed)
    trained = []
    for part in MODELS:
        model = getattr(pipeline, part)
        inject_adapter_in_model(config(part, model, shape), model.requires_grad_(False), ADAPTER)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(f".{ADAPTER}." in name)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                trained.append(parameter)
    return trained


def config(part: str, model: nn.Module, shape: LoraShape) -> LoraConfig:
    """What peft is told of one model. Layers are named one by one: suffixes would catch others too."""
    from peft import LoraConfig

    main, three = shape.layers(part, model)
    return LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=[*main, *three],
        rank_pattern=dict.fromkeys(three, shape.conv_rank),
        alpha_pattern=dict.fromkeys(three, shape.conv_alpha),
        init_lora_weights=True,
    )


def save(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Write the matrices of a wrapped pipeline into ``folder``, a subfolder for each model, as peft does."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    for part in MODELS:
        model = getattr(pipeline, part)
        found = get_peft_model_state_dict(model, adapter_name=ADAPTER)
        own = folder / part
        own.mkdir(parents=True, exist_ok=True)
        tensors = {PREFIX + name: tensor.detach().float().cpu().contiguous() for name, tensor in found.items()}
        save_file(tensors, own / WEIGHTS, {"format": "pt"})
        (own / WEIGHTS).chmod(0o644)
        config = model.peft_config[ADAPTER]
        config.target_modules = sorted(config.target_modules)  # a set: in another order in each process
        config.save_pretrained(own)


def merge(pipeline: DiffusionPipeline, folder: Path, alpha: float) -> None:
    """Add the update saved in ``folder``, times ``alpha``, to the pipeline's own weights; 0 leaves them as they are.

    Raises:
        UserError: the files do not fit the pipeline.
    """
    if not alpha:
        return
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    for part in MODELS:
        model, own = getattr(pipeline, part), folder / part
        tensors = _saved(own)
        try:
            inject_adapter_in_model(LoraConfig.from_pretrained(own), model, ADAPTER)
            result = set_peft_model_state_dict(model, tensors, adapter_name=ADAPTER)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"adapter '{own}' does not fit the bundle ({_line(error)}): make it again") from error
        if result.unexpected_keys or len(tensors) != sum(f".{ADAPTER}." in name for name in model.state_dict()):
            raise UserError(f"adapter '{own}' does not fit the bundle (other layers): make it again")
        _fold(model, alpha)


class LoraSwitcher:
    """Merges one saved update at a time: before another one, each layer gets its own weights back, to the last bit."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.pipeline = pipeline
        self.untouched: dict[tuple[str, str], torch.Tensor] = {}  # model, layer -> its own weights

    def merge(self, folder: Path | None, alpha: float) -> None:
        """As `merge` does into the untouched pipeline; None: that pipeline.

        Raises:
            UserError: the files do not fit the pipeline.
        """
        for (part, name), weight in self.untouched.items():
            getattr(self.pipeline, part).get_submodule(name).weight.data.copy_(weight)
        if folder is None:
            return
        for part in MODELS:
            layers = dict(getattr(self.pipeline, part).named_modules())
            for name in {name.partition(".lora_")[0] for name in _saved(folder / part)} & layers.keys():
                if (part, name) not in self.untouched:
                    self.untouched[part, name] = layers[name].weight.detach().clone()
        merge(self.pipeline, folder, alpha)


def _saved(folder: Path) -> dict[str, torch.Tensor]:
    """Name inside the model -> matrix, of one model's folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"adapter '{folder}' does not fit the bundle ({_line(error)}): make it again") from error


def _fold(model: nn.Module, alpha: float) -> None:
    """Add each update to its layer, and put the layer back where its wrapper stands."""
    from peft.tuners.lora import LoraLayer

    wrappers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in wrappers.items():
        layer.scale_layer(alpha)
        layer.merge()
        home, _, last = name.rpartition(".")
        setattr(model.get_submodule(home), last, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = False


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]

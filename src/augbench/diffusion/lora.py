"""LoRA-C3Lier by peft: low-rank matrices on linear layers, 1 x 1 and 3 x 3 convolutions of U-Net and text encoder.

"C3Lier" (kohya-ss, used by In&Out, VISAPP 2024): in the transformers, residual blocks and samplers of the U-Net, every
linear layer and 1 x 1 convolution at one rank, every 3 x 3 convolution at another; in the text encoder the layers of
attention and MLP. Never the first and last convolution, never the time embedding. Without 3 x 3 convolutions it is
"LierLa": the transformers alone, as kohya's script does without a rank for convolutions. `AttentionShape` wraps the
attention layers alone, as StableSDG (arXiv 2405.01872) and the first LoRA (ICLR 2022) do.

Stored in peft's format, a folder for each model with ``adapter_config.json`` and ``adapter_model.safetensors``.
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

ADAPTER = "augbench"  # peft's name of the adapter inside a model
TRANSFORMER = "Transformer2DModel"
CONVOLUTIONAL = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
IN_TEXT_ENCODER = ("CLIPAttention", "CLIPMLP", "CLIPSdpaAttention", "CLIPFlashAttention2")
IN_ATTENTION = {
    "unet": ((TRANSFORMER,), (".to_q", ".to_k", ".to_v", ".to_out.0")),
    "text_encoder": (IN_TEXT_ENCODER, (".q_proj", ".k_proj", ".v_proj", ".out_proj")),
}
"""Model -> classes of its attention modules, and suffixes of the names of their layers."""
MODELS = ("unet", "text_encoder")
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of tensor names in peft's files


@dataclass(frozen=True)
class LoraShape:
    """Ranks and alphas; an update is ``alpha / rank * up @ down``. The defaults are those of In&Out."""

    rank: int = 32
    alpha: float = 16.0
    conv_rank: int | None = 4  # of 3 x 3 convolutions; None: LierLa
    conv_alpha: float = 1.0

    def layers(self, part: str, model: nn.Module) -> tuple[list[str], list[str]]:
        """Return names of the layers to wrap: those at ``rank``, and 3 x 3 convolutions at ``conv_rank``."""
        from torch import nn

        main, convolutions = [], []
        in_unet = (TRANSFORMER,) if self.conv_rank is None else (TRANSFORMER, *CONVOLUTIONAL)
        parents = in_unet if part == "unet" else IN_TEXT_ENCODER
        for name, layer in _inside(model, parents):
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
                main.append(name)
            elif isinstance(layer, nn.Conv2d) and self.conv_rank is not None:
                convolutions.append(name)
        return main, convolutions


@dataclass(frozen=True)
class AttentionShape(LoraShape):
    """Ranks and alphas for attention alone: the layers of query, key, value and output, all at ``rank``."""

    conv_rank: int | None = None

    def layers(self, part: str, model: nn.Module) -> tuple[list[str], list[str]]:
        """Return names of the attention layers, and no convolutions."""
        parents, suffixes = IN_ATTENTION[part]
        return [name for name, _ in _inside(model, parents) if name.endswith(suffixes)], []


def _inside(model: nn.Module, parents: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and layer of all submodules of modules of these classes, each once, in the model's order."""
    prefixes = [f"{name}." for name, module in model.named_modules() if type(module).__name__ in parents]
    for name, layer in model.named_modules():
        if name.startswith(tuple(prefixes)):
            yield name, layer


def wrap(pipeline: DiffusionPipeline, shape: LoraShape, seed: int) -> list[nn.Parameter]:
    """Inject untrained low-rank matrices into U-Net and text encoder, and freeze the models' own weights.

    ``down`` is randomly initialised and ``up`` is zero, so the outputs do not change before the first step.

    Returns:
        The trainable parameters, float32.
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
    """Return peft's configuration of one model. It lists full layer names: suffixes would match other layers too."""
    from peft import LoraConfig

    main, convolutions = shape.layers(part, model)
    return LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=[*main, *convolutions],
        rank_pattern=dict.fromkeys(convolutions, shape.conv_rank),
        alpha_pattern=dict.fromkeys(convolutions, shape.conv_alpha),
        init_lora_weights=True,
    )


def save(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Save the low-rank matrices of a wrapped pipeline in peft's format: a subfolder of ``folder`` for each model."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    for part in MODELS:
        model = getattr(pipeline, part)
        state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
        own = folder / part
        own.mkdir(parents=True, exist_ok=True)
        tensors = {PREFIX + name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, own / WEIGHTS, {"format": "pt"})
        (own / WEIGHTS).chmod(0o644)
        config = model.peft_config[ADAPTER]
        config.target_modules = sorted(config.target_modules)  # a set, whose order differs between processes
        config.save_pretrained(own)


def update_norm(pipeline: DiffusionPipeline) -> float:
    """Return the median of ``|dW| / |W|`` (Frobenius norms) over the wrapped layers, at a merge weight of 1."""
    import torch
    from peft.tuners.lora import LoraLayer

    ratios = []
    with torch.no_grad():
        for layer in (layer for part in MODELS for layer in getattr(pipeline, part).modules()):
            if isinstance(layer, LoraLayer):
                update, weight = layer.get_delta_weight(ADAPTER), layer.get_base_layer().weight
                ratios.append(update.float().norm() / weight.float().norm())
    return torch.stack(ratios).median().item()


def merge(pipeline: DiffusionPipeline, folder: Path, alpha: float) -> None:
    """Merge the adapter saved in ``folder``, scaled by ``alpha``, into the pipeline's weights; 0 leaves them unchanged.

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
            raise _unfit(own, error) from error
        if result.unexpected_keys or len(tensors) != sum(f".{ADAPTER}." in name for name in model.state_dict()):
            raise _unfit(own, "other layers")
        _fold(model, alpha)


class LoraSwitcher:
    """Switch between saved adapters: restore the original weights bit for bit, then merge another adapter."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.pipeline = pipeline
        self.originals: dict[tuple[str, str], torch.Tensor] = {}  # model, layer -> original weights

    def merge(self, folder: Path | None, alpha: float) -> None:
        """Merge an adapter into the original weights, as `merge` does; None: restore the original weights.

        Raises:
            UserError: the files do not fit the pipeline.
        """
        for (part, name), weight in self.originals.items():
            getattr(self.pipeline, part).get_submodule(name).weight.data.copy_(weight)
        if folder is None:
            return
        for part in MODELS:
            layers = dict(getattr(self.pipeline, part).named_modules())
            for name in {name.partition(".lora_")[0] for name in _saved(folder / part)} & layers.keys():
                if (part, name) not in self.originals:
                    self.originals[part, name] = layers[name].weight.detach().clone()
        merge(self.pipeline, folder, alpha)


def _saved(folder: Path) -> dict[str, torch.Tensor]:
    """Load one model's adapter: name inside the model -> matrix."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise _unfit(folder, error) from error


def _fold(model: nn.Module, alpha: float) -> None:
    """Merge each low-rank update into its layer, and replace the peft wrapper by the layer."""
    from peft.tuners.lora import LoraLayer

    wrappers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in wrappers.items():
        layer.scale_layer(alpha)
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    del model.peft_config


def _unfit(folder: Path, reason: object) -> UserError:
    what = " ".join(str(reason).split())[:160]
    return UserError(f"adapter '{folder}' does not fit the pipeline ({what}): make it again")

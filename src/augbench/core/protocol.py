"""Protocols: how a classifier is trained and evaluated. Presets are YAML files in ``assets/protocols``."""

from __future__ import annotations

from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augbench.core import weights
from augbench.core.errors import UserError, did_you_mean
from augbench.core.hashing import digest
from augbench.core.weights import packaged


class Protocol(BaseModel):
    """Everything that determines a training and its evaluation. All of it is part of a cell's key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    # image
    width: int = Field(ge=8, le=4096)
    height: int = Field(ge=8, le=4096)
    crop: Literal["none", "centre"] = "none"  # centre: crop to the target's aspect ratio first: nothing is stretched
    # (width, height) to which every image, real or synthetic, is resized first; None: resize only once
    resize_first: tuple[Annotated[int, Field(ge=8, le=4096)], Annotated[int, Field(ge=8, le=4096)]] | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet, for pixel values in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    flip: bool = False  # random flips along both axes; none of the papers uses them
    # classifier
    backbone: str = "resnet50"  # a timm model name
    weights: str = "timm"  # see `SWITCHES`
    # training
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    batch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    sampler: Literal["balanced", "shuffle"] = "balanced"
    epoch_pictures: int | None = Field(None, ge=2)  # samples per epoch; None: 2 x positives (balanced), all (shuffle)
    batchnorm: Literal["train", "eval_after_first_epoch"] = "train"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads_per_cell: int = Field(default=1, ge=1)  # CPU threads; the number changes rounding errors
    # evaluation
    test_share: float | None = Field(None, gt=0, lt=1)  # None: k folds; ignored if the dataset has an official split
    eval_batch: int = Field(default=64, ge=1)
    eval_every: int = Field(1, ge=1)  # epochs between points of the test curve; the last one is always evaluated
    ap: Literal["trapezoidal", "step"] = "step"  # which definition tables call "AP"; both are recorded
    holdout: float = Field(default=0.0, ge=0, lt=0.5)  # share of training negatives held out to choose a threshold
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=1)  # FPR on the held-out negatives that sets the threshold
    # prose
    about: str = ""
    sources: dict[str, str] = {}  # field, or several separated by commas -> source of the value

    def source_of(self, field: str) -> str:
        """Return the source of that field's value; "" if the protocol names none."""
        if field in self.sources:
            return self.sources[field]
        several = (text for names, text in self.sources.items() if field in names.replace(" ", "").split(","))
        return next(several, "")

    @cached_property
    def key_fields(self) -> dict[str, Any]:
        """The fields that enter keys: non-default values, without the prose.

        So a field that is added later, with a default that means "as before", leaves old keys unchanged. A released
        default must never change.
        """
        fields = self.model_dump(mode="json", exclude={"about", "sources"}, exclude_defaults=True)
        if self.weights == "package":
            fields["weights"] = f"package:sha256:{packaged(self.backbone).sha256}"
        elif self.weights not in ("timm", "scratch"):
            fields["weights"] = weights_digest(self.weights)
        return fields

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of `key_fields`."""
        return digest(self.key_fields)

    def changed(self, **fields: Any) -> Protocol:
        """Return a copy with other values; its name lists them, so that it is not confused with the preset."""
        suffix = "".join(f"+{k}={v}" for k, v in sorted(fields.items()))
        return self.under_name(self.name + suffix, **fields)

    def under_name(self, name: str, **fields: Any) -> Protocol:
        """Return a copy with a name and other values. The source of a changed field is replaced."""
        was = {field: getattr(self, field) for field in fields if field in PROTOCOL_NUMBERS}
        sources = self.sources | {field: f"changed; {self.name} has {value}" for field, value in was.items()}
        return make_protocol({**self.model_dump(), "sources": sources, **fields, "name": name})


PROSE = ("name", "about", "sources")
"""The fields of a `Protocol` that influence no number. The name is nevertheless part of keys: tables print it."""

PROTOCOL_NUMBERS = tuple(field for field in Protocol.model_fields if field not in PROSE)
"""The fields of a `Protocol` that influence numbers. Every preset gives a source for each."""

SWITCHES: dict[str, dict[str, str]] = {
    "crop": {
        "none": "the whole image is resized; a different aspect ratio is stretched",
        "centre": "the largest centred crop with the target's aspect ratio is resized: nothing is stretched",
    },
    "weights": {
        "timm": "timm's pretrained weights of the backbone",
        "package": "pretrained weights that come with a Python package; of tf_efficientnet_lite0",
        "scratch": "randomly initialised",
        "FILE.safetensors": "a local file; the new last layer is randomly initialised",
    },
    "optimiser": {
        "sgd": "stochastic gradient descent",
        "adam": "Adam with PyTorch's betas; weight_decay is an L2 penalty",
        "adamw": "Adam with decoupled weight decay",
    },
    "schedule": {
        "constant": "the learning rate is constant",
        "cosine": "the learning rate decays to 0 along half a cosine, step by step",
    },
    "sampler": {
        "balanced": "as many negatives as positives per epoch (in recognition without normal images: as many of each "
        "class), drawn without replacement until a class is exhausted",
        "shuffle": "all images, in a new order each epoch, drawn without replacement until all are used",
    },
    "batchnorm": {
        "train": "every epoch trains with the statistics of each batch",
        "eval_after_first_epoch": "from the second epoch on the model trains in eval mode, so running statistics are "
        "frozen: this happens if model.train() is called once before the loop and each epoch ends with an evaluation "
        "that calls model.eval()",
    },
    "precision": {
        "fp32": "32-bit floats throughout",
        "bf16": "the forward pass of training in bfloat16 (autocast); evaluation always in fp32",
    },
    "ap": {
        "trapezoidal": "AP is the area under the precision-recall curve by the trapezoidal rule",
        "step": "AP is the sum of precision times the gain in recall (scikit-learn's average_precision_score)",
    },
}
"""The choices of a field and their meaning: field -> value -> description."""


@cache
def weights_digest(path: str) -> str:
    """Return ``sha256:...`` of a local weights file: keys depend on the content, not on the path.

    Raises:
        UserError: the file does not exist.
    """
    if not Path(path).is_file():
        raise UserError(
            f"protocol weights: '{path}' is not a file: give a .safetensors file, 'timm' (pretrained by name), "
            "'package' (of a Python package) or 'scratch' (randomly initialised)"
        )
    return f"sha256:{weights.digest(Path(path))}"


def make_protocol(fields: dict[str, Any]) -> Protocol:
    """Create a `Protocol` from a mapping. Raises UserError for an unknown field or a value out of range."""
    try:
        return Protocol(**fields)
    except ValidationError as error:
        raise UserError(f"protocol '{fields.get('name', '?')}': {first_problem(error, Protocol)}") from None


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Format the first problem of a pydantic error as one sentence."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{where}'{did_you_mean(where.rpartition('.')[2], model.model_fields)}"
    if problem["type"] == "missing" or (problem["type"] == "too_short" and not problem["input"]):
        return f"'{where}' is missing or empty"
    if problem["type"] == "string_pattern_mismatch":
        return (
            f"'{where}': '{problem['input']}' may contain letters, digits and underscores, and must begin with a letter"
        )
    if problem["type"] == "value_error":
        return f"'{where}': {problem['ctx']['error']}"
    if where.startswith("shots."):
        return f"'shots': a number from 0 on, or 'all' (got {problem['input']!r})"
    return f"'{where}': {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']!r})"


_PRESETS = resources.files("augbench") / "assets" / "protocols"


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Protocol:
    """Load the preset of that name. Raises UserError if it does not exist."""
    names = preset_names()
    if name not in names:
        raise UserError(f"protocol '{name}' does not exist{did_you_mean(name, names)}")
    text = (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    return make_protocol({"name": name, **yaml.safe_load(text)})

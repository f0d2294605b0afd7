"""Protocols: how a classifier is trained and judged. Presets are YAML files in ``assets/protocols``."""

from __future__ import annotations

from functools import cache, cached_property
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augbench.core.errors import UserError, did_you_mean
from augbench.core.hashing import digest


class Protocol(BaseModel):
    """Every number that decides a training and its score. All of it is part of a cell's key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    # picture
    width: int = Field(ge=8, le=4096)
    height: int = Field(ge=8, le=4096)
    crop: Literal["none", "centre"] = "none"  # centre: cut to the target's aspect first, so that nothing is stretched
    # (width, height) that every picture, real or synthetic, is first resized to; None: once is enough
    resize_first: tuple[Annotated[int, Field(ge=8, le=4096)], Annotated[int, Field(ge=8, le=4096)]] | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet, of pixel values in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    flip: bool = False  # online random flips, both axes; none of the papers flips
    # classifier
    backbone: str = "resnet50"  # a timm model name
    weights: str = "timm"  # "timm": the name's pretrained weights; "scratch"; or a path to a local safetensors file
    # training
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    batch: int = Field(ge=1)
    epochs: int = Field(ge=1)
    sampler: Literal["balanced", "shuffle"] = "balanced"
    epoch_pictures: int | None = Field(
        default=None, ge=2
    )  # in one epoch; None: 2 x positives (balanced), all (shuffle)
    batchnorm: Literal["train", "eval_after_first_epoch"] = "train"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads_per_cell: int = Field(default=1, ge=1)  # CPU threads: a different number gives different last digits
    # judging
    test_share: float | None = Field(default=None, gt=0, lt=1)  # None: k folds; only where no split is official
    eval_batch: int = Field(default=64, ge=1)
    eval_every: int = Field(default=1, ge=1)  # epochs between points of the test curve; the last is always there
    ap: Literal["trapezoidal", "step"] = "step"  # which of the two is "AP" in the tables; both are recorded
    holdout: float = Field(default=0.0, ge=0, lt=0.5)  # share of training negatives kept out to choose a threshold
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=1)  # on the held-out negatives; sets that threshold
    # prose
    about: str = ""
    sources: dict[str, str] = {}  # field, or several with commas -> where the value comes from

    def source_of(self, field: str) -> str:
        """Where that field's value comes from; "" where the protocol does not say."""
        if field in self.sources:
            return self.sources[field]
        several = (text for names, text in self.sources.items() if field in names.replace(" ", "").split(","))
        return next(several, "")

    @cached_property
    def key_fields(self) -> dict[str, Any]:
        """What enters keys: everything that differs from the defaults, but the prose.

        So a field that is added later, with a default that means "as before", leaves old keys as they are. A default
        that has been released is never changed.
        """
        fields = self.model_dump(mode="json", exclude={"about", "sources"}, exclude_defaults=True)
        if self.weights not in ("timm", "scratch"):
            fields["weights"] = weights_digest(self.weights)
        return fields

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `key_fields`."""
        return digest(self.key_fields)

    def changed(self, **fields: Any) -> Protocol:
        """A copy with other values; its name says which, so that it is not taken for the preset."""
        suffix = "".join(f"+{k}={v}" for k, v in sorted(fields.items()))
        return self.under_name(self.name + suffix, **fields)

    def under_name(self, name: str, **fields: Any) -> Protocol:
        """A copy with a name and other values. A changed field no longer claims the source of the value it had."""
        was = {field: getattr(self, field) for field in fields if field in PROTOCOL_NUMBERS}
        sources = self.sources | {field: f"changed; {self.name} has {value}" for field, value in was.items()}
        return make_protocol({**self.model_dump(), "sources": sources, **fields, "name": name})


PROSE = ("name", "about", "sources")
"""The fields of a `Protocol` that decide no number. (The name is part of keys all the same: it stands in tables.)"""

PROTOCOL_NUMBERS = tuple(field for field in Protocol.model_fields if field not in PROSE)
"""The fields of a `Protocol` that decide numbers. Each has a source in every preset."""

SWITCHES: dict[str, dict[str, str]] = {
    "crop": {
        "none": "the whole picture is resized; where its aspect differs it is stretched",
        "centre": "the largest centred part with the target's aspect, then resized: nothing is stretched",
    },
    "weights": {
        "timm": "the pretrained weights that timm has under the backbone's name",
        "scratch": "a random start",
        "FILE.safetensors": "a local file; the new last layer starts at random",
    },
    "optimiser": {
        "sgd": "stochastic gradient descent",
        "adam": "Adam with PyTorch's betas; weight_decay is an L2 penalty",
        "adamw": "Adam with decoupled weight decay",
    },
    "schedule": {
        "constant": "the learning rate stays",
        "cosine": "the learning rate falls to 0 along half a cosine, step by step",
    },
    "sampler": {
        "balanced": "as many negatives as positives in an epoch (in recognition without good pictures: as many of each "
        "class); none comes again before all others of its kind came",
        "shuffle": "all pictures alike, in a new order each epoch; none comes again before all others came",
    },
    "batchnorm": {
        "train": "every epoch trains with the statistics of each batch",
        "eval_after_first_epoch": "from the second epoch on the model stays in eval mode while it trains, so running "
        "statistics stand still: what happens where model.train() is called once before the loop and an evaluation "
        "that calls model.eval() ends each epoch",
    },
    "precision": {
        "fp32": "32-bit floats throughout",
        "bf16": "the forward pass of training in bfloat16 (autocast); judging always in fp32",
    },
    "ap": {
        "trapezoidal": "AP is the area under the precision-recall curve by the trapezoidal rule",
        "step": "AP is the sum of precision times the gain in recall (scikit-learn's average_precision_score)",
    },
}
"""Named choices: field -> value -> what it does."""


@cache
def weights_digest(path: str) -> str:
    """``sha256:...`` of a local weights file: a key follows the content, not the path.

    Raises:
        UserError: there is no such file.
    """
    import hashlib
    from pathlib import Path

    if not Path(path).is_file():
        raise UserError(
            f"protocol weights: '{path}' is not a file: give a .safetensors file, 'timm' (pretrained by name) "
            "or 'scratch' (random start)"
        )
    with Path(path).open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def make_protocol(fields: dict[str, Any]) -> Protocol:
    """A `Protocol` from a mapping.

    Raises:
        UserError: an unknown field or a value out of range, named.
    """
    try:
        return Protocol(**fields)
    except ValidationError as error:
        raise UserError(f"protocol '{fields.get('name', '?')}': {first_problem(error, Protocol)}") from None


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error as one plain sentence."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{where}'{did_you_mean(where.rpartition('.')[2], model.model_fields)}"
    if problem["type"] == "missing" or (problem["type"] == "too_short" and not problem["input"]):
        return f"'{where}' is missing or empty"
    if problem["type"] == "string_pattern_mismatch":
        return f"'{where}': '{problem['input']}' may hold letters, digits and underscores, and begins with a letter"
    if problem["type"] == "value_error":
        return f"'{where}': {problem['ctx']['error']}"
    if where.startswith("shots."):
        return f"'shots': a number from 0 on, or 'all' (got {problem['input']!r})"
    return f"'{where}': {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']!r})"


def preset_names() -> list[str]:
    """Names of the presets, sorted."""
    folder = resources.files("augbench") / "assets" / "protocols"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Protocol:
    """The preset of that name.

    Raises:
        UserError: there is none.
    """
    names = preset_names()
    if name not in names:
        raise UserError(f"protocol '{name}' does not exist{did_you_mean(name, names)}")
    text = (resources.files("augbench") / "assets" / "protocols" / f"{name}.yaml").read_text(encoding="utf-8")
    return make_protocol({"name": name, **yaml.safe_load(text)})

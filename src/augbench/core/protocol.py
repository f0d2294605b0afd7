"""Protocols: how a classifier is trained and evaluated. Presets are YAML files in ``assets/protocols``."""

from __future__ import annotations

from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from augbench.core import registry, weights
from augbench.core.errors import UserError, brief, did_you_mean
from augbench.core.hashing import digest
from augbench.core.models import StrictModel, first_problem
from augbench.core.weights import packaged


class Protocol(StrictModel):
    """Everything that determines a training and its evaluation. All of it is part of a cell's key.

    Which fields a kind reads: see `READ_BY`; what the values of a switch mean: see `SWITCHES`.
    """

    name: str = Field(description="in tables and keys")
    kind: Literal["finetune", "probe", "gaussian", "neighbours"] = Field(
        "finetune", description="what is trained; it decides which other keys are read"
    )
    # image
    width: int = Field(ge=8, le=4096, description="of the images that the classifier sees, in pixels")
    height: int = Field(ge=8, le=4096, description="of the images that the classifier sees, in pixels")
    crop: Literal["none", "centre"] = Field(
        "none", description="centre: crop to the target's aspect ratio first, so that nothing is stretched"
    )
    resize_first: tuple[Annotated[int, Field(ge=8, le=4096)], Annotated[int, Field(ge=8, le=4096)]] | None = Field(
        None, description="width and height to which every image, real or synthetic, is resized first; none: only once"
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="subtracted from pixel values in [0, 1]; the default is ImageNet's"
    )
    std: tuple[float, float, float] = Field(
        (0.229, 0.224, 0.225), description="that pixel values are divided by; the default is ImageNet's"
    )
    flip: bool = Field(False, description="random flips along both axes; none of the papers uses them")
    harmonise: int | None = Field(
        None,
        ge=1,
        le=100,
        description="JPEG quality at which every image, real or synthetic, is stored first; none: taken as it is",
    )
    roundtrip: str = Field(
        "",
        description="pipeline (a name, a folder or a .safetensors file) whose VAE every real image, of training and "
        "evaluation, passes first; synthetic images are taken as they are",
    )
    # classifier
    backbone: str = Field("resnet50", description="a timm model name")
    weights: str = Field("timm", description="of the backbone at the start: timm, package, scratch or a file")
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="number format of the arithmetic")
    # training
    shuffle_labels: bool = Field(
        False, description="a control: labels of training images are permuted by item, from the cell's seed"
    )
    # fine-tuning
    optimiser: Literal["sgd", "adam", "adamw"] = Field("sgd", description="of fine-tuning")
    lr: float | None = Field(None, gt=0, description="learning rate; fine-tuning needs it")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty; decoupled in adamw")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate")
    batch: int | None = Field(None, ge=1, description="training images per step; fine-tuning needs it")
    epochs: int | None = Field(None, ge=1, description="of fine-tuning, which needs it")
    sampler: Literal["balanced", "shuffle"] = Field("balanced", description="how an epoch draws training images")
    epoch_pictures: int | None = Field(
        None, ge=2, description="samples per epoch; none: twice the positives (balanced), all (shuffle)"
    )
    budget: Literal["epochs", "steps"] = Field("epochs", description="what more synthetic images leave as it is")
    class_weights: Literal["none", "equal"] = Field("none", description="of the labels in the loss")
    batchnorm: Literal["train", "eval_after_first_epoch"] = Field("train", description="statistics in training")
    gradients: Literal["mean", "summed"] = Field("mean", description="of the images of a batch")
    labels: Literal["image", "masks"] = Field("image", description="where the label of a defect image comes from")
    threads_per_cell: int = Field(default=1, ge=1, description="CPU threads; the number changes rounding errors")
    synthetic_weight: Annotated[float, Field(gt=0)] | Literal["equal_mass", "cv"] = Field(
        1.0, description="of a synthetic image, against a real one"
    )
    # probe
    head: Literal["logistic", "lda", "mlp"] = Field("logistic", description="classifier on the features")
    C: Annotated[float, Field(gt=0)] | Literal["cv"] = Field(
        "cv", description="inverse strength of the L2 penalty, as in scikit-learn"
    )
    normality: bool = Field(False, description="the normals-only score, cross-fitted, is a further feature")
    # evaluation
    test_share: float | None = Field(
        None, gt=0, lt=1, description="none: k folds; ignored if the dataset has an official split"
    )
    eval_batch: int = Field(default=64, ge=1, description="images per step of the evaluation")
    eval_every: int = Field(
        1, ge=1, description="epochs between points of the test curve; the last one is always evaluated"
    )
    ap: Literal["trapezoidal", "step", "trapezoidal_ties"] = Field(
        "step", description="which definition tables call AP"
    )
    ap_beside: Literal["trapezoidal", "step", "trapezoidal_ties"] | None = Field(
        None, description="a further definition, in records"
    )
    holdout: float = Field(
        default=0.0, ge=0, lt=0.5, description="share of training negatives held out to choose a threshold"
    )
    false_alarm_rate: float = Field(
        default=0.01, gt=0, lt=1, description="false positive rate on the held-out negatives that sets the threshold"
    )
    # prose
    about: str = Field("", description="one line about it")
    sources: dict[str, str] = Field({}, description="key, or several separated by commas: source of the value")
    superseded_by: str = Field("", description="the preset that corrects this one, whose numbers never change")

    @model_validator(mode="after")
    def _reads_what_is_set(self) -> Self:
        """Refuse settings that this kind does not read, and settings that it lacks."""
        read = READ_BY[self.kind]
        for field in PROTOCOL_NUMBERS:
            if field not in read and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"'{field}' is not read by a protocol of kind '{self.kind}': leave it out")
        for field in ("lr", "batch", "epochs"):
            if field in read and getattr(self, field) is None:
                raise ValueError(f"'{field}' is missing or empty")
        if self.kind != "finetune" and self.weights == "scratch":
            raise ValueError(f"a protocol of kind '{self.kind}' needs pretrained weights, not 'scratch'")
        if self.kind == "finetune" and self.synthetic_weight == "cv":
            raise ValueError("'synthetic_weight' is chosen by a probe only: give a number, or equal_mass")
        if self.shuffle_labels and (self.normality or self.labels == "masks"):
            known = "normality: true" if self.normality else "labels: masks"
            raise ValueError(f"'shuffle_labels' would be undone by '{known}', which knows the labels: leave one out")
        if self.budget == "steps" and self.epoch_pictures is not None:
            raise ValueError("'epoch_pictures' fixes the steps already: leave out 'budget'")
        if self.class_weights == "equal" and self.sampler == "balanced":
            raise ValueError("'class_weights: equal' is for sampler: shuffle: a balanced sampler balances already")
        if self.head == "lda" and (self.C != "cv" or self.synthetic_weight != 1):
            raise ValueError("head 'lda' counts every image alike and has no C: set synthetic_weight: 1, and no C")
        return self

    @property
    def normals_only(self) -> bool:
        """Whether it uses no defect image, real or synthetic: a reference for those that do."""
        return self.kind in NORMALS_ONLY

    @property
    def is_random(self) -> bool:
        """Whether a seed decides more than which synthetic images a classifier is trained on."""
        return self.kind == "finetune" or self.shuffle_labels

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
        return self._with_digests(self.model_dump(mode="json", exclude=set(UNKEYED), exclude_defaults=True))

    @cached_property
    def feature_fields(self) -> dict[str, Any]:
        """The fields that decide the features of a frozen backbone: non-default values."""
        return self._with_digests(self.model_dump(mode="json", include={*_FEATURES}, exclude_defaults=True))

    def _with_digests(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Replace the names or paths of weights and of a pipeline by digests of their content.

        Raises:
            UserError: there is no such file, or no such pipeline.
        """
        if self.weights == "package":
            fields["weights"] = f"package:sha256:{packaged(self.backbone).sha256}"
        elif self.weights not in ("timm", "scratch"):
            fields["weights"] = weights_digest(self.weights)
        if vae := self.vae():
            vae.find_pipeline()
            fields["roundtrip"] = vae.key_settings().get("bundle", self.roundtrip)
        return fields

    def vae(self) -> Any:
        """Return the augmenter `vae_roundtrip` whose `reconstruct` real images pass; None: they pass none."""
        if not self.roundtrip:
            return None
        return registry.make("augmenters", "vae_roundtrip", {"bundle": self.roundtrip})

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of `key_fields`."""
        return digest(self.key_fields)

    def changed(self, /, **fields: Any) -> Protocol:
        """Return a copy with other values; its name lists them, so that it is not confused with the preset."""
        suffix = "".join(f"+{k}={v}" for k, v in sorted(fields.items()))
        return self.under_name(self.name + suffix, **fields)

    def under_name(self, name: str, /, **fields: Any) -> Protocol:
        """Return a copy with a name and other values. The source of a changed field is replaced."""
        was = {field: getattr(self, field) for field in fields if field in PROTOCOL_NUMBERS}
        sources = self.sources | {field: f"changed; {self.name} has {value}" for field, value in was.items()}
        return make_protocol({**self.model_dump(), "sources": sources, **fields, "name": name})


UNKEYED = ("about", "sources", "superseded_by")
"""The fields of a `Protocol` that are in no key and no record."""

PROSE = ("name", *UNKEYED)
"""The fields of a `Protocol` that influence no number. The name is nevertheless part of keys: tables print it."""

PROTOCOL_NUMBERS = tuple(field for field in Protocol.model_fields if field not in PROSE)
"""The fields of a `Protocol` that influence numbers. Every preset gives a source for each that its kind reads."""

PIXELS = ("width", "height", "crop", "resize_first", "harmonise", "roundtrip")
"""The fields of a `Protocol` that decide the images that a classifier sees."""

_FEATURES = (*PIXELS, "mean", "std", "backbone", "weights", "precision")
_COMMON = ("kind", *_FEATURES, "test_share", "ap", "ap_beside", "holdout", "false_alarm_rate")
_PROBE = ("head", "C", "normality")
NORMALS_ONLY = ("gaussian", "neighbours")
"""The kinds whose score is a distance to the normal training images: they use no defect image."""

READ_BY = {
    "finetune": tuple(field for field in PROTOCOL_NUMBERS if field not in _PROBE),
    "probe": (*_COMMON, "shuffle_labels", "synthetic_weight", *_PROBE),
    **dict.fromkeys(NORMALS_ONLY, _COMMON),
}
"""Kind of protocol -> the fields that it reads; the others keep their defaults."""

_AP = {
    "trapezoidal": "AP is the area under the precision-recall curve by the trapezoidal rule",
    "step": "AP is the sum of precision times the gain in recall (scikit-learn's average_precision_score)",
    "trapezoidal_ties": "as trapezoidal, but images of equal score are spread evenly over one another: a "
    "classifier that gives all images one score has the prevalence as its AP",
}
SWITCHES: dict[str, dict[str, str]] = {
    "kind": {
        "finetune": "the whole backbone is trained, with a new last layer",
        "probe": "the backbone is frozen; a classifier is fitted on its features",
        "gaussian": "the backbone is frozen; the score is the Mahalanobis distance to the features of the normal "
        "training images (Ledoit-Wolf covariance). No defect image is used: only none at zero-shot",
        "neighbours": "the backbone is frozen; the score is the distance to the features of the nearest normal "
        "training image, each feature divided by its standard deviation. No defect image is used: only none at "
        "zero-shot",
    },
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
    "budget": {
        "epochs": "the epochs count: with more synthetic images a sampler may take more optimiser steps",
        "steps": "an epoch has as many samples as one of the real images alone, drawn from all: every N_aug gets the "
        "optimiser steps of the row without synthetic images",
    },
    "class_weights": {
        "none": "in the loss a label counts as often as its images are drawn",
        "equal": "in the loss all labels count equally, whatever N_aug: for sampler shuffle. Probes always have that",
    },
    "batchnorm": {
        "train": "every epoch trains with the statistics of each batch",
        "eval_after_first_epoch": "from the second epoch on the model trains in eval mode, so running statistics are "
        "frozen: this happens if model.train() is called once before the loop and each epoch ends with an evaluation "
        "that calls model.eval()",
    },
    "gradients": {
        "mean": "one forward pass of a batch; its loss is the mean over its images",
        "summed": "one forward pass for each image of a batch; a step takes the sum of their gradients: in effect the "
        "learning rate is multiplied by the batch size, and BatchNorm takes the statistics of one image (mixed-segdec, "
        "memory-fit 1)",
    },
    "labels": {
        "image": "the label of a defect image is 1",
        "masks": "the label of a defect image with a mask is the maximum of its mask, resized as the image and then "
        "average-pooled by 17 x 17 in steps of 8: small defects count less (mixed-segdec). Without a mask it is 1",
    },
    "precision": {
        "fp32": "32-bit floats throughout, also on GPUs that would round the inputs of convolutions to TF32",
        "tf32": "fp32 whose matrix products and convolutions round their inputs to TF32: faster on GPUs of compute "
        "capability 8.0 or newer, refused elsewhere",
        "bf16": "bfloat16 (autocast) in the forward pass of fine-tuning, which evaluates in fp32, or of a frozen "
        "backbone",
    },
    "head": {
        "logistic": "logistic regression",
        "lda": "linear discriminant analysis with a Ledoit-Wolf covariance; it counts every image alike",
        "mlp": "a perceptron with one hidden layer of 64 units",
    },
    "C": {
        "NUMBER": "inverse strength of the L2 penalty of a logistic or mlp head",
        "cv": "0.01 below 20 items with real defects; from there on chosen by grouped cross-validation on real "
        "training images",
    },
    "synthetic_weight": {
        "NUMBER": "how much one synthetic image counts, against a real one with 1; in fine-tuning, in the loss",
        "equal_mass": "all synthetic images together count as much as all real defect images",
        "cv": "by a probe: chosen among values that include 0, by grouped cross-validation on real training images",
    },
    "ap": _AP,
    "ap_beside": _AP,
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
        raise UserError(f"protocol '{brief(fields.get('name', '?'))}': {first_problem(error, Protocol)}") from None


_PRESETS = resources.files("augbench") / "assets" / "protocols"


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Protocol:
    """Load the preset of that name. Raises UserError if it does not exist."""
    names = preset_names()
    if name not in names:
        raise UserError(f"protocol '{name}' does not exist{did_you_mean(name, names)}")
    return _preset(name)


@cache
def _preset(name: str) -> Protocol:
    text = (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    return make_protocol({"name": name, **yaml.safe_load(text)})

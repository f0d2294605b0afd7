"""What a cell of ours has in common with a row that a paper prints, and what not.

Two numbers are laid beside each other in any case. Their difference says something only where data, weights, protocol
and the augmenter's settings are the same; what is not is named, one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from augbench.core import registry
from augbench.core.contracts import GOOD, Augmenter
from augbench.core.errors import UserError
from augbench.core.protocol import PROTOCOL_NUMBERS, Protocol, load_preset, make_protocol
from augbench.diffusion.pipelines import BUNDLES
from augbench.report.papers.printed import About, Reference
from augbench.storage.store import FIX_HINT

TITLES = {"sd15": "Stable Diffusion 1.5", "sdxl-inpaint": "SDXL inpainting 0.1"}
"""The bundles of the papers, in words."""

SAME_NUMBERS = ("threads_per_cell", "eval_batch", "eval_every", "false_alarm_rate", "test_share")
"""Fields of a protocol that decide last digits at most, or nothing on an official split without hold-out."""

SAME_PICTURES = {"ddpm": {"gradient_checkpointing"}, "diag": {"batch"}}
"""Settings that change pictures by rounding at most."""

REGIMES = {0: "zero", "all": "full"}
"""Shots -> the setting of an augmenter that is for this regime; any other number, ``few``."""

AP_WORDS = {"trapezoidal": "trapezoidal", "step": "step-wise"}
NAMED = 3  # differing fields of a protocol that are given with their values


@dataclass(frozen=True)
class Ours:
    """What of a cell's record is compared."""

    data: Mapping[str, Any]
    augmenter: Mapping[str, Any]
    protocol: Protocol
    counts: Mapping[str, int]  # pictures by what they were for


def ours_of(record: Mapping[str, Any], place: str) -> Ours:
    """The part of a record that is compared; ``place`` names its file in errors.

    Raises:
        UserError: the record lacks something, or holds what cannot be read.
    """
    try:
        spec, counts = record["spec"], record["result"].get("counts", {})
        return Ours(spec["data"], spec["augmenter"], make_protocol(spec["protocol"]), counts)
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def differences(row: Reference, about: About, ours: Ours) -> Iterator[tuple[int, str]]:
    """What does not match, in words, each with the place of the check that found it."""
    for place, check in enumerate(CHECKS):
        yield from ((place, text) for text in check(row, about, ours))


def _dataset(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    data = ours.data
    if data["name"] != row.dataset:
        yield f"dataset is {data['name']}, theirs is {row.dataset}"
        return
    for name, value in sorted(data["settings"].items()):
        yield f"dataset {row.dataset}: {name} is {value}, theirs is the official archive as it is"
    if data["fold"] is not None:
        yield "the split is one of folds, theirs is the official one"
    else:
        yield from _counts(row, ours.counts)


def _counts(row: Reference, found: Mapping[str, int]) -> Iterator[str]:
    """A folder may have a dataset's name and other pictures in it."""
    official = registry.get("datasets", row.dataset).official_counts
    defects = next(
        (what.removeprefix("test ") for what in official if what.startswith("test ") and what != f"test {GOOD}"), ""
    )
    if not defects:
        return
    shots = official[f"train {defects}"] if row.shots == "all" else row.shots
    wanted = {
        "test_negatives": (official[f"test {GOOD}"], f"{GOOD} test pictures"),
        "test_positives": (official[f"test {defects}"], "defective test pictures"),
        "train_negatives": (official[f"train {GOOD}"], f"{GOOD} training pictures"),
        "shots": (shots, "real defects in training"),
    }
    for name, (number, what) in wanted.items():
        if name not in found:
            yield f"the number of {what} is not on record, theirs is {number}"
        elif found[name] != number:
            yield f"{found[name]} {what}, theirs {number}"


def _bundle(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    if _foreign(row, ours):
        return
    for name, settings in _made_by(ours):
        theirs = about.bundles.get(name)
        if theirs and settings["bundle"] != theirs:
            bundle = str(settings["bundle"])
            what = bundle if bundle in BUNDLES else f"'{Path(bundle).name}', a local folder or file"
            yield f"bundle is {what}, theirs is {TITLES[theirs]}"


def _foreign(row: Reference, ours: Ours) -> str:
    """Why it is not the augmenter of the row at all, whatever its settings; else ""."""
    given = ours.augmenter
    if given["name"] != row.augmenter:
        return f"{given['alias']} is augmenter {given['name']} under another name, theirs is {row.augmenter}"
    if "plugin" in given["key_settings"]:
        return f"{row.augmenter} comes from a plug-in, not from this package"
    return ""


def _augmenter(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    foreign = _foreign(row, ours)
    if foreign:
        yield foreign
        return
    texts = [text for name, settings in _made_by(ours) for text in _settings(name, settings, row, about)]
    yield from texts
    if not texts and not any(_bundle(row, about, ours)):
        yield from _content(row.augmenter, ours.augmenter["key_settings"])


def _settings(name: str, settings: Mapping[str, Any], row: Reference, about: About) -> Iterator[str]:
    """Settings of this regime that are not as the paper has them, which the defaults are; bundles apart."""
    other = {"zero", "few", "full"} - {REGIMES.get(row.shots, "few")}
    defaults = _defaults(name)
    for field in sorted(settings.keys() - other - SAME_PICTURES.get(name, set()) - {"bundle"}):
        value, theirs = settings[field], defaults[field]
        if value != theirs and not isinstance(theirs, dict):
            yield f"{name}: {field} is {_short(value)}, {_theirs(name, about)} {_short(theirs)}"
        elif value != theirs:
            yield from (
                f"{name}: {field}.{key} is {_short(value[key])}, {_theirs(name, about)} {_short(theirs.get(key))}"
                for key in value
                if value[key] != theirs.get(key)
            )


def _theirs(name: str, about: About) -> str:
    return "theirs is not stated; by default it is" if name in about.not_stated else "theirs is"


def _short(value: Any) -> str:
    """A setting in words; of a path its last part."""
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return f"'{Path(value).name}'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_short(one) for one in value)}]"
    return "none" if value is None else str(value)


def _content(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Files behind settings may be other ones under the same name: prompts that a person has edited."""
    made = _plugin(name)
    if made.parts():
        return  # those of the papers have no such files
    known = made.key_settings()
    for field in sorted(known.keys() & given.keys()):
        if given[field] != known[field] and isinstance(known[field], dict):
            yield f"{name}: {field} are not those of the paper"


def _made_by(ours: Ours) -> list[tuple[str, dict[str, Any]]]:
    """The augmenters that make a cell's pictures, each with all its settings: itself, and its parts in a mixture."""
    made = registry.make("augmenters", ours.augmenter["name"], dict(ours.augmenter["settings"]))
    parts = {part.augmenter: registry.make("augmenters", part.augmenter, part.settings) for part in made.parts()}
    own = made.config.model_dump(mode="json", exclude=set(parts))  # what it sets for its parts stands with them
    return [
        (ours.augmenter["name"], own),
        *((name, part.config.model_dump(mode="json")) for name, part in parts.items()),
    ]


def _defaults(name: str) -> dict[str, Any]:
    return _plugin(name).config.model_dump(mode="json")


@cache
def _plugin(name: str) -> Augmenter:
    return registry.make("augmenters", name, {})


def _protocol(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    theirs, given = _preset(row.protocol), ours.protocol
    apart = [
        field for field in PROTOCOL_NUMBERS if field not in SAME_NUMBERS and not _same(field, given, theirs, about)
    ]
    if given.ap != row.ap_definition:
        yield f"AP is {AP_WORDS[given.ap]}, theirs is {AP_WORDS[row.ap_definition]}"
    if {"backbone", "weights"} & set(apart):
        yield f"classifier is {_classifier(given)}, theirs is {_classifier(theirs)}"
    fields = [field for field in apart if field not in ("ap", "backbone", "weights")]
    if not fields:
        return
    named = [f"{field} {_short(getattr(given, field))} ({_short(getattr(theirs, field))})" for field in fields]
    which = f"protocol is {given.name}, theirs is {theirs.name}"
    yield f"{which}, with another {', '.join(named if len(fields) <= NAMED else fields)}"


def _same(field: str, given: Protocol, theirs: Protocol, about: About) -> bool:
    if field == "backbone":
        return given.backbone in (*about.backbones, theirs.backbone)
    return getattr(given, field) == getattr(theirs, field)


def _classifier(protocol: Protocol) -> str:
    weights = {"timm": "pretrained", "scratch": "from a random start"}.get(protocol.weights, "from a local file")
    known = "ImageNet weights" if protocol.backbone.startswith("resnet50") and weights == "pretrained" else weights
    return f"{protocol.backbone} ({known})"


@cache
def _preset(name: str) -> Protocol:
    return load_preset(name)


CHECKS: tuple[Callable[[Reference, About, Ours], Iterator[str]], ...] = (_dataset, _bundle, _augmenter, _protocol)
"""In the order in which what they find is listed."""

"""Mismatches between one of our cells and a row of a paper.

The difference of two numbers is meaningful only where data, weights, protocol and the augmenter's settings are the
same. Theirs are the facts in the paper's YAML file, not our defaults. Everything that differs is named, one line each,
and how theirs is known; a setting of which nothing is known is compared with its default here.
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
from augbench.core.protocol import READ_BY, Protocol, load_preset, make_protocol
from augbench.diffusion.pipelines import BUNDLES
from augbench.report.papers.printed import About, Fact, Reference, load_paper, paper_names
from augbench.report.tables import AP_NAMES
from augbench.storage.store import FIX_HINT

TITLES = {"sd15": "Stable Diffusion 1.5", "sdxl-inpaint": "SDXL inpainting 0.1"}
"""Display names of the papers' pipelines."""

SAME_NUMBERS = ("threads_per_cell", "eval_batch", "eval_every", "false_alarm_rate", "test_share")
"""Protocol fields that change results by rounding at most, or not at all on an official split without hold-out."""

SAME_IMAGES = {"ddpm": {"gradient_checkpointing"}, "diag": {"batch"}}
"""Augmenter settings that change images by rounding at most."""

PIPELINE = "bundle"
"""The setting that names the pipeline."""

REGIMES = {0: "zero", "all": "full"}
"""Shots -> name of the augmenter's settings for this regime; any other number: ``few``."""

NAMED = 3  # up to so many differing protocol fields are listed with their values


@dataclass(frozen=True)
class Ours:
    """The part of a cell's record that is compared."""

    data: Mapping[str, Any]
    augmenter: Mapping[str, Any]
    protocol: Protocol
    counts: Mapping[str, int]  # number of images by use


def ours_of(record: Mapping[str, Any], place: str) -> Ours:
    """Extract the part of a record that is compared; ``place`` names its file in errors.

    Raises:
        UserError: the record lacks a field, or a field is invalid.
    """
    try:
        spec, counts = record["spec"], record["result"].get("counts", {})
        return Ours(spec["data"], spec["augmenter"], make_protocol(spec["protocol"]), counts)
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"record '{place}' is damaged ({type(error).__name__}: {error}): {FIX_HINT}") from None


def differences(row: Reference, about: About, ours: Ours) -> Iterator[tuple[int, str]]:
    """Yield mismatches, each as (index of the check that found it, text)."""
    if row.source_paper in paper_names():  # the settings are those of the paper that measured it
        about = load_paper(row.source_paper).about
    for index, check in enumerate(CHECKS):
        yield from ((index, text) for text in check(row, about, ours))


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
    """Compare image counts, since a folder of the dataset's name may hold other images."""
    official = registry.get("datasets", row.dataset).official_counts
    kinds = [what.removeprefix("test ") for what in official if what.startswith("test ")]
    defects = next((kind for kind in kinds if kind != GOOD), None)
    if not defects:
        return
    shots = official[f"train {defects}"] if row.shots == "all" else row.shots
    wanted = {
        "test_negatives": (official[f"test {GOOD}"], "normal test images"),
        "test_positives": (official[f"test {defects}"], "defect test images"),
        "train_negatives": (official[f"train {GOOD}"], "normal training images"),
        "shots": (shots, "real defects in training"),
    }
    for name, (number, what) in wanted.items():
        if name not in found:
            yield f"the number of {what} is not on record, theirs is {number}"
        elif found[name] != number:
            yield f"{found[name]} {what}, theirs {number}"


def _pipeline(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    for name, settings in [] if _foreign(row, ours) else _made_by(ours):
        theirs = about.settings.get(name, {}).get(PIPELINE)
        if theirs and not theirs.allows(settings[PIPELINE]):
            source = str(settings[PIPELINE])
            what = source if source in BUNDLES else f"'{Path(source).name}', a local folder or file"
            yield f"pipeline is {what}, theirs is {TITLES[theirs.value]} ({theirs.known})"


def _foreign(row: Reference, ours: Ours) -> str:
    """Explain why it is not the augmenter of the row, whatever its settings; "" where it is."""
    given = ours.augmenter
    if given["name"] != row.augmenter:
        return f"{given['alias']} is augmenter {given['name']} under another name, theirs is {row.augmenter}"
    if "filters" in given:
        return f"images of {given['alias']} are filtered, theirs are not"
    if "plugin" in given["key_settings"]:
        return f"{row.augmenter} comes from a plug-in, not from this package"
    return ""


def _augmenter(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    if foreign := _foreign(row, ours):
        yield foreign
        return
    texts = [text for name, settings in _made_by(ours) for text in _settings(name, settings, row, about)]
    yield from texts
    if not texts and not any(_pipeline(row, about, ours)):
        yield from _content(row.augmenter, ours.augmenter["key_settings"])


def _settings(name: str, settings: Mapping[str, Any], row: Reference, about: About) -> Iterator[str]:
    """Yield settings of this regime, except the pipeline, that differ from the paper's."""
    other = {"zero", "few", "full"} - {REGIMES.get(row.shots, "few")}
    facts, defaults = about.settings.get(name, {}), _flat(_plugin(name).config.model_dump(mode="json"))
    own = _flat({field: value for field, value in settings.items() if field not in other})
    for field in sorted(own.keys() - SAME_IMAGES.get(name, set()) - {PIPELINE}):
        fact = facts.get(field)
        if fact and not fact.allows(own[field]):
            yield f"{name}: {field} is {_short(own[field])}, theirs is {_short(fact.value)} ({fact.known})"
        elif not fact and own[field] != defaults.get(field):
            default = _short(defaults.get(field))
            yield f"{name}: {field} is {_short(own[field])}, theirs is not stated; by default it is {default}"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with those of a regime as ``few.epochs``."""
    found = {}
    for field, value in settings.items():
        if isinstance(value, dict):
            found |= {f"{field}.{key}": inner for key, inner in value.items()}
        else:
            found[field] = value
    return found


def _short(value: Any) -> str:
    """Format a setting; of a path only its last part."""
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return f"'{Path(value).name}'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_short(one) for one in value)}]"
    return "none" if value is None else str(value)


def _content(name: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Compare the content of files that settings refer to, since prompt files may have been edited."""
    made = _plugin(name)
    if made.parts():
        return  # the papers' mixtures have no such files
    known = made.key_settings()
    for field in sorted(known.keys() & given.keys()):
        if given[field] != known[field] and isinstance(known[field], dict):
            yield f"{name}: {field} are not those of the paper"


def _made_by(ours: Ours) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, settings) of the augmenters behind a cell: the augmenter itself and, in a mixture, its parts."""
    made_by = ours.augmenter["name"]
    made = registry.make("augmenters", made_by, dict(ours.augmenter["settings"]))
    parts = {part.augmenter: registry.make("augmenters", part.augmenter, part.settings) for part in made.parts()}
    own = made.config.model_dump(mode="json", exclude=set(parts))  # settings of parts are compared with the parts
    return [(made_by, own), *((name, part.config.model_dump(mode="json")) for name, part in parts.items())]


@cache
def _plugin(name: str) -> Augmenter:
    return registry.make("augmenters", name, {})


_preset = cache(load_preset)


def _protocol(row: Reference, about: About, ours: Ours) -> Iterator[str]:
    theirs, given = _preset(row.protocol), ours.protocol
    if given.kind != theirs.kind:
        yield f"protocol is {given.name} on a frozen backbone, theirs is {theirs.name}, which trains all of it"
    values = given.model_dump(mode="json")
    differing = {
        field: fact
        for field, fact in _training(about, theirs).items()
        if field in READ_BY[given.kind]
        and not (fact.allows(values[field]) if fact else getattr(given, field) == getattr(theirs, field))
    }
    if given.ap != row.ap_definition:
        yield f"AP is {AP_NAMES[given.ap]}, theirs is {AP_NAMES[row.ap_definition]}"
    if fact := differing.get("backbone") or differing.get("weights"):
        yield f"classifier is {_classifier(given)}, theirs is {_classifier(theirs)} ({fact.known})"
    fields = [field for field in differing if field not in ("ap", "backbone", "weights")]
    if not fields:
        return
    named = [f"{field} {_short(values[field])} ({_their_value(differing[field], theirs, field)})" for field in fields]
    which = f"protocol is {given.name}, theirs is {theirs.name}"
    yield f"{which}, with another {', '.join(named if len(fields) <= NAMED else fields)}"


def _training(about: About, theirs: Protocol) -> dict[str, Fact | None]:
    """Return the fields that their protocol reads and that change numbers, with what is known of each."""
    unread = (*SAME_NUMBERS, "kind", "ap_beside")
    return {field: about.training.get(field) for field in READ_BY[theirs.kind] if field not in unread}


def _their_value(fact: Fact | None, theirs: Protocol, field: str) -> str:
    if fact:
        return f"{_short(fact.value)}, {fact.known}"
    return f"not stated; in {theirs.name} {_short(getattr(theirs, field))}"


def _classifier(protocol: Protocol) -> str:
    names = {"timm": "pretrained", "package": "ImageNet weights", "scratch": "randomly initialised"}
    weights = names.get(protocol.weights, "from a local file")
    known = "ImageNet weights" if protocol.backbone.startswith("resnet50") and weights == "pretrained" else weights
    return f"{protocol.backbone} ({known})"


CHECKS: tuple[Callable[[Reference, About, Ours], Iterator[str]], ...] = (_dataset, _pipeline, _augmenter, _protocol)
"""The checks, in the order in which their mismatches are listed."""

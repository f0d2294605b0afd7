"""A review: what a person decided about prompts, regions and images, as a directory that is saved as it happens.

``decisions.jsonl`` is the truth: each event is appended and flushed to disk before anything else changes. All else
follows from it and is put right when the review is opened::

    review.yaml      what is reviewed: dataset, fold, augmenter
    decisions.jsonl  every event: images made, decisions, prompts, masks, real images seen
    queue/           images that wait for a decision: images/, masks/
    accepted/        the same with metadata.jsonl: a folder of images as pools are
    rejected/        the same, of rejected and revised images
    prompts.yaml     the prompts that were kept, for diag: {prompts: ...}
    masks/           the regions that were kept, for diag: {masks: drawn, mask_folder: ...}
    seen.txt         ids of the real images that were looked at, or that images came from

One process writes a review at a time; its threads may share a `Review`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import yaml
from PIL import Image

from augbench.core.documents import parse_yaml
from augbench.core.errors import UserError, brief
from augbench.core.images import decode_grey, decode_rgb, read_bytes
from augbench.core.reviews import ACCEPTED, LOG, METADATA, REJECTED, SEEN
from augbench.storage.files import made_folder, write_atomic
from augbench.storage.store import json_lines

Decision = Literal["accept", "reject", "revise"]
State = Literal["queue", "accepted", "rejected"]

QUEUE = "queue"
STATES: tuple[State, ...] = ("queue", "accepted", "rejected")
STATE_OF: Mapping[str, State] = {"accept": "accepted", "reject": "rejected", "revise": "rejected"}
REASONS = (
    "no visible defect",
    "not plausible",
    "wrong place or size",
    "edge of the region shows",
    "other",
)
"""Why an image is rejected or revised: "" is also allowed."""
FACTS, PROMPTS, MASKS, LOCK = "review.yaml", "prompts.yaml", "masks", ".lock"
_ID = re.compile(r"[0-9]{6}")
_MASK = re.compile(r"[0-9]{4}\.png")
_NOTE = "# Written by augbench studio from decisions.jsonl; changes by hand are lost.\n"


class Conflict(UserError):
    """Someone else has decided meanwhile."""


@dataclass
class Item:
    """An image of a review."""

    id: str  # six digits
    made: dict[str, Any]  # the event of its making: source, prompt, seed, settings, label, digests, ...
    decision: str = ""  # "": not yet decided
    reason: str = ""
    line: int = 0  # of `LOG`, for messages

    @property
    def state(self) -> State:
        """The folder that it is in."""
        return STATE_OF.get(self.decision, "queue")

    @property
    def catch(self) -> str:
        """What a catch trial hides: "defect", a real one, or "normal"; "": it is a synthetic image."""
        return str(self.made.get("catch", ""))


@dataclass
class Prompts:
    """How a prompt did."""

    prompt: str
    images: int = 0
    accepted: int = 0
    rejected: int = 0
    kept: bool = False

    @property
    def rate(self) -> float | None:
        """The share of decided images that were accepted; None without any."""
        decided = self.accepted + self.rejected
        return self.accepted / decided if decided else None


@dataclass
class _Log:
    """What the events say."""

    items: dict[str, Item] = field(default_factory=dict)
    order: list[tuple[str, str, str]] = field(default_factory=list)  # decisions to undo: image, decision, reason before
    kept_prompts: dict[str, bool] = field(default_factory=dict)  # what the person said, by prompt
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)  # those that are kept
    dropped: set[str] = field(default_factory=set)  # masks that were taken out
    mask_number: int = 0  # of the last one
    seen: dict[str, dict[str, None]] = field(default_factory=lambda: {"normal": {}, "defects": {}, "learned": {}})
    catches: int = 0  # number of catch trials
    kids: list[dict[str, Any]] = field(default_factory=list)

    def check(self, event: Mapping[str, Any]) -> None:
        """Raise KeyError, TypeError or ValueError where an event cannot be true."""
        kind = event["event"]
        if kind == "made":
            if not _ID.fullmatch(event["image"]) or event["image"] in self.items:
                raise ValueError(f"image '{event['image']}' cannot be made")
        elif kind == "decide":
            if event["decision"] not in STATE_OF:
                raise ValueError(f"'{event['decision']}' is no decision")
            if event["image"] not in self.items:
                raise KeyError(event["image"])
        elif kind == "undo":
            if not self.order or self.order[-1][0] != event["image"]:
                raise ValueError("that was not the last decision")
        elif kind == "mask":
            if not _MASK.fullmatch(event["mask"]):
                raise ValueError(f"'{event['mask']}' is no mask")
        elif kind not in ("prompt", "seen", "kid"):
            raise ValueError(f"'{brief(kind)}' is no event")

    def apply(self, event: Mapping[str, Any], line: int) -> None:
        """Apply an event. Raises as `check`."""
        self.check(event)
        kind = event["event"]
        if kind == "made":
            name = event["image"]
            self.items[name] = Item(name, {k: v for k, v in event.items() if k not in ("event", "image")}, line=line)
            self.catches += bool(event.get("catch"))
        elif kind == "decide":
            item = self.items[event["image"]]
            self.order.append((item.id, item.decision, item.reason))
            item.decision, item.reason = event["decision"], str(event.get("reason", ""))
        elif kind == "undo":
            name, decision, reason = self.order.pop()
            self.items[name].decision, self.items[name].reason = decision, reason
        elif kind == "prompt":
            self.kept_prompts[str(event["prompt"])] = bool(event["kept"])
        elif kind == "mask":
            self.masks.pop(event["mask"], None)
            self.dropped.add(event["mask"])
            if event["kept"]:
                self.mask_number = max(self.mask_number, int(event["mask"][:4]))
                self.dropped.discard(event["mask"])
                self.masks[event["mask"]] = {key: event.get(key, "") for key in ("origin", "of")}
        elif kind == "seen":
            self.seen[event["kind"]].update(dict.fromkeys(map(str, event["ids"])))
        elif kind == "kid":
            self.kids.append(dict(event))


class Review:
    """A review that is open; `close` it, or use it in a ``with`` statement. All methods may be called by any thread."""

    def __init__(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Open a review; create it where there is none.

        Args:
            folder: its directory.
            facts: what is reviewed, JSON values; kept in ``review.yaml``. None: of any review that exists.

        Raises:
            UserError: it is of something else, open in another process, not a review, or has links to elsewhere.
            StoreError: it cannot be written.
        """
        self.folder = Path(folder).expanduser()
        self.problems: list[str] = []
        self._lock = threading.RLock()
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"review '{folder}' is a file: give a folder")
        is_new = not (self.folder / LOG).exists()
        if is_new and facts is None:
            raise UserError(f"'{folder}' is no review, as it has no {LOG}: make one with augbench studio")
        if is_new and self.folder.is_dir() and any(one.name != LOCK for one in self.folder.iterdir()):
            raise UserError(f"review '{folder}': the folder holds other files: give an empty or a new one")
        made_folder(self.folder)
        self._refuse_links()
        self._held = _hold(self.folder / LOCK)
        try:
            if is_new:
                write_atomic(self.folder / FACTS, _yaml_bytes(dict(facts or {})))
                write_atomic(self.folder / LOG, b"")
            self.facts = self._read_facts()
            self._refuse_others(facts)
            self._log, self._ends_whole = self._replayed()
            self._put_right()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes open it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # -- what happens

    def add(
        self, image: np.ndarray, mask: np.ndarray | None, label: str, about: Mapping[str, Any], catch: str = ""
    ) -> str:
        """Add an image to the queue.

        Args:
            image: H,W,3 uint8.
            mask: H,W bool: the defect; None: unknown.
            label: its class.
            about: JSON values: source, prompt, negative_prompt, seed, settings, region, pool, index, seconds, ...
            catch: "defect" or "normal" where it is a real image, see `augbench.studio.catch`.

        Returns:
            Its id.
        """
        with self._lock:
            name = f"{max(map(int, self._log.items), default=-1) + 1:06d}"
            while (self._path(QUEUE, name)).exists():  # of an event that is damaged
                name = f"{int(name) + 1:06d}"
            event: dict[str, Any] = {"event": "made", "image": name, "label": label, **about}
            if catch:
                event["catch"] = catch
            event |= {"height": image.shape[0], "width": image.shape[1]}
            event["sha256"] = self._write_png(self._path(QUEUE, name), image)
            if mask is not None:
                event["mask_sha256"] = self._write_png(self._path(QUEUE, name, "masks"), np.uint8(255) * mask)
            self._append(event)
            return name

    def decide(self, name: str, decision: Decision, reason: str = "", expected: str | None = None) -> Item:
        """Decide about an image, or change that.

        Args:
            name: its id.
            decision: accept; reject; or revise, which rejects it and says that a better one is to be made.
            reason: one of `REASONS`, or "".
            expected: the decision that the person saw, "" for none; None: whatever it is.

        Raises:
            Conflict: another decision was made meanwhile.
            UserError: no such image, decision or reason.
        """
        with self._lock:
            item = self.item(name)
            if decision not in STATE_OF:
                raise UserError(f"decision '{brief(decision)}': accept, reject or revise")
            if reason and reason not in REASONS:
                raise UserError(f"reason '{brief(reason)}' is not in the list: {', '.join(REASONS)}")
            if expected is not None and expected != item.decision:
                raise Conflict(f"image {name} was decided meanwhile: {item.decision or 'undone'}")
            before = item.state
            self._append({"event": "decide", "image": name, "decision": decision, "reason": reason})
            self._moved(item, before)
            return item

    def undo(self) -> Item | None:
        """Undo the last decision that still counts; return its image, None where there is none."""
        with self._lock:
            if not self._log.order:
                return None
            item = self._log.items[self._log.order[-1][0]]
            before = item.state
            self._append({"event": "undo", "image": item.id})
            self._moved(item, before)
            return item

    def saw(self, kind: Literal["normal", "defects", "learned"], ids: Iterable[str]) -> None:
        """Log real images that the person looked at, or that a generator learned from; each once.

        Raises:
            UserError: an id with a line break, which no list of ids can hold.
        """
        with self._lock:
            new = [name for name in dict.fromkeys(ids) if name not in self._log.seen[kind]]
            if broken := next((name for name in new if len(name.splitlines()) != 1), None):
                raise UserError(f"sample {brief(repr(broken))}: its id has a line break: rename the file")
            if new:
                self._append({"event": "seen", "kind": kind, "ids": new})
                self._write_seen()
                self._write_prompts()

    def keep_prompt(self, prompt: str, kept: bool = True) -> None:
        """Say whether a prompt is in ``prompts.yaml``; without a word, one with an accepted image is."""
        if not (prompt := prompt.strip()):
            raise UserError("the prompt is empty: write what the defect looks like")
        with self._lock:
            self._append({"event": "prompt", "prompt": prompt, "kept": kept})
            self._write_prompts()

    def keep_mask(self, mask: np.ndarray, origin: Literal["drawn", "procedural"], of: str = "") -> str:
        """Keep a region in ``masks/``, H,W bool; one that is there already is not written twice.

        Masks of real defects are not kept: a strict zero-shot has none.

        Args:
            mask: H,W bool.
            origin: a person drew it, or rules did.
            of: the kind of a procedural one.

        Returns:
            Its file name.

        Raises:
            UserError: it is empty.
        """
        if not mask.any():
            raise UserError("the region is empty: draw where the defect is to be")
        with self._lock:
            data = _png(np.uint8(255) * mask)
            sha256 = hashlib.sha256(data).hexdigest()
            for name in self._log.masks:
                if hashlib.sha256(self.read_file(self.folder / MASKS / name)).hexdigest() == sha256:
                    return name
            name = f"{self._log.mask_number + 1:04d}.png"
            while (self.folder / MASKS / name).exists():  # put there by hand
                name = f"{int(name[:4]) + 1:04d}.png"
            write_atomic(self.folder / MASKS / name, data)
            self._append({"event": "mask", "mask": name, "kept": True, "origin": origin, "of": of})
            return name

    def drop_mask(self, name: str) -> None:
        """Take a region out of ``masks/``. Raises UserError if it is not there."""
        with self._lock:
            if name not in self._log.masks:
                raise UserError(f"mask '{brief(name)}' is not in the review")
            self._append({"event": "mask", "mask": name, "kept": False})
            (self.folder / MASKS / name).unlink(missing_ok=True)

    def measured(self, kid: Mapping[str, Any]) -> None:
        """Log that the person was told a distance to real defects."""
        with self._lock:
            self._append({"event": "kid", **kid})
            self._write_prompts()

    # -- what there is

    def item(self, name: str) -> Item:
        """Return an image by its id. Raises UserError if there is none."""
        with self._lock:
            if name not in self._log.items:
                raise UserError(f"image '{brief(name)}' is not in the review")
            return self._log.items[name]

    def items(self, state: str = "", prompt: str = "") -> list[Item]:
        """Return the images in order, of one state and one prompt if these are given."""
        with self._lock:
            return [
                item
                for item in self._log.items.values()
                if state in ("", item.state) and prompt in ("", item.made.get("prompt"))
            ]

    def next(self, after: str = "", prompt: str = "") -> Item | None:
        """Return the next image that waits for a decision, from ``after`` on and then from the start; None: no more."""
        waiting = self.items(QUEUE, prompt)
        return next((item for item in waiting if item.id > after), waiting[0] if waiting else None)

    def image(self, name: str) -> np.ndarray:
        """Read an image: H,W,3 uint8."""
        return decode_rgb(*self.content(name))

    def mask(self, name: str) -> np.ndarray | None:
        """Read the mask of an image: H,W bool; None if it has none."""
        if "mask_sha256" not in self.item(name).made:
            return None
        return decode_grey(*self.content(name, "masks")) > 0

    def kept_masks(self) -> dict[str, dict[str, Any]]:
        """Return the regions in ``masks/`` by file name, with their origin."""
        with self._lock:
            return dict(self._log.masks)

    def seen(self, kind: Literal["normal", "defects", "learned"]) -> list[str]:
        """Return the real images that were seen, or learned from, in order."""
        with self._lock:
            return list(self._log.seen[kind])

    def last_kid(self) -> dict[str, Any] | None:
        """Return the last distance to real defects that the person was told; None: none."""
        return self._log.kids[-1] if self._log.kids else None

    def has_catches(self) -> bool:
        """Whether there are catch trials."""
        return self._log.catches > 0

    def can_undo(self) -> bool:
        """Whether a decision can be undone."""
        return bool(self._log.order)

    def counts(self) -> dict[str, int]:
        """Count the images by state, without catch trials; those in the queue with them, as the person sees them."""
        found = Counter(item.state for item in self.items() if item.state == QUEUE or not item.catch)
        return {state: found[state] for state in STATES}

    def prompts(self) -> list[Prompts]:
        """Return how each prompt did, in the order of first use."""
        with self._lock:
            found = {prompt: Prompts(prompt) for prompt in self._log.kept_prompts}
            for item in self._log.items.values():
                if item.catch or not (prompt := item.made.get("prompt")):
                    continue
                one = found.setdefault(prompt, Prompts(prompt))
                one.images += 1
                one.accepted += item.state == ACCEPTED
                one.rejected += item.state == REJECTED
            for one in found.values():
                one.kept = self._log.kept_prompts.get(one.prompt, one.accepted > 0)
            return list(found.values())

    def regions(self) -> list[dict[str, Any]]:
        """Count images, accepted and rejected ones by the origin of their region."""
        found: dict[str, dict[str, Any]] = {}
        for item in self.items():
            if not item.catch and (region := item.made.get("region")):
                one = found.setdefault(region, {"region": region, "images": 0, "accepted": 0, "rejected": 0})
                one["images"] += 1
                one["accepted"] += item.state == ACCEPTED
                one["rejected"] += item.state == REJECTED
        return list(found.values())

    def reasons(self) -> dict[str, int]:
        """Count why images were rejected or revised."""
        return dict(Counter(one.reason for one in self.items(REJECTED) if one.reason and not one.catch).most_common())

    def chosen_by(self) -> str:
        """Say what the prompts were chosen by looking at, for the line about what images were made from."""
        counts, log = self.counts(), self._log
        decided = counts[ACCEPTED] + counts[REJECTED]
        looked = [f"{decided:,} synthetic images ({counts[ACCEPTED]:,} accepted)"]
        looked += [f"{len(log.seen['normal']):,} normal training images"] if log.seen["normal"] else []
        looked += [f"{len(log.seen['defects']):,} real training defects"] if log.seen["defects"] else []
        looked += [f"KID against {log.kids[-1]['real']:,} real training defects"] if log.kids else []
        return f"{', '.join(looked)}; by a person in augbench studio"

    # -- files

    def content(self, name: str, kind: Literal["images", "masks"] = "images") -> tuple[bytes, str]:
        """Return the PNG of an image or of its mask, and where it lies."""
        with self._lock:
            path = self._path(self._place(self.item(name)), name, kind)
            return self.read_file(path), str(path)

    def read_file(self, path: Path) -> bytes:
        """Read a file of the review. Raises UserError if it is missing, or a link."""
        if path.is_symlink():
            raise UserError(f"'{path}' is a link: a review holds files only")
        return read_bytes(path)

    def _path(self, state: str, name: str, kind: str = "images") -> Path:
        return self.folder / state / kind / f"{name}.png"

    def _write_png(self, path: Path, array: np.ndarray) -> str:
        data = _png(array)
        write_atomic(path, data)
        return hashlib.sha256(data).hexdigest()

    def _append(self, event: dict[str, Any]) -> None:
        """Append an event that can be true and flush it to disk, then apply it."""
        self._log.check(event)
        data = json_lines([{**event, "time": datetime.now(UTC).isoformat(timespec="seconds")}])
        try:
            with (self.folder / LOG).open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(data := data if self._ends_whole else b"\n" + data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise UserError(
                f"'{self.folder / LOG}' cannot be written ({error.strerror}): free space; the last step was not saved"
            ) from None
        self._ends_whole = True
        self._log.apply(event, 0)

    def _moved(self, item: Item, before: State) -> None:
        """Move the files of an image to the folder of its state, and write what follows from that."""
        self._move(item)
        if not item.catch:
            for state in {before, item.state} - {QUEUE}:
                self._write_metadata(state)
            self._write_prompts()

    def _move(self, item: Item) -> bool:
        """Move the files of an image to its state's folder, wherever they are; False if its image is missing."""
        for kind in ("images", "masks") if "mask_sha256" in item.made else ("images",):
            target = self._path(self._place(item), item.id, kind)
            for state in (*STATES, "catch"):
                source = self._path(state, item.id, kind)
                if source != target and source.exists() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.replace(target)
            if not target.exists():
                return False
        return True

    def _place(self, item: Item) -> str:
        """Return the folder of an image: catch trials never lie among accepted images."""
        return "catch" if item.catch and item.state != QUEUE else item.state

    def _write_metadata(self, state: State) -> None:
        lines = [_metadata(item) for item in self.items(state) if not item.catch]
        write_atomic(self.folder / state / METADATA, json_lines(lines))

    def _write_prompts(self) -> None:
        """Write the prompts that are kept, with the negative prompt of the last accepted image; none: no file."""
        kept = [one.prompt for one in self.prompts() if one.kept]
        if not kept:
            (self.folder / PROMPTS).unlink(missing_ok=True)
            return
        of = [item for item in self.items(ACCEPTED) if not item.catch] or self.items()
        negative = of[-1].made.get("negative_prompt", "") if of else ""
        content = {"about": "Prompts that a person kept.", "source": "augbench studio", "chosen_by": self.chosen_by()}
        content |= {"prompts": kept, "negative_prompt": negative}
        write_atomic(self.folder / PROMPTS, _NOTE.encode() + _yaml_bytes(content))

    def _write_seen(self) -> None:
        ids = dict.fromkeys(name for kind in self._log.seen.values() for name in kind)
        write_atomic(self.folder / SEEN, "".join(f"{name}\n" for name in ids).encode())

    # -- opening

    def _refuse_links(self) -> None:
        names = (FACTS, LOG, PROMPTS, SEEN, MASKS, "catch", LOCK, *STATES)
        below = (f"{state}/{kind}" for state in (*STATES, "catch") for kind in ("images", "masks", METADATA))
        for name in (*names, *below):
            if (self.folder / name).is_symlink():
                raise UserError(f"review '{self.folder}': '{name}' is a link: a review holds files and folders only")

    def _read_facts(self) -> dict[str, Any]:
        path = self.folder / FACTS
        try:
            found = parse_yaml(path.read_text(encoding="utf-8"), f"'{path}'").value
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"'{path}' cannot be read ({error}): restore it") from None
        if not isinstance(found, dict):
            raise UserError(f"'{path}' does not say what is reviewed: restore it")
        return found

    def _refuse_others(self, facts: Mapping[str, Any] | None) -> None:
        """Refuse other data than those that the review began with: their images and ids do not belong together."""
        for key in ("dataset", "settings", "fold") if facts else ():
            if self.facts.get(key) != facts.get(key):
                own, other = (brief(json.dumps(one.get(key))) for one in (self.facts, facts))
                raise UserError(f"review '{self.folder}' is of {key} {own}, not {other}: give another --review")

    def _replayed(self) -> tuple[_Log, bool]:
        """Read the events; name damaged lines and go on. Also return whether the last line is whole."""
        log, data = _Log(), self.read_file(self.folder / LOG)
        for number, raw in enumerate(data.split(b"\n"), start=1):
            if not raw.strip():
                continue
            try:
                log.apply(json.loads(raw), number)
            except KeyError as error:
                self._problem(f"{LOG} line {number}: nothing is known of {error}: left out")
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                self._problem(f"{LOG} line {number}: {brief(error)}: left out")
        return log, not data or data.endswith(b"\n")

    def _put_right(self) -> None:
        """Put files where the events say: a process may have been killed between the two."""
        for state in ("images", "masks"):
            made_folder(self.folder / QUEUE / state)
        for item in list(self._log.items.values()):
            if not self._move(item):
                self._problem(f"image {item.id} ({LOG} line {item.line}) has lost its file: left out")
                del self._log.items[item.id]
                self._log.order = [one for one in self._log.order if one[0] != item.id]
        for state in STATES:
            for path in sorted((self.folder / state / "images").glob("*.png")):
                item = self._log.items.get(path.stem)
                if item is None or self._place(item) != state:
                    self._problem(f"'{state}/images/{path.name}' is in no line of {LOG}: left out")
        for name in list(self._log.masks):
            if not (self.folder / MASKS / name).is_file():
                self._problem(f"'{MASKS}/{name}' is missing: left out")
                del self._log.masks[name]
        for path in sorted((self.folder / MASKS).glob("*.png")):
            if path.name in self._log.dropped:
                path.unlink()  # the process was killed before it did
            elif not _MASK.fullmatch(path.name):
                self._problem(f"'{MASKS}/{path.name}' has no name such as 0001.png: left out; rename it")
            elif path.name not in self._log.masks:
                self._log.masks[path.name] = {"origin": "file", "of": ""}
        for state in (ACCEPTED, REJECTED):
            self._write_metadata(state)
        self._write_prompts()
        self._write_seen()

    def _problem(self, line: str) -> None:
        self.problems.append(line)


def _metadata(item: Item) -> dict[str, Any]:
    """Return the line of an image in ``metadata.jsonl``, as a pool has it."""
    line = {"file_name": f"images/{item.id}.png"}
    if "mask_sha256" in item.made:
        line["mask_file_name"] = f"masks/{item.id}.png"
    return line | item.made | {"decision": item.decision, "reason": item.reason}


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _yaml_bytes(value: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=120).encode()


def _hold(path: Path) -> int | None:
    """Lock a review for this process; the lock ends with it, however it ends.

    Raises:
        UserError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps a second server out
        return None
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UserError(
            f"review '{path.parent}' is open in another augbench studio: close that one, or give another --review"
        ) from None
    return handle

"""Finding plug-ins: file stem = registered name; entry points; ``--plugin FILE``. No hand-kept list anywhere."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from augbench.core.contracts import Augmenter, Dataset
from augbench.core.errors import UserError, did_you_mean
from augbench.core.protocol import first_problem

ROOMS: dict[str, type] = {"datasets": Dataset, "augmenters": Augmenter}

_found: dict[str, dict[str, type]] = {}
_versions: dict[tuple[str, str], str] = {}  # (room, name) -> what tells its code apart; none for our own
_files: dict[str, bytes] = {}  # what --plugin added: its path here and its text, which workers elsewhere load


def find(room: str) -> dict[str, type]:
    """All plug-ins of ``room`` ("datasets" or "augmenters"): name -> class, sorted by name."""
    if room not in _found:
        found = {}
        package = importlib.import_module(f"augbench.{room}")
        for info in pkgutil.iter_modules(package.__path__):
            if not info.name.startswith("_"):
                module = importlib.import_module(f"augbench.{room}.{info.name}")
                found[info.name] = _the_class(module, ROOMS[room], info.name)
        for entry in importlib.metadata.entry_points(group=f"augbench.{room}"):
            if entry.name in found:
                raise UserError(f"entry point '{entry.value}': '{entry.name}' is already one of the {room}")
            found[entry.name] = _named(entry.load(), entry.name)
            _versions[room, entry.name] = f"{entry.dist.name}=={entry.dist.version}" if entry.dist else entry.value
        _found[room] = dict(sorted(found.items()))
    return _found[room]


def get(room: str, name: str) -> type:
    """The plug-in class of that name.

    Raises:
        UserError: there is none.
    """
    found = find(room)
    if name not in found:
        raise UserError(f"{room.removesuffix('s')} '{name}' does not exist{did_you_mean(name, found)}")
    return found[name]


def make(room: str, name: str, settings: dict[str, Any], where: str = "") -> Any:
    """A plug-in with its settings checked against its ``Config``.

    Raises:
        UserError: no such plug-in, an unknown setting, or a value out of range, named.
    """
    plugin = get(room, name)
    try:
        config = plugin.Config(**settings)
    except ValidationError as error:
        raise UserError(f"{where or f'{room}.{name}'}: {first_problem(error, plugin.Config)}") from None
    return plugin(config)


def load_file(path: str | Path) -> None:
    """Add the plug-ins of one Python file (``--plugin FILE``); the file's stem is the plug-in's name.

    Raises:
        UserError: no such file, or no plug-in in it.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UserError(f"--plugin '{path}': no such file")
    load_text(str(path), path.read_bytes())


def load_text(file: str, text: bytes) -> None:
    """Add the plug-ins of a Python file that lies on another machine, or did: on this one nothing is read.

    Args:
        file: its path there; the stem is the plug-in's name.
        text: what it holds.

    Raises:
        UserError: its name could be no plug-in's, it does not run, or there is no plug-in in it.
    """
    if file in _files:
        return
    path = Path(file)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(f"--plugin '{path}': not a Python file whose name could be a plug-in's: call it NAME.py")
    module = ModuleType(f"augbench_plugin_{path.stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))  # noqa: S102 - running it is what --plugin asks for
    except Exception as error:
        raise UserError(f"--plugin '{path}': {type(error).__name__}: {error}") from error
    rooms = [room for room, base in ROOMS.items() if _own_classes(module, base)]
    if not rooms:
        raise UserError(f"--plugin '{path}': defines no subclass of Dataset or Augmenter")
    for room in rooms:
        if path.stem in find(room):
            raise UserError(f"--plugin '{path}': '{path.stem}' is already one of the {room}: rename the file")
    for room in rooms:
        find(room)[path.stem] = _the_class(module, ROOMS[room], path.stem)
        _versions[room, path.stem] = "sha256:" + hashlib.sha256(text).hexdigest()
    _files[file] = text


def version(room: str, name: str) -> dict[str, str]:
    """``{"plugin": ...}`` for keys: a file's digest or a package's version, so that changed code makes new results.

    Empty for augbench's own plug-ins: what they make never changes under one name.
    """
    find(room)
    return {"plugin": _versions[room, name]} if (room, name) in _versions else {}


def loaded_files() -> dict[str, bytes]:
    """The files that were added in this process: path -> text, as `load_text` takes them."""
    return dict(_files)


def _own_classes(module: ModuleType, base: type) -> list[type]:
    """Public subclasses of ``base`` that are defined in ``module`` itself."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _the_class(module: ModuleType, base: type, name: str) -> type:
    classes = _own_classes(module, base)
    if len(classes) != 1:
        raise UserError(f"{module.__file__}: defines {len(classes)} subclasses of {base.__name__}, one is expected")
    return _named(classes[0], name)


def _named(plugin: type, name: str) -> type:
    plugin.name = name
    return plugin

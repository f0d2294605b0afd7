"""Plug-in discovery: modules of the packages ``datasets`` and ``augmenters``, entry points, ``--plugin FILE``.

The file stem is the registered name; there is no manual list. Plug-ins of others are guarded (`core.guard`), and an
installed one that cannot be registered is `broken`: commands that do not use it go on without it.
"""

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

from augbench.core.contracts import Augmenter, Dataset, Plugin, Settings
from augbench.core.errors import PluginError, UserError, did_you_mean
from augbench.core.guard import calling, guard, import_failure
from augbench.core.models import first_problem

PLUGIN_KINDS: dict[str, Plugin] = {"datasets": Dataset, "augmenters": Augmenter}

_found: dict[str, dict[str, Plugin]] = {}
_broken: dict[str, dict[str, PluginError]] = {}  # kind -> name -> why an installed plug-in cannot be used
_versions: dict[tuple[str, str], str] = {}  # (kind, name) -> code version; none for augbench's own plug-ins
_files: dict[str, bytes] = {}  # files of --plugin: path -> content, which is sent to workers


def find(kind: str) -> dict[str, Plugin]:
    """Return all plug-ins of a kind ("datasets" or "augmenters"): name -> class, sorted by name."""
    if kind not in _found:
        found, broken = {}, {}
        package = importlib.import_module(f"augbench.{kind}")
        for info in pkgutil.iter_modules(package.__path__):
            if not info.name.startswith("_"):
                module = importlib.import_module(f"augbench.{kind}.{info.name}")
                found[info.name] = _the_class(module, PLUGIN_KINDS[kind], info.name)
        for entry in importlib.metadata.entry_points(group=f"augbench.{kind}"):
            try:
                if entry.name in found:
                    raise PluginError(f"{_package(entry)}: '{entry.name}' is already one of the {kind}: rename it")
                found[entry.name] = _loaded(entry, kind)
                _versions[kind, entry.name] = _package(entry)
            except PluginError as error:
                broken[entry.name] = error
        _found[kind], _broken[kind] = dict(sorted(found.items())), broken
    return _found[kind]


def broken(kind: str) -> dict[str, PluginError]:
    """Return the installed plug-ins that cannot be used: name -> why. A name may also be that of another plug-in."""
    find(kind)
    return _broken[kind]


def get(kind: str, name: str) -> Plugin:
    """Return the plug-in class of that name. Raises UserError if it does not exist, PluginError if it is broken."""
    found = find(kind)
    if name not in found:
        if name in broken(kind):
            raise broken(kind)[name]
        raise UserError(f"{kind.removesuffix('s')} '{name}' does not exist{did_you_mean(name, found)}")
    return found[name]


def make(kind: str, name: str, settings: dict[str, Any], where: str = "") -> Any:
    """Instantiate a plug-in with settings validated by its ``Config``.

    Raises:
        UserError: no such plug-in, an unknown setting, or a value out of range.
    """
    plugin = get(kind, name)
    try:
        config = configure(plugin, settings)
    except ValidationError as error:
        raise UserError(f"{where or f'{kind}.{name}'}: {first_problem(error, plugin.Config)}") from None
    return plugin(config)  # type: ignore[arg-type]  # it is one of plugin.Config


def configure(plugin: Plugin, settings: dict[str, Any]) -> Settings:
    """Create the ``Config`` of a plug-in. Raises pydantic's ValidationError if a setting cannot be used."""
    with calling(plugin, "Config", passes=(UserError, ValidationError)):
        return plugin.Config(**settings)


def load_file(path: str | Path) -> None:
    """Register the plug-ins of one Python file (``--plugin FILE``) under the file's stem.

    Raises:
        UserError: the file does not exist or defines no plug-in.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UserError(f"--plugin '{path}': no such file")
    load_text(str(path), path.read_bytes())


def load_text(file: str, text: bytes) -> None:
    """Register the plug-ins of a Python file from its content; the path need not exist on this machine.

    Args:
        file: the path on the machine of the driver; the stem is the plug-in's name.
        text: the content.

    Raises:
        UserError: the stem is not a valid name, the code raises, or the file defines no plug-in.
    """
    if file in _files:
        return
    path = Path(file)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(f"--plugin '{path}': not a Python file named after a plug-in: call it NAME.py")
    module = ModuleType(f"augbench_plugin_{path.stem}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))  # noqa: S102 - running it is what --plugin asks for
    except (Exception, SystemExit) as error:
        raise import_failure(f"--plugin '{path}'", error) from error
    kinds = [kind for kind, base in PLUGIN_KINDS.items() if _own_classes(module, base)]
    if not kinds:
        raise UserError(f"--plugin '{path}': defines no subclass of Dataset or Augmenter")
    for kind in kinds:
        if path.stem in find(kind):
            raise UserError(f"--plugin '{path}': '{path.stem}' is already one of the {kind}: rename the file")
    classes = {kind: _guarded(_the_class(module, PLUGIN_KINDS[kind], path.stem), kind, file) for kind in kinds}
    for kind, plugin in classes.items():
        find(kind)[path.stem] = plugin
        _versions[kind, path.stem] = "sha256:" + hashlib.sha256(text).hexdigest()
    _files[file] = text


def version(kind: str, name: str) -> dict[str, str]:
    """Return ``{"plugin": ...}`` for keys: a file's digest or a package's version, so that changed code gets new keys.

    Empty for augbench's own plug-ins: their results never change under one name.
    """
    find(kind)
    return {"plugin": _versions[kind, name]} if (kind, name) in _versions else {}


def loaded_files() -> dict[str, bytes]:
    """Return the files registered in this process: path -> content, the arguments of `load_text`."""
    return dict(_files)


def _own_classes(module: ModuleType, base: Plugin) -> list[Plugin]:
    """Return the public subclasses of ``base`` defined in ``module`` itself."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _the_class(module: ModuleType, base: Plugin, name: str) -> Plugin:
    classes = _own_classes(module, base)
    if len(classes) != 1:
        raise UserError(f"{module.__file__}: defines {len(classes)} subclasses of {base.__name__}, one is expected")
    return _named(classes[0], name)


def _named(plugin: Plugin, name: str) -> Plugin:
    plugin.name = name
    return plugin


def _loaded(entry: importlib.metadata.EntryPoint, kind: str) -> Plugin:
    """Import the plug-in of an installed package. Raises PluginError if that fails, or it is no plug-in of the kind."""
    where = f"{kind.removesuffix('s')} '{entry.name}' ({_package(entry)}, {entry.value})"
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:
        raise import_failure(where, error) from error
    base = PLUGIN_KINDS[kind]
    if not (inspect.isclass(plugin) and issubclass(plugin, base)):
        raise PluginError(f"{where}: the entry point names no subclass of {base.__name__}")
    return _guarded(_named(plugin, entry.name), kind, _package(entry))


def _guarded(plugin: Plugin, kind: str, origin: str) -> Plugin:
    plugin.origin = origin
    guard(plugin, PLUGIN_KINDS[kind])
    return plugin


def _package(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name}=={entry.dist.version}" if entry.dist else entry.value

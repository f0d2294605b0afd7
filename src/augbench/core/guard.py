"""The guard of third-party plug-ins: whatever their code raises or returns wrongly is one line that names them.

`core.registry` guards a class once, when it registers it. All its methods, inherited ones too, are then called through
`calling`, and what they return is checked against the annotations of the base class, which are the contract. Nobody who
calls a plug-in needs a ``try`` of their own. Errors that a plug-in raises on purpose (`UserError`) pass unchanged.
"""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from augbench.core.contracts import Augmenter, Dataset, Plugin, Settings
from augbench.core.errors import PluginError, UserError, brief


def guard(plugin: Plugin, base: Plugin) -> None:
    """Guard a plug-in: check what it declares, and replace its methods and properties by the same behind `calling`.

    Raises:
        PluginError: a class attribute, or ``Config``, is not what ``base`` declares.
    """
    is_config = inspect.isclass(plugin.Config) and issubclass(plugin.Config, Settings)
    if not is_config or base.Config.model_fields.keys() - plugin.Config.model_fields.keys():  # a dataset has a root
        parent = "Settings" if base is Augmenter else "Dataset.Config"
        raise breach(plugin, "Config", f"declare it as class Config({parent})")
    methods, attributes = _contract(base)  # type: ignore[arg-type]  # classes are hashable, mypy looks at instances
    for name, expected in {**attributes, **methods}.items():
        own = inspect.getattr_static(plugin, name)
        is_method = callable(own) or isinstance(own, classmethod)
        if is_method != (name in methods):
            raise breach(plugin, name, "it must be a method" if name in methods else "it must be a value, not a method")
        if is_method:
            setattr(plugin, name, _guarded(name, own, expected, base))
        elif isinstance(own, property | functools.cached_property) and expected is not str:  # texts are the class's
            setattr(plugin, name, property(_guarded(name, own, expected, base)))
        else:
            _checked(plugin, name, own, expected)


def overrides(plugin: Plugin, method: str) -> bool:
    """Return whether a plug-in, guarded or not, has its own version of a method of the contract."""
    base = Augmenter if issubclass(plugin, Augmenter) else Dataset
    return inspect.unwrap(getattr(plugin, method)) is not getattr(base, method)


@contextmanager
def calling(plugin: Plugin, method: str, passes: tuple[type[Exception], ...] = (UserError,)) -> Iterator[None]:
    """Turn what the code of a plug-in raises inside the block into a `PluginError`; ``passes`` go through unchanged."""
    try:
        yield
    except passes:
        raise
    except SystemExit as error:
        if _frames(plugin, error)[-1:] != traceback.extract_tb(error.__traceback__)[-1:]:
            raise  # not by the plug-in: Ray ends a worker so, wherever it is
        raise _failure(plugin, method, error) from error
    except Exception as error:
        raise _failure(plugin, method, error) from error


def breach(plugin: Plugin, what: str, problem: str) -> PluginError:
    """Return the error of a plug-in that breaks its contract; ``what`` names the method or attribute."""
    return PluginError(f"{_kind(plugin)} '{plugin.name}' ({plugin.origin}): {what} breaks the contract: {problem}")


def import_failure(what: str, error: BaseException) -> PluginError:
    """Return the error of a plug-in whose module cannot be imported; ``what`` names its file or package."""
    return PluginError(f"{what}: import: {_cause(error)}")


def _failure(plugin: Plugin, method: str, error: BaseException) -> PluginError:
    last = next(reversed(_frames(plugin, error)), None)
    file = "" if last is None or last.filename == plugin.origin else f", {Path(last.filename).name}"
    line = "" if last is None else f", line {last.lineno}"
    return PluginError(f"{_kind(plugin)} '{plugin.name}' ({plugin.origin}{file}{line}): {method}: {_cause(error)}")


def _kind(plugin: Plugin) -> str:
    return "augmenter" if issubclass(plugin, Augmenter) else "dataset"


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {brief(str(error), 200)}".removesuffix(": ")


def _frames(plugin: Plugin, error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an error in the plug-in's own file."""
    file = getattr(sys.modules.get(plugin.__module__), "__file__", None)
    return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]


@functools.cache
def _contract(base: type) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what a base class declares: method -> type of what it returns, and class attribute -> its type."""
    methods = {
        name: get_type_hints(method, localns=dict(vars(base)), include_extras=True)["return"]
        for name, method in vars(base).items()
        if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_"))
    }
    attributes = {
        name: get_args(hint)[0] if get_origin(hint) is ClassVar else hint
        for name, hint in get_type_hints(base, include_extras=True).items()
    }
    return methods, attributes


def _guarded(name: str, own: Any, expected: Any, base: type) -> Callable:
    """Return a method or property of a plug-in behind the guard; ``own`` is what stands in its class."""

    @functools.wraps(own)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        with calling(type(self), name):
            bound = own.__get__(self, type(self)) if hasattr(own, "__get__") else own
            result = bound(*arguments, **options) if name in _contract(base)[0] else bound
            if name == "__init__":
                _check_instance(self, base)
            return _checked(type(self), name, result, expected)

    return call


def _check_instance(made: Any, base: type) -> None:
    """Check what ``__init__`` set."""
    if not isinstance(getattr(made, "config", None), Settings):
        raise breach(type(made), "__init__", "it must call super().__init__(config)")
    _, attributes = _contract(base)
    for name in vars(made).keys() & attributes.keys():
        _checked(type(made), name, getattr(made, name), attributes[name])


def _checked(plugin: type, name: str, value: Any, expected: Any) -> Any:
    """Return a value as the type that the contract declares, for example a list for a tuple."""
    if expected is type(None):
        return None
    try:
        return _adapter(expected).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{step}: " for step in first["loc"])
        is_ours = first["type"] == "value_error"  # by a validator of `core.contracts`
        why = str(first["ctx"]["error"]) if is_ours else f"{first['msg']}, not {_described(first['input'])}"
        raise breach(plugin, name, f"{where}{why}") from None


@functools.cache
def _adapter(expected: Any) -> TypeAdapter:
    return TypeAdapter(expected, config=None if is_dataclass(expected) else ConfigDict(arbitrary_types_allowed=True))


def _described(value: Any) -> str:
    return brief(repr(value)) if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__

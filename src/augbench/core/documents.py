"""Read YAML that people write: every mistake is one line with its place, and no scalar is read as something else.

Keys are taken as they are written: YAML 1.1 would read ``no`` as false and ``1`` as a number. Values keep their meaning
in YAML 1.1, except that dates stay text. Refused are numbers that YAML reads in base 8 or 60, and what no setting
takes: infinity, NaN, tags of other types, and aliases that contain themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from augbench.core.errors import UserError, brief

DEEPEST = 50  # levels of nesting
MOST_NODES = 1_000_000  # with aliases expanded
LONGEST = 1_000_000  # characters of a document; they take some ten seconds
LONGEST_INTEGER = 30  # characters

_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("str", "null", "bool", "int", "float")}
_MERGE = f"{_TAG}merge"
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # octal, or sexagesimal


@dataclass(frozen=True)
class Document:
    """A parsed YAML document."""

    value: Any
    where: str  # the file or option, for messages
    root: yaml.Node | None = None  # None: the value is not from YAML

    def at(self, path: Sequence[str | int]) -> tuple[str, str | None]:
        """Return where the value at a path is, or what is there instead of it, and its text.

        Args:
            path: keys and indices; those behind a scalar or a missing key are ignored.

        Returns:
            For example ``grid.yaml, line 3``; and the text of an unquoted scalar as it is written, else None.
        """
        if (node := self.root) is None:
            return self.where, None
        for step in path:
            inner = _child(node, step)
            if inner is None:
                break
            node = inner
        is_plain = isinstance(node, yaml.ScalarNode) and not node.style
        return _place(self.where, node.start_mark), node.value if is_plain else None


def parse_yaml(text: str, where: str) -> Document:
    """Parse a document that a user wrote.

    Args:
        text: the YAML.
        where: the file or option that it is from, for messages.

    Returns:
        Its value, of dicts with str keys, lists, str, int, finite float, bool and None.

    Raises:
        UserError: it is not valid YAML, or it holds what no setting takes; one line, with the line's number.
    """
    if len(text) > LONGEST:
        raise UserError(f"{where} has {len(text):,} characters, the most are {LONGEST:,}: is it the right file?")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(None, where)
        _Checks(text, where).check(root)
        return Document(loader.construct_document(root), where, root)
    except yaml.MarkedYAMLError as error:
        hint = ": indent with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{_place(where, mark)}: not valid YAML: {brief(what, 200)}{hint}") from None
    except yaml.YAMLError as error:  # of the reader: it has no mark
        raise UserError(f"{where}: not valid YAML: {brief(error, 200)}") from None
    except RecursionError:
        raise UserError(f"{where}: nested more than {DEEPEST} levels deep") from None


def parse_value(text: str, where: str) -> Any:
    """Return the value of an option in YAML: as `parse_yaml`, but what YAML takes for a comment is refused."""
    value = parse_yaml(text, where).value
    ends = (yaml.BlockEndToken, yaml.StreamEndToken)  # they stand behind a comment
    end = max(one.end_mark.index for one in yaml.scan(text, _Loader) if not isinstance(one, ends))
    if comment := text[end:].strip():
        raise UserError(f"{where}: YAML takes '{brief(comment)}' for a comment: put the value in quotes")
    return value


class _Loader(yaml.SafeLoader):
    """Resolves no dates, and constructs keys as they are written."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _SCALARS or tag == _MERGE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping with its merged keys."""
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


class _Checks:
    """Refuses what `parse_yaml` does not take."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.known: dict[int, tuple[int, int]] = {}  # id of a node -> nodes in it with aliases expanded, height
        self.above: set[int] = set()

    def check(self, node: yaml.Node) -> tuple[int, int]:
        """Check a node and everything in it; return the number of nodes in it, and its height."""
        if id(node) in self.above:
            self._refuse(node, "an alias (*) stands inside of what it names")
        if id(node) not in self.known:
            self.above.add(id(node))
            inner = [self.check(one) for one in self._inner(node)]
            self.above.remove(id(node))
            self.known[id(node)] = 1 + sum(n for n, _ in inner), 1 + max((height for _, height in inner), default=0)
        number, height = self.known[id(node)]
        if number > MOST_NODES:
            self._refuse(node, f"with its aliases (*) it has more than {MOST_NODES:,} values")
        if height > DEEPEST:
            self._refuse(node, f"nested more than {DEEPEST} levels deep")
        return number, height

    def _inner(self, node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
            return []
        if node.tag != f"{_TAG}{'seq' if isinstance(node, yaml.SequenceNode) else 'map'}":
            self._refuse(node, f"the tag {node.tag} cannot be used here: leave it out")
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        assert isinstance(node, yaml.MappingNode)
        self._check_keys(node)
        return [value for _, value in node.value]

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                written = brief(self.text[key.start_mark.index : key.end_mark.index])
                fix = (
                    "fill in the template, or put its braces into quotes"
                    if written[:1] == "{"
                    else "put it into quotes"
                )
                self._refuse(key, f"{written} cannot be a key: {fix}")
            self._check_text(key)
            if key.value in seen:
                self._refuse(key, f"key '{brief(key.value)}' occurs twice: leave one of them out")
            seen.add(key.value)

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        self._check_text(node)
        name, text = node.tag.removeprefix(_TAG), node.value
        if node.tag == _MERGE:
            self._refuse(node, f'{text} is a key of YAML: write "{text}" in quotes')
        if node.tag not in _SCALARS:
            self._refuse(node, f"the tag {node.tag} cannot be used here: leave it out")
        if name in ("str", "null"):
            return
        try:
            value = _CONSTRUCT[name](_Loader(""), node)
        except (ValueError, KeyError, OverflowError):
            self._refuse(node, f"'{brief(text)}' is not of type {name}: leave the tag out, or write it in quotes")
        written = brief(text)
        if name != "bool" and _OTHER_BASE.fullmatch(text):
            self._refuse(node, f'YAML reads {written} as {value}: write {value}, or "{written}" in quotes')
        if name == "float" and not math.isfinite(value):
            self._refuse(node, f'no setting takes {written}: give a finite number, or "{written}" in quotes')
        if name == "int" and len(text) > LONGEST_INTEGER:
            self._refuse(node, f"no setting takes so many digits: {written}")

    def _check_text(self, node: yaml.ScalarNode) -> None:
        if "\0" in node.value or any("\ud800" <= character <= "\udfff" for character in node.value):
            self._refuse(node, "it has a character that is no text (\\0, or half of a surrogate pair): leave it out")

    def _refuse(self, node: yaml.Node, what: str) -> NoReturn:
        raise UserError(f"{_place(self.where, node.start_mark)}: {what}")


_CONSTRUCT = {
    "bool": yaml.SafeLoader.construct_yaml_bool,
    "int": yaml.SafeLoader.construct_yaml_int,
    "float": yaml.SafeLoader.construct_yaml_float,
}


def _child(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in reversed(node.value) if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _place(where: str, mark: yaml.Mark | None) -> str:
    return where if mark is None or where.startswith("--") else f"{where}, line {mark.line + 1}"

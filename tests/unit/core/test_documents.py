"""YAML of users: keys as written, surprising scalars refused with their line, never a traceback."""

import pytest

from augbench.core.documents import parse_value, parse_yaml
from augbench.core.errors import UserError


def refused(text):
    with pytest.raises(UserError) as error:
        parse_yaml(text, "g.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    return str(error.value)


def test_options_keep_what_yaml_takes_for_a_comment():
    for text in ("Batch #3", "#3", "[a, b] # c", "a: b # c", "'a' #b"):
        with pytest.raises(UserError, match=r"--set: YAML takes '#.*' for a comment: put the value in quotes"):
            parse_value(text, "--set")
    values = {"'Batch #3'": "Batch #3", "a#b": "a#b", "[1, 2] ": [1, 2], "": None}
    assert {text: parse_value(text, "--set") for text in values} == values


def test_keys_are_taken_as_they_are_written():
    text = "no: 1\non: 2\n1: 3\n0123: 4\n~: 5\n2024-01-01: 6\n"
    assert list(parse_yaml(text, "g.yaml").value) == ["no", "on", "1", "0123", "~", "2024-01-01"]


def test_values_keep_their_meaning():
    text = "[no, Yes, 1_000, 0x10, 1.0e-4, ~, '0123', \".nan\", 2024-01-01, 1e-4, =]"
    expected = [False, True, 1000, 16, 1e-4, None, "0123", ".nan", "2024-01-01", "1e-4", "="]
    assert parse_yaml(text, "g.yaml").value == expected


def test_merge_keys_and_aliases():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], no: [*a]}\n"
    assert parse_yaml(text, "g.yaml").value == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 3, "no": [{"x": 1, "y": 2}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("a: 1\nb: 0123", ["line 2", "0123 as 83", '"0123" in quotes']),
        ("a: 1:30", ["1:30 as 90", '"1:30"']),
        ("a: .nan", [".nan", "finite"]),
        ("a: -.INF", ["-.INF", "finite"]),
        ("a: 1.0e+400", ["1.0e+400"]),
        ("a: " + "9" * 5000, ["999"]),
        ("a: {{ x }}", ["{ x } cannot be a key", "template"]),
        ("? [1]\n: 2", ["[1] cannot be a key", "quotes"]),
        ("a: 1\nb: {c: 1, c: 2}", ["line 2", "'c' occurs twice"]),
        ("yes: 1\n'yes': 2", ["line 2", "'yes' occurs twice"]),
        ("a:\n\t- 1", ["line 2", "not valid YAML", "tabs"]),
        ("a: [1,", ["line 1", "not valid YAML"]),
        ("a: 1\n---\nb: 2", ["line 2", "another document"]),
        ("a: \x01", ["not valid YAML"]),
        ("a: *b", ["alias 'b'"]),
        ("a: &a [*a]", ["line 1", "alias (*)"]),
        ("a: !!binary aGk=", ["binary"]),
        ("a: !!python/name:os.system x", ["python/name"]),
        ("a: !!int abc", ["abc"]),
        ("a: <<", ['"<<"']),
        ("<<: 3", ["line 1"]),
        ('a: "\\0"', ["\\0"]),
        ('a: "\\ud800"', ["surrogate"]),
        ("[" * 3000, ["levels deep"]),
        ("[" * 60 + "]" * 60, ["levels deep"]),
        ("a" * 1_000_001, ["1,000,001 characters"]),
    ],
)
def test_refused(text, fragments):
    message = refused(text)
    assert message.startswith("g.yaml")
    for fragment in fragments:
        assert fragment in message, message


def test_aliases_do_not_explode_and_do_not_nest_without_end():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "1,000,000 values" in refused("\n".join(lines))
    chain = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60))]
    assert "levels deep" in refused("\n".join(chain))


def test_places():
    document = parse_yaml("x: 1\ndatasets:\n  - name: folder\n    settings: {good: no, root: 'no'}\n", "g.yaml")
    settings = ("datasets", 0, "settings")
    assert document.at((*settings, "good")) == ("g.yaml, line 4", "no")
    assert document.at((*settings, "root")) == ("g.yaml, line 4", None)  # in quotes already
    assert document.at(("datasets", 0, "nothing")) == ("g.yaml, line 3", None)

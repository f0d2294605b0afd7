"""Prompt files of users: strict, and every mistake is one line with its place."""

import pytest

from augbench.core.errors import UserError
from augbench.diffusion.prompts import read_prompts


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("prompts: [a scratch]\nprompts: [rust]", ["line 2", "'prompts' occurs twice"]),
        ("prompts:\n- rust\n- no", ["line 3", "'prompts.1'", "reads no as false", '"no" with its quotes']),
        ("prompts: [rust]\n1: 2", ["line 2", "unknown key '1'"]),
        ("prompts: [{{ word }}]", ["line 1", "template"]),
        ("prompt: [rust]", ["'prompts' is missing"]),
        ("- rust", ["expected the keys"]),
        ("", ["expected the keys"]),
        ("prompts:\n\t- rust", ["line 2", "tabs"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, fragments):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_prompts(str(path))
    for fragment in ("mine.yaml", *fragments):
        assert fragment in str(error.value)

"""Examples run: those of every ``--help``, and the blocks of code in Markdown that are marked so.

A block is run if the line before it is ``<!-- runnable -->``; ``<!-- runnable slow -->``, if it takes over a minute.
Its language is ``python``, or else it is a shell's. It runs in a folder that looks like a fresh checkout, in which the
folder ``my_images`` is drawn: that stands for the reader's own.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import ROOT, cli
from layouts import draw_folder

from augbench.cli.app import app

BLOCK = re.compile(r"^ *<!-- runnable( slow)? -->\n+( *)```(\w*)[^\n]*\n(.*?)\n\2```", re.MULTILINE | re.DOTALL)
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVERS = ("studio",)  # end with Ctrl-C: tests/browser/ runs them
SLOW_COMMANDS = ("try", "models sample")  # over a minute on a busy machine


def blocks_of(text):
    """Yield language, code and whether it is slow of the blocks that are marked, without their indentation."""
    for slow, indent, language, code in BLOCK.findall(text):
        yield language, "\n".join(line.removeprefix(indent) for line in code.splitlines()), bool(slow)


def marked(found, name, slow):
    return pytest.param(*found, id=name, marks=[pytest.mark.slow] if slow else [])


def blocks():
    for path in FILES:
        for number, (language, code, slow) in enumerate(blocks_of(path.read_text(encoding="utf-8")), 1):
            yield marked((language, code), f"{path.relative_to(ROOT).as_posix()}-{number}", slow)


def commands(group, words=()):
    """Yield the words and the click command of each command and group."""
    yield words, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*words, name))


HELPS = dict(commands(typer.main.get_command(app)))


def example_of(command):
    first, _, _ = (command.help or "").partition("\n\n")
    return " ".join(first.removeprefix("Example: ").split()) if first.startswith("Example: ") else ""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with what examples read of the repository, and images of one's own."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("tune_configs", "README.md", "docs", "notebooks"):
        (place / name).symlink_to(ROOT / name)
    (place / "results").mkdir()
    for name in ("demo", "elpv", "magnetic_tile_diag", "neu"):
        shutil.copytree(ROOT / "results" / name, place / "results" / name)
    draw_folder(place / "my_images")
    return place


def run_shell(code):
    """Run the lines of a shell: the command line of augbench in this process, which shares its imports."""
    lines = re.sub(r"\\\n|&&\s*", lambda found: " " if found[0][0] == "\\" else "\n", code).splitlines()
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if not words:
            continue
        if words[0] == "augbench" and not {"|", ">", ";"} & set(words):
            ran = cli(*words[1:])
        else:
            path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
            ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=100, env={"PATH": path})
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize(("language", "code"), blocks())
def test_a_block_of_code_runs(language, code, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    if language == "python":
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    else:
        run_shell(code)


@pytest.mark.parametrize(
    "words",
    [marked((words,), " ".join(words), " ".join(words) in SLOW_COMMANDS) for words, one in HELPS.items() if words],
)
def test_every_help_begins_with_an_example_that_runs(words, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    example = example_of(HELPS[words])
    assert example, f"augbench {' '.join(words)} --help: end the docstring with a paragraph 'Example: augbench ...'"
    if hasattr(HELPS[words], "commands"):
        assert example in {example_of(one) for one in HELPS[words].commands.values()}, "that of one of its commands"
        return
    last = shlex.split(example.rpartition("&&")[2])
    assert tuple(last[1 : len(words) + 1]) == words, "the example is of the command itself"
    if " ".join(words) not in SERVERS:
        run_shell(example)


def test_the_help_of_augbench_begins_with_an_example():
    lines = [line.strip() for line in cli("--help").stdout.splitlines() if line.strip()]
    assert lines[1] == f"Example: {example_of(HELPS[()])}" == "Example: augbench list datasets"


def test_marked_blocks_are_found_in_any_file():
    text = """
text
<!-- runnable -->
```sh
augbench list datasets
```

```python
never()
```
   <!-- runnable slow -->

   ```python title="x"
   a = 1
     b
   ```
"""
    assert list(blocks_of(text)) == [("sh", "augbench list datasets", False), ("python", "a = 1\n  b", True)]
    with pytest.raises(AssertionError, match="does not exist"):
        run_shell("augbench list datasets  # fine\n$ augbench datasets show surfacez")
    with pytest.raises(AssertionError, match="false"):
        run_shell("true && \\\nfalse")

"""`augbench augmenters`: the list, one augmenter with its settings, and where the settings come from."""

import io

import pytest
from helpers import TOY, assert_one_line, cli
from pydantic import Field
from rich.console import Console

from augbench.augmenters._settings import setting
from augbench.cli import augmenters_view
from augbench.cli.augmenters_view import show_augmenter
from augbench.core import registry
from augbench.core.contracts import Augmenter, Settings

OWN = [name for name, plugin in registry.find("augmenters").items() if plugin.__module__.startswith("augbench.")]


def shown(name, width=120):
    console = Console(width=width, file=io.StringIO())
    show_augmenter(name, console)
    return console.file.getvalue()


def words(text):
    """The text in one line, each gap one space."""
    return " ".join(text.split())


def all_settings(config, path):
    """Path and field of every setting, nested ones too."""
    for key, field in config.model_fields.items():
        yield f"{path}.{key}", field
    for inner, (key, *_) in augmenters_view.nested_settings(config).items():
        yield from all_settings(inner, f"{path}.{key}")


@pytest.mark.parametrize("name", OWN)
def test_every_setting_has_a_meaning_and_a_source(name):
    for path, field in all_settings(registry.get("augmenters", name).Config, name):
        assert field.description, f"{path}: describe it, see augmenters/_settings.py"
        assert augmenters_view._source(field) not in ("", "-"), f"{path}: name its source"


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", OWN)
def test_show_fits_the_terminal_and_has_every_setting(name, width):
    text = shown(name, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    plugin = registry.get("augmenters", name)
    for path, _ in all_settings(plugin.Config, name):
        assert path.rpartition(".")[2] in text.split()
    assert plugin.title in words(text) and (plugin.paper or "-") in text


def test_show_names_what_is_read_and_needed():
    diag, ddpm, none, stable, inout = (words(shown(n)) for n in ("diag", "ddpm", "none", "stablesdg", "inout"))
    assert "zero-shot: reads negatives, regions" in diag and "few-shot: reads masks, negatives, shots" in diag
    assert "needs: a dataset with masks" in diag and "adapter: none" in diag and "pipeline sdxl-inpaint" in diag
    assert "zero-shot: reads negatives few-shot: reads shots" in ddpm and "a GPU if there is one" in ddpm
    assert "adapter: trained before generation search: none" in ddpm and "Settings inside zero, few and full:" in ddpm
    assert "zero-shot: not supported: no augmentation leaves no positives" in none and "Settings: none" in none
    assert "search: possible" in stable and "zero-shot: not supported" in stable
    assert "few-shot: ddpm reads shots; memseg reads negatives" in inout


def test_defaults_and_types_are_short():
    text = words(shown("memseg", 80))
    assert "opacity 2 x float" in text and "[0.15, 1]" in text and "path | none" in text
    few = registry.get("augmenters", "ddpm").Config.model_fields["few"]
    assert augmenters_view._default(few) == "epochs: 49, alpha: 0.95"
    assert "list of settings" in words(shown("mixture")) and "required" in shown("mixture")


class Bare(Augmenter):
    """Doubles `contrast`.

    More text.
    """

    name = "bare"

    title = "[bold]"

    class Config(Settings):
        """Settings with and without texts."""

        plain: int = 3
        described: float = Field(0.5, gt=0, description="how much")
        sourced: bool = setting(True, "whether [red]", "paper, [1]")
        listed: tuple[str, ...] = ()


def test_a_plugin_without_descriptions_has_dashes(monkeypatch):
    monkeypatch.setitem(registry.find("augmenters"), "bare", Bare)
    text = shown("bare")
    assert "[bold] (bare)\nDoubles 'contrast'." in text and "More text" not in text
    lines = {line.split()[0]: words(line) for line in text.splitlines() if line.strip()}
    assert lines["plain"] == "plain int 3 - -"
    assert lines["described"] == "described float > 0 0.5 how much -"
    assert lines["sourced"] == "sourced bool true whether [red] paper, [1]"
    assert lines["listed"] == "listed list of str [] - -"
    assert "nothing besides the dataset" in text


def test_the_command_line():
    shows = cli("--plugin", TOY, "augmenters", "show", "toy")
    assert shows.returncode == 0, shows.stderr
    assert "(toy)" in shows.stdout
    assert_one_line(cli("augmenters", "show", "memsegg"), "'memsegg' does not exist", "did you mean 'memseg'")
    by_group, by_list = cli("augmenters", "list"), cli("list", "augmenters")
    assert by_group.stdout == by_list.stdout and set(OWN) <= set(by_group.stdout.split())

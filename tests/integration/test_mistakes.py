"""User errors: each is reported by name, and none leads to wrong numbers."""

import pandas as pd
import pytest
from helpers import TINY, TOY, assert_one_line, cli, grid_file, library_of, path_of, tiny, tiny_grid, tiny_plan
from layouts import draw_folder, draw_folder_csv

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.planning.grid import load_grid, make_grid
from augbench.planning.plan import make_plan
from augbench.planning.remaining import subtract
from augbench.runner.driver import run
from augbench.stages.preflight import preflight
from augbench.storage.store import Store

# -- plug-ins


def test_changed_plugin_code_makes_new_keys(tmp_path, monkeypatch):
    keys = []
    for text in ("", "\n# changed\n"):
        path = tmp_path / f"fresh{len(keys)}" / "edited.py"
        path.parent.mkdir()
        path.write_text(TOY.read_text() + text)
        monkeypatch.setattr(registry, "_found", {})
        registry.load_file(path)
        keys.append(next(iter(tiny_plan(augmenters=["edited"]).pools)))
    assert keys[0] != keys[1]


def test_plugin_cannot_have_the_name_of_another(tmp_path):
    (tmp_path / "memseg.py").write_text(TOY.read_text())
    assert_one_line(cli("--plugin", tmp_path / "memseg.py", "list", "augmenters"), "memseg", "rename the file")


def test_alias_cannot_be_the_name_of_another():
    with pytest.raises(UserError, match="cannot be 'none'"):
        make_plan(tiny_grid(augmenters=[{"name": "memseg", "as": "none"}]))


def test_mixture_of_the_same_twice():
    parts = [{"name": "memseg", "share": 0.5}, {"name": "memseg", "share": 0.5, "settings": {"texture_share": 0.5}}]
    with pytest.raises(UserError, match="'mixture': two parts are equal"):
        make_plan(tiny_grid(augmenters=[{"name": "mixture", "settings": {"parts": parts}}]))


# -- grids


def test_a_duplicate_key(tmp_path):
    (tmp_path / "g.yaml").write_text("datasets: [surfaces]\ndatasets: [folder]\n")
    with pytest.raises(UserError, match="'datasets' occurs twice"):
        load_grid(tmp_path / "g.yaml")


def test_changed_grid_has_its_own_name_and_report(tmp_path):
    path = grid_file(tmp_path)
    assert load_grid(path, ["resources.train.workers=1", "datasets.surfaces.root=/x"]).name == "tiny"
    changed = load_grid(path, ["seeds=[3]"])
    assert changed.name.startswith("tiny+") and changed.base == "tiny"
    assert changed.name != load_grid(path, ["seeds=[4]"]).name
    assert make_grid(changed.as_dict()).name == changed.name


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"resources": {"trian": {}}}, "did you mean 'train'"),
        ({"resources": {"train": {"gpus": 1}}}, "did you mean 'gpu'"),
        ({"datasets": []}, "'datasets' is missing or empty"),
        ({"shots": ["ALL"]}, "or 'all'"),
        ({"n_aug": [10**9]}, "n_aug"),
        ({"seeds": [True]}, "seeds"),
        ({"augmenters": [{"name": "memseg", "as": "a b"}]}, "letters, digits and underscores"),
    ],
)
def test_grid_messages_are_plain(change, text):
    with pytest.raises(UserError) as error:
        make_grid(tiny(**change))
    assert text in str(error.value)
    assert "tuple" not in str(error.value) and "constrained" not in str(error.value)


def test_set_reaches_a_setting_that_is_also_an_axis(tmp_path):
    path = grid_file(tmp_path, datasets=["folder"])
    assert load_grid(path, ["datasets.folder.folds=3"]).datasets[0].settings == {"folds": 3}
    with pytest.raises(UserError, match="name what to change"):
        load_grid(path, ["datasets.folder=3"])


def test_backbone_that_cannot_take_the_size():
    plan = tiny_plan(protocols=[{"name": "t", **TINY, "backbone": "vit_tiny_patch16_224"}])
    with pytest.raises(UserError, match=r"'vit_tiny_patch16_224' cannot take 32 x 48 images.*protocols\.t\.width"):
        preflight(plan)


# -- stores


def test_a_folder_with_other_things_is_no_store(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="other contents"):
        Store(tmp_path)
    for command in ("check", "clean"):
        assert_one_line(cli("store", command, tmp_path / "nothing"), "nothing", "no store")


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    below = ("--store", tmp_path / "file" / "below")
    assert_one_line(cli("run", grid_file(tmp_path), *below), "file/below", "write elsewhere")
    assert_one_line(cli("report", tmp_path / "s", "--out", tmp_path / "file"), "--out", "folder")


def test_damaged_scores_and_images_are_named_and_lost_scores_made_again(store):
    grid = tiny_grid(augmenters=["memseg"], shots=[0])
    run(grid, store, executor="inline")
    assert not store.check()
    (key,) = store.keys("cells")
    scores = path_of(store, "scores", key)
    content = scores.read_bytes()
    scores.write_bytes(content[:100])
    (image,) = store.files.folder.glob("pools/*/images/00002.png")
    image.write_bytes(image.read_bytes()[:50])
    assert [name in line for name, line in zip([key, "00002.png"], store.check(), strict=True)] == [True, True]
    scores.unlink()
    assert len(subtract(make_plan(grid), store).cells) == 1


# -- the command line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["plan", "x.yaml", "--sett", "a=1"], "--sett"),
        (["paln"], "paln"),
        (["run"], "GRID"),
        (["run", "x.yaml", "--executor", "foo"], "foo"),
        (["run", "."], "is a folder"),
        (["report", "x", "--set", "seeds=0"], "--grid"),
    ],
)
def test_usage_errors_are_one_line(arguments, text):
    assert_one_line(cli(*arguments), text)


# -- user datasets


def test_csv_is_read_strictly(tmp_path):
    settings = draw_folder_csv(tmp_path)
    table = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)

    def refused(message, encoding="utf-8", sep=",", **columns):
        changed = table.assign(**columns)
        changed.to_csv(tmp_path / "table.csv", index=False, encoding=encoding, sep=sep)
        with pytest.raises(UserError, match=message):
            library_of("folder", settings).dataset("folder").samples()

    def first(column, value):
        return {column: [value, *table[column][1:]]}

    refused("line 2 has no label", **first("label", ""))
    refused("line 2 has no image", **first("image", ""))
    refused("blanks around label", **first("label", " good"))
    for value in ("images/a\0.png", "/a\0.png", "a\nb.png"):
        refused(r"line 2: image '[^\n]*' has a line break or another control character", **first("image", value))
    refused(r"line 2: label 'a\\nb' has a line break", **first("label", "a\nb"))
    refused("several ways: Good, good|several ways: good, Good", **first("label", "Good"))
    refused("twice", **first("image", "./" + table["image"][1]))
    refused("leaves the root", **first("image", "../x.png"))
    refused("not UTF-8", encoding="latin-1", **first("label", "grün"))
    refused("commas", sep=";")
    (tmp_path / "table.csv").write_text("image,label\nimages/a, b.png,good\n")
    with pytest.raises(UserError, match=r"table.csv' cannot be read as CSV: line 2 has more values than the header"):
        library_of("folder", settings).dataset("folder").samples()
    table.assign(group="").to_csv(tmp_path / "table.csv", index=False)
    assert library_of("folder", settings).dataset("folder").samples()["group"].nunique() == len(table)


def test_line_breaks_in_names_of_folders_and_groups_are_refused(tmp_path):
    settings = draw_folder(tmp_path)
    (tmp_path / "groups.csv").write_text('image,group\ngood/000.png,"a\nb"\n')
    with pytest.raises(UserError, match=r"groups.csv' line 2: group 'a\\nb' has a line break"):
        library_of("folder", {**settings, "groups": "groups.csv"}).dataset("folder").samples()
    (tmp_path / "stain").rename(tmp_path / "oil\nstain")
    with pytest.raises(UserError, match=r"'oil\\nstain/000.png' in '.*' has a line break"):
        library_of("folder", settings).dataset("folder").samples()


def test_good_class_must_exist(tmp_path):
    settings = draw_folder(tmp_path)
    with pytest.raises(UserError, match=r"no class is called 'ok' \(found: good, scratch, stain\).*setting good"):
        library_of("folder", {**settings, "good": "ok"}).dataset("folder").samples()

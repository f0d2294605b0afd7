"""What people write into grids: names, places and quotes in messages, a preset's own values, names of files."""

import pytest
import yaml
from helpers import TINY, grid_file, tiny

from augbench.core.errors import UserError
from augbench.planning.grid import load_grid, make_grid
from augbench.planning.plan import LONGEST_KEY, make_plan


def written(folder, text):
    path = folder / "g.yaml"
    path.write_text(text)
    return path


def message(path, *changes):
    with pytest.raises(UserError) as error:
        make_plan(load_grid(path, changes))
    assert "\n" not in str(error.value)
    return str(error.value)


HEAD = "datasets: [surfaces]\naugmenters: [none]\n"


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (f"{HEAD}protocols: [{{name: no}}]", ["line 3", "YAML reads no as false", '"no" with its quotes']),
        ("datasets: [surfaces, off]\naugmenters: [none]\nprotocols: [demo]", ["line 1", "off as false", '"off"']),
        (f"{HEAD}protocols: [{{name: demo, 3: 4}}]", ["line 3", "unknown key '3'"]),
        (f"{HEAD}protocols: [{{name: demo, self: 4}}]", ["unknown key 'self'"]),
        (f"{HEAD}protocols: [{{name: x, preset: 1}}]", ["'preset'", '"1"']),
        (f"{HEAD}protocols: [demo]\non: 1", ["line 4", "unknown key 'on'"]),
        (f"{HEAD}protocols: [{{name: demo, lr: on}}]", ["'lr'", "a number is expected"]),
        (f"{HEAD}protocols: [demo]\nshots: [yes]", ["'shots'", "a number is expected"]),
        (f"{HEAD}protocols: [{{name: demo, lr: inf}}]", ["'lr'", "finite"]),
        (f"{HEAD}protocols: [demo]\nname: yes", ["'name'", "reads yes as true"]),
        ("datasets: [{name: folder, settings: {\n  good: 0}}]\naugmenters: [none]\nprotocols: [demo]",
         ["line 2", "datasets.folder: 'good'", '"0" with its quotes']),
        ("datasets: [{name: surfaces, alias: x}]\naugmenters: [none]\nprotocols: [demo]", ["did you mean 'as'?"]),
        ("datasets: [{name: folder, good: x}]\naugmenters: [none]\nprotocols: [demo]",
         ["'good' is a setting of 'folder'", "settings: {good: ...}"]),
        ("datasets: [surfaces]\naugmenters:\n- {name: memseg, shots: [ALL]}\nprotocols: [demo]",
         ["line 3", "'augmenters.0.shots'", "or 'all'"]),
        ("- datasets", ["at the top"]),
        ("", ["at the top"]),
    ],
)  # fmt: skip
def test_messages_name_the_line_and_the_quotes(tmp_path, text, fragments):
    found = message(written(tmp_path, text))
    for fragment in ("g.yaml", *fragments):
        assert fragment in found, found


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    grid = load_grid(written(tmp_path, f"{HEAD}protocols: [{{name: x, preset: demo, lr: 1e-4}}]"))
    assert grid.protocols[0].lr == 1e-4
    assert load_grid(written(tmp_path, f"{HEAD}protocols: [demo]"), ["protocols.demo.lr=1e-4"]).protocols[0].lr == 1e-4


def test_root_may_stand_directly_under_a_dataset(tmp_path):
    text = "datasets: [{name: folder, root: /x}]\naugmenters: [none]\nprotocols: [demo]"
    assert load_grid(written(tmp_path, text)).datasets[0].settings == {"root": "/x"}
    assert load_grid(written(tmp_path, text), ["datasets.folder.root=/y"]).datasets[0].settings == {"root": "/y"}
    both = text.replace("root: /x", "root: /x, settings: {root: /y}")
    assert "root" in message(written(tmp_path, both))


def test_a_change_is_of_the_entry_of_that_name_else_of_that_plug_in(tmp_path):
    path = grid_file(tmp_path, augmenters=["memseg", {"name": "memseg", "as": "structure"}, {"name": "nsa", "as": "n"}])
    changes = ["augmenters.structure.n_aug=8", "augmenters.memseg.n_aug=9", "augmenters.nsa.n_aug=10"]
    assert [entry.n_aug for entry in load_grid(path, changes).augmenters] == [(9,), (8,), (10,)]


@pytest.mark.parametrize(
    "change",
    [
        "datasets=[{name: [1]}]",
        "augmenters.memseg.a.b=1",
        "about.x=1",
        "about={{ x }}",
        "seeds=0123",
        "about=Batch #3",
        "datasets.surfaces.root=~no-such-user/x",
        "datasets.surfaces.root=3",
        "protocols=[{name: demo, {a: b}: 1}]",
    ],
)
def test_changes_are_refused_in_one_line(tmp_path, change):
    assert message(grid_file(tmp_path), change)
    assert message(grid_file(tmp_path), "augmenters.memseg.settings=3", "augmenters.memseg.texture_share=1")


def test_json_grids_are_as_strict(tmp_path):
    path = tmp_path / "g.json"
    for text in ('{"datasets": [], "datasets": []}', '{"seeds": [NaN]}', '{"about": "\\ud800"}', '{"a": ' + "[" * 9999):
        path.write_text(text)
        assert "g.json" in message(path)


def test_names_fit_into_file_names(tmp_path):
    def grid(length):
        return make_grid(tiny(augmenters=[{"name": "memseg", "as": "m" * length}], shots=[0]))

    (cell,) = make_plan(grid(40)).cells
    longest = 40 + LONGEST_KEY - len(cell.key)
    assert len(make_plan(grid(longest)).cells[0].key) == LONGEST_KEY
    with pytest.raises(UserError, match=r"229 characters.*shorten the names \('as'\)"):
        make_plan(grid(longest + 1))
    with pytest.raises(UserError, match="shorten it"):
        make_plan(make_grid(tiny(name="g" * 229)))
    with pytest.raises(UserError, match="cannot be the name of a file"):
        make_plan(make_grid(tiny(fidelity={"extractor": "a/b"}, n_aug=[4])))


# -- values that are the preset's own


def own_value(folder, protocol):
    content = tiny(protocols=[protocol], augmenters=["none"])
    del content["name"]
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return folder / "own.yaml"


def test_a_presets_own_value_changes_no_key(tmp_path, store):
    plain = make_plan(load_grid(own_value(tmp_path, "demo")), store)
    path = own_value(tmp_path, {"name": "demo", "holdout": 0.1})
    grid = load_grid(path)
    assert [protocol.name for protocol in grid.protocols] == ["demo"]
    assert make_plan(grid, store).by_key.keys() == plain.by_key.keys()
    assert load_grid(path, ["protocols.demo.holdout=0.1"]).name == "own"
    changed = load_grid(path, ["protocols.demo.holdout=0.2"])
    assert changed.protocols[0].name == "demo+holdout=0.2" and changed.name.startswith("own+")


def test_a_store_with_cells_under_the_former_name_goes_on_with_them(tmp_path, store):
    grid = load_grid(own_value(tmp_path, {"name": "demo", "holdout": 0.1, "epochs": 3}))
    former = make_plan(grid.former)
    assert grid.protocols[0].name == "demo+epochs=3"
    assert former.cells[0].protocol.name == "demo+epochs=3+holdout=0.1"  # as earlier versions called it
    assert make_plan(grid, store).by_key.keys().isdisjoint(former.by_key)
    store.write_json("cells", former.cells[-1].key, {})
    assert make_plan(grid, store).by_key.keys() == former.by_key.keys()
    assert make_plan(grid).by_key.keys().isdisjoint(former.by_key)


def test_a_protocol_in_full_keeps_its_name(tmp_path):
    assert load_grid(own_value(tmp_path, {"name": "demo", **TINY})).former is None

"""Published results: records that follow from their scores pass, others are refused by name."""

import io
import json
import random
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, assert_one_line, cli, tiny_grid

from augbench.core.errors import UserError
from augbench.core.specs import Cell
from augbench.report.publish.contents import COMPLETE
from augbench.report.publish.export import export, readme
from augbench.report.publish.verify import check_results
from augbench.runner.driver import run
from augbench.storage.store import Store, json_bytes

RESULTS = ROOT / "results"
STORES = sorted(path.name for path in RESULTS.iterdir() if (path / "cells").is_dir())


@pytest.fixture
def neu(tmp_path):
    """Recognition, with fidelity and a search."""
    return shutil.copytree(RESULTS / "neu", tmp_path / "neu", ignore=shutil.ignore_patterns("fingerprints", "leases"))


@pytest.fixture
def tiles(tmp_path):
    """Detection, with held-out images and fidelity."""
    skipped = shutil.ignore_patterns("fingerprints", "leases")
    return shutil.copytree(RESULTS / "magnetic_tile_diag", tmp_path / "tiles", ignore=skipped)


def first(folder, kind):
    return sorted((folder / kind).iterdir())[0]


def edit(path, change):
    """Change a record as a person with an editor would."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path.stem


def edit_scores(path, change):
    table = pd.read_parquet(path)
    table = change(table)
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    path.write_bytes(buffer.getvalue())
    return path.stem


def only(verdict):
    assert len(verdict.refused) == 1, verdict.refused
    return verdict.refused[0]


@pytest.mark.parametrize("name", STORES)
def test_what_is_published_follows_from_its_scores(name):
    verdict = check_results(RESULTS / name)
    mine = [line for line in verdict.refused if "is not published" not in line]  # what a run leaves there, git ignores
    assert mine == []
    assert verdict.counts["cell"] and verdict == check_results(RESULTS / name)


# -- a record edited by hand


def test_a_higher_ap_is_refused_by_name(tiles):
    path = first(tiles, "cells")
    was = json.loads(path.read_text())["result"]["ap"]
    key = edit(path, lambda record: record["result"].update(ap=was + 0.01))
    line = only(check_results(tiles))
    assert key in line and f"ap is {was + 0.01!r}, its scores give {was!r}" in line
    found = cli("results", "check", tiles)
    assert found.returncode == 2 and key in found.stdout and "1 problem" in found.stdout and not found.stderr


def _scale(metrics, name):
    metrics[name] = metrics[name] * 0.99 + 0.001


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("ap_step", lambda result: _scale(result, "ap_step")),
        ("ap_trapezoidal", lambda result: _scale(result, "ap_trapezoidal")),
        ("auroc", lambda result: _scale(result, "auroc")),
        ("recall_at_1pct_false_alarms", lambda result: _scale(result, "recall_at_1pct_false_alarms")),
        ("oracle.threshold", lambda result: _scale(result["oracle"], "threshold")),
        ("oracle.recall", lambda result: _scale(result["oracle"], "recall")),
        ("heldout.precision", lambda result: _scale(result["heldout"], "precision")),
        ("heldout", lambda result: result.update(heldout=None)),
        ("per_class.crack.ap", lambda result: _scale(result["per_class"]["crack"], "ap")),
        ("per_class.crack", lambda result: result["per_class"].pop("crack")),
        ("auroc", lambda result: result.pop("auroc")),
        ("iou", lambda result: result.update(iou=0.5)),
        ("counts.test_positives", lambda result: result["counts"].update(test_positives=1)),
        ("counts.synthetic", lambda result: result["counts"].update(synthetic=1)),
        ("counts", lambda result: result.pop("counts")),
        ("curves.test ends", lambda result: result["curves"]["test"][-1].update(ap=0.999)),
        ("curves", lambda result: result["curves"]["loss"].pop()),
        ("best_epoch_oracle", lambda result: result["best_epoch_oracle"].update(ap=0.999)),
    ],
)
def test_every_number_of_detection_is_recomputed(tiles, field, change):
    key = edit(first(tiles, "cells"), lambda record: change(record["result"]))
    refused = check_results(tiles).refused
    assert any(f"cell '{key}': {field}" in line for line in refused), refused


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("accuracy", lambda result: _scale(result, "accuracy")),
        ("macro_f1", lambda result: _scale(result, "macro_f1")),
        ("confusion[0][0]", lambda result: result["confusion"][0].__setitem__(0, 90)),
        ("classes[0]", lambda result: result["classes"].__setitem__(0, "other")),
        ("per_class.patches.f1", lambda result: _scale(result["per_class"]["patches"], "f1")),
    ],
)
def test_every_number_of_recognition_is_recomputed(neu, field, change):
    key = edit(first(neu, "cells"), lambda record: change(record["result"]))
    assert f"cell '{key}': {field} is " in check_results(neu).refused[0]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("gives the key", lambda record: record["spec"].update(seed=7)),
        ("gives the key", lambda record: record["spec"]["protocol"].update(epochs=41)),
        ("gives the key", lambda record: record["spec"]["data"].update(fingerprint="0" * 64)),
        ("gives the key", lambda record: record["spec"]["augmenter"]["key_settings"].update(steps=50)),
        ("its spec is not valid for cells", lambda record: record["spec"].pop("seed")),
        ("unknown key 'epoch'", lambda record: record["spec"]["protocol"].update(epoch=3)),
        ("says that it is 'other'", lambda record: record.update(key="other")),
        ("'provenance.device' is missing", lambda record: record["provenance"].pop("device")),
        ("'provenance.seconds.total'", lambda record: record["provenance"]["seconds"].update(total=-1.0)),
        ("its parts add up to", lambda record: record["provenance"]["seconds"].update(total=1.0)),
        ("not JSON compliant", lambda record: record["spec"]["augmenter"]["settings"].update(steps=float("nan"))),
        ("settings are not a mapping", lambda record: record["spec"]["augmenter"].update(settings=True)),
        ("'schema'", lambda record: record.update(schema=2)),
        ("unknown key 'note'", lambda record: record.update(note="better")),
        ("embedded does not name 'augmenter diag'", lambda record: record["provenance"].update(embedded=[])),
    ],
)
def test_spec_form_and_labels_are_held_to(tiles, what, change):
    key = edit(first(tiles, "cells"), change)
    refused = [line for line in check_results(tiles).refused if f"cell '{key}'" in line]
    assert any(what in line for line in refused), refused


def test_nothing_a_file_may_hold_ends_in_a_traceback(tiles):
    contents = [b"", b"[]", b"{", b'{"key": NaN}', b"\xff\xfe", b'{"key": 1, "spec": {"data": []}}']
    paths = sorted((tiles / "cells").iterdir())
    for path, content in zip(paths, contents, strict=False):
        path.write_bytes(content)
    edit_nan = json.loads(paths[-1].read_text())
    edit_nan["spec"]["augmenter"]["key_settings"] = {"x": float("nan")}
    paths[-1].write_text(json.dumps(edit_nan))
    refused = check_results(tiles).refused
    for path in (*paths[: len(contents)], paths[-1]):
        assert sum(f"cell '{path.stem}'" in line for line in refused) == 1


# -- scores


def test_scores_are_there_and_belong_to_a_record(tiles):
    path = first(tiles, "scores")
    path.rename(path.with_name("other.parquet"))
    assert check_results(tiles).refused == [
        f"cell '{path.stem}': its scores are missing",
        "scores 'other': they belong to no record",
    ]


def test_better_logits_do_not_fit_the_record(tiles):
    def better(table):
        table.loc[table["label"] != "good", "logit"] += 1
        return table.astype({"logit": "float32"})

    key = edit_scores(first(tiles, "scores"), better)
    refused = check_results(tiles).refused
    assert f"cell '{key}': ap is" in refused[0]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("of type double", lambda table: table.astype({"logit": "float64"})),
        ("have the column 'extra'", lambda table: table.assign(extra=1)),
        ("lack label", lambda table: table.drop(columns="label")),
        ("not finite", lambda table: table.assign(logit=table["logit"].where(table.index > 0, float("inf")))),
        ("contain '", lambda table: pd.concat([table, table.head(1)])),
        ("no normal or no defect", lambda table: table[(table["label"] == "good") | (table["part"] == "heldout")]),
        ("held-out scores", lambda table: table[table["part"] == "test"]),
        ("the part 'train'", lambda table: table.assign(part=table["part"].where(table.index > 0, "train"))),
        ("logits none", lambda table: table.drop(columns="logit")),
    ],
)
def test_scores_that_cannot_be_a_cells_are_refused(tiles, what, change):
    key = edit_scores(first(tiles, "scores"), change)
    assert what in next(line for line in check_results(tiles).refused if key in line)


def test_damaged_scores_are_named(tiles):
    path = first(tiles, "scores")
    path.write_bytes(path.read_bytes()[:-20])
    assert f"cell '{path.stem}': its scores are no whole Parquet file" in only(check_results(tiles))


@pytest.mark.parametrize("column", ["id", "group"])
def test_cells_of_one_data_spec_are_evaluated_on_the_same_images(tiles, column):
    def other(table):
        table.loc[3, column] = "elsewhere"
        return table

    key = edit_scores(first(tiles, "scores"), other)
    line = only(check_results(tiles))
    assert key in line and "images are not those of" in line and "differ in id, label or group" in line


# -- grids, fidelity, searches


def test_missing_cells_are_noted(neu):
    path = first(neu, "cells")
    path.unlink()
    (neu / "scores" / f"{path.stem}.parquet").unlink()
    verdict = check_results(neu)
    assert not verdict.refused
    assert f"grid 'neu_small': 1 of 12 cells are missing: '{path.stem}'" in verdict.said


def test_a_grid_cannot_call_cells_by_other_names(neu):
    def swap(grid):
        names = {"none": "stablesdg", "stablesdg": "none"}
        for cell in grid["cells"]:
            cell["augmenter"] = names.get(cell["augmenter"], cell["augmenter"])

    edit(first(neu, "grids"), swap)
    refused = check_results(neu).refused
    assert "has augmenter 'stablesdg', its record says 'none'" in refused[0]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("the protocol 'recognition_small'", lambda grid: grid["protocols"][0].update(epochs=500)),
        ("the augmenter 'memseg' with the settings", lambda grid: grid["augmenters"][1].update(settings={})),
        ("the dataset 'neu'", lambda grid: grid["datasets"][0].update({"as": "steel"})),
        ("is called 'other'", lambda grid: grid.update(name="other")),
        ("unknown key 'note'", lambda grid: grid.update(note="x")),
    ],
)
def test_a_grid_holds_what_its_cells_are_made_of(neu, what, change):
    edit(first(neu, "grids"), lambda content: change(content["grid"]))
    refused = check_results(neu).refused
    assert refused and all(line.startswith("grid 'neu_small': ") for line in refused)
    assert what in refused[0]


def test_classes_that_keys_do_not_hold_are_compared(neu):
    key = edit(first(neu, "fidelity"), lambda record: record["spec"]["pool"]["data"]["classes"].reverse())
    assert f"fidelity '{key}': its classes are " in only(check_results(neu))


@pytest.mark.parametrize(
    ("settings", "what"),
    [({}, "enter keys on this machine as something else"), ({"source": "x"}, "were not compared with its keys")],
)
def test_settings_are_compared_with_what_keys_hold(neu, settings, what):
    for path in (neu / "cells").glob("*-memseg-*"):
        edit(path, lambda record: record["spec"]["augmenter"].update(settings=settings))
    assert any(line.startswith("augmenter 'memseg': its settings") and what in line for line in check_results(neu).said)


def test_values_of_any_kind_end_in_a_refusal_or_a_note(neu):
    """A sample of what stands in JSON files, each put in place of something else."""
    values = [None, [], {}, "x", -1, float("nan"), [1, "a"], True]
    rng = random.Random(0)
    for path in (first(neu, "cells"), first(neu, "fidelity"), first(neu, "searches"), first(neu, "grids")):
        whole = path.read_bytes()
        for _ in range(4):
            content = json.loads(whole)
            place = content
            while True:
                step = rng.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
                if not isinstance(place[step], dict | list) or not place[step] or rng.random() < 0.2:
                    break
                place = place[step]
            place[step] = rng.choice(values)
            path.write_text(json.dumps(content))
            assert check_results(neu).summary
        path.write_bytes(whole)


def test_a_grid_cannot_take_the_fidelity_of_another_augmenter(neu):
    def borrow(grid):
        cells = {cell["key"]: cell for cell in grid["cells"]}
        own, other = (next(c for c in cells.values() if c["augmenter"] == n) for n in ("stablesdg", "memseg"))
        own["fidelity"] = other["fidelity"]

    edit(first(neu, "grids"), borrow)
    assert "did not use the pool of" in only(check_results(neu))


@pytest.mark.parametrize(
    ("kind", "what", "change"),
    [
        ("fidelity", "gives the key", lambda record: record["spec"].update(pictures=100)),
        ("fidelity", "made is 100", lambda record: record["result"].update(made=100)),
        ("fidelity", "real is 5", lambda record: record["result"].update(real=5)),
        ("fidelity", "ends below", lambda record: record["result"].update(kid_interval=[0.2, 0.1])),
        ("fidelity", "'result.kid'", lambda record: record["result"].update(kid="low")),
        ("searches", "gives the key", lambda record: record["spec"].update(shots=5)),
        ("searches", "chosen is", lambda record: record["result"].update(chosen={"strength": 0.8})),
        ("searches", "the mean of its scores", lambda record: record["result"]["table"][0].update(score=0.1)),
        ("searches", "is not sorted", lambda record: record["result"]["table"].reverse()),
    ],
)
def test_fidelity_and_searches_are_held_to_what_is_known(neu, kind, what, change):
    key = edit(first(neu, kind), change)
    refused = check_results(neu).refused
    assert any(key in line and what in line for line in refused), refused


def test_reports_of_other_numbers_are_noted(neu):
    path = neu / "reports" / "neu_small" / "report.md"
    path.write_text(path.read_text().replace(".928", ".998"))
    verdict = check_results(neu)
    assert not verdict.refused and any("report.md' differs" in line for line in verdict.said)


# -- files that must not be there


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pools/x/images/00000.png", "'pools/' (1 files) is not published"),
        ("fingerprints/neu.json", "'fingerprints/' (1 files) is not published"),
        ("cells/sample.png", "is an image"),
        ("scores/model.safetensors", "is weights"),
        ("cells/x.pkl", "is a pickle"),
        ("notes.txt", "is no part of a published store"),
        (".hidden", "is no part of a published store"),
        ("reports/neu_small/page.exe", "is no file that `augbench report` writes"),
        ("reports/other/report.md", "is no file that `augbench report` writes"),
        ("reports/other/compare.md", "is no file that `augbench report` writes"),
        ("reports/neu_small/inout_table9.md", "is no file that `augbench report` writes"),
    ],
)
def test_what_is_not_published_is_refused(neu, name, what):
    (neu / name).parent.mkdir(parents=True, exist_ok=True)
    (neu / name).write_bytes(b"x")
    line = only(check_results(neu))
    assert name.split("/")[0] in line and what in line


def test_a_comparison_and_a_paper_s_layout_may_lie_beside_a_report(neu):
    for name in ("compare.md", "pareto.svg", "diag_table1.html"):
        (neu / "reports" / "neu_small" / name).write_bytes(b"x")
    assert not check_results(neu).refused


def test_large_files_links_and_a_missing_readme_are_refused(neu):
    (neu / "README.md").unlink()
    (neu / "notes.txt").symlink_to("/etc/hostname")
    report = neu / "reports" / "neu_small" / "report.md"
    report.write_bytes(report.read_bytes() + b" " * 20_000_000)
    text = "\n".join(check_results(neu).refused)
    assert "'README.md' is missing" in text and "'notes.txt' is a link" in text and "20,000,000 are the most" in text


def test_provenance_is_noted(tiles):
    paths = sorted((tiles / "cells").iterdir())
    edit(paths[0], lambda record: record["provenance"].update(git_sha=None))
    edit(paths[1], lambda record: record["provenance"].update(git_sha="a" * 40 + "-dirty"))
    edit(paths[2], lambda record: record["provenance"].update(device="other"))
    edit(paths[3], lambda record: record["spec"]["augmenter"]["settings"].update(mask_folder="/home/me/masks"))
    text = "\n".join(check_results(tiles).said)
    assert "1 cell made at an unknown commit" in text
    assert "1 cell made at a commit with changes" in text
    assert "more than one device" in text and "other (1 cells)" in text
    assert "absolute paths: '/home/me/masks'" in text
    assert "mechanics, not evidence (augmenter diag, backbone micro_resnet)" in text


def test_a_folder_that_is_no_store_is_refused_in_one_line(tmp_path):
    assert_one_line(cli("results", "check", tmp_path / "none"), "none", "export")
    (tmp_path / "empty").mkdir()
    assert_one_line(cli("results", "check", tmp_path / "empty"), "empty", "export")


def test_a_thousand_records_are_checked_in_time(tiles):
    key = first(tiles, "cells").stem
    record = json.loads((tiles / "cells" / f"{key}.json").read_text())
    scores = (tiles / "scores" / f"{key}.parquet").read_bytes()
    for seed in range(100, 150):
        record["spec"]["seed"] = seed
        record["key"] = Cell.from_dict(record["spec"]).key
        (tiles / "cells" / f"{record['key']}.json").write_bytes(json_bytes(record))
        (tiles / "scores" / f"{record['key']}.parquet").write_bytes(scores)
    started = time.process_time()
    verdict = check_results(tiles)
    assert verdict.refused == [] and verdict.counts["cell"] == 59
    assert any("51 cells have the same logits" in line for line in verdict.said)
    assert (time.process_time() - started) / 59 < 0.06  # s of a core; about 0.02 are usual


# -- export


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A store that a run left, with pools, leases and two grids."""
    store = Store(tmp_path_factory.mktemp("full") / "store")
    for name, seeds in (("one", [0]), ("two", [0, 1])):
        run(tiny_grid(name=name, about="Tiny.", shots=[5], seeds=seeds), store, executor="inline")
    return store


def bytes_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_passes_the_check_and_is_whole(full, tmp_path):
    out = tmp_path / "out"
    export(full, out)
    verdict = check_results(out)
    assert verdict.refused == [] and verdict.counts == {"cell": 4, "fidelity record": 0, "search": 0, "grid": 2}
    assert {path.name for path in out.iterdir()} == {"cells", "scores", "grids", "reports", "README.md", "costs.json"}
    for key in full.keys("cells"):
        for kind in ("cells", "scores"):
            name = full.name(kind, key)
            assert (out / name).read_bytes() == full.files.read(name)
    assert any(COMPLETE in line for line in verdict.said)
    before = bytes_of(out)
    export(full, out)
    export(full, tmp_path / "again" / "out")
    assert bytes_of(out) == before == bytes_of(tmp_path / "again" / "out")


def test_one_grid_can_be_exported(full, tmp_path):
    found = cli("results", "export", full.url, "--out", tmp_path / "one", "--grid", "one")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "2 cells" in found.stdout and "all is well" in found.stdout
    assert Store(tmp_path / "one").keys("grids") == {"one"}


def test_costs_come_along_and_are_held_to_their_keys(full, tmp_path):
    export(full, tmp_path / "both")
    export(full, tmp_path / "one", "one")
    pools, own = (json.loads((tmp_path / name / "costs.json").read_text())["costs"] for name in ("both", "one"))
    assert {part["kind"] for part in pools.values()} == {"pools"} and own.items() <= pools.items() and own
    assert pools.keys() == full.keys("pools")
    records = Store(tmp_path / "one").read_records(sorted(Store(tmp_path / "one").keys("cells")))
    assert own.keys() == {use["key"] for record in records for use in record["provenance"]["pools"]}
    path = tmp_path / "one" / "costs.json"
    edit(path, lambda content: content["costs"][min(own)]["spec"].update(seed=9))
    assert f"costs of pool '{min(own)}': its spec gives the key" in only(check_results(tmp_path / "one"))
    path.write_text("{}")
    assert "costs: '" in only(check_results(tmp_path / "one"))


@pytest.fixture(scope="module")
def descended(tmp_path_factory):
    """A published store, zero-shot and few-shot: an augmenter that learns, a mixture, and a mixture of a mixture."""
    store, out = (tmp_path_factory.mktemp(name) / name for name in ("store", "descended"))
    parts = [{"name": name, "share": 0.5} for name in ("memseg", "toy")]
    mixture = {"name": "mixture", "settings": {"parts": parts}}
    both = [{"name": "cutpaste", "share": 0.5}, mixture | {"share": 0.5}]
    nested = {"name": "mixture", "as": "nested", "settings": {"parts": both}}
    foreign = {"name": "searcher", "settings": {"learner": False}, "shots": [5]}
    augmenters = ["toy", "cutpaste", mixture, nested, foreign]
    run(tiny_grid(augmenters=augmenters, seeds=[0, 1]), Store(store), executor="inline")
    export(Store(store), out)
    return out


def _key_of(folder, start):
    """The key of the part of a published store that begins like this; "" for none."""
    keys = json.loads((folder / "costs.json").read_text())["costs"]
    return next((key for key in sorted(keys) if start and key.startswith(f"surfaces-{start}")), "")


TOY, MIXTURE, NESTED = (f"surfaces-{name}-few5-n6-s0" for name in ("toy", "mixture", "nested"))


@pytest.mark.parametrize(
    ("cell", "pool", "change", "what"),
    [
        (TOY, "", lambda own, _: own["pools"][0].update(n=5), "hold 5 images, it trained on 6"),
        (TOY, "toy-s0", lambda own, key: own["pools"][0].update(key=key), "which has other 'shots'"),
        (TOY, "toy-few5-s1", lambda own, key: own["pools"][0].update(key=key), "which has other 'seed'"),
        (TOY, "memseg-s0", lambda own, key: own["pools"][0].update(key=key), "which has other 'augmenter'"),
        (MIXTURE, "cutpaste-s0", lambda own, key: own["pools"][0].update(key=key), "which has other 'augmenter'"),
        (NESTED, "cutpaste-s1", lambda own, key: own["pools"][1].update(key=key), "which has other 'seed'"),
        (NESTED, "searcher-few5-s0", lambda own, key: own["pools"][1].update(key=key), "which has other 'augmenter'"),
        (TOY, "", lambda own, _: own.update(adapters=["x"]), "adapters hold 'x', which its pools did not need"),
        (MIXTURE, "", lambda own, _: own.update(searches=["x"]), "searches hold 'x', which its pools did not need"),
        (MIXTURE, "", lambda own, _: own.update(adapters=[]), "adapters lack 'surfaces-toy-few5-"),
        (TOY, "", lambda own, _: own.pop("adapters"), "provenance.adapters is missing beside the rest"),
        (TOY, "", lambda own, _: own["pools"][0].update(n="6"), "provenance.pools.0.n"),
    ],
)
def test_a_forged_lineage_is_refused(descended, tmp_path, cell, pool, change, what):
    folder = shutil.copytree(descended, tmp_path / "copy")
    (path,) = (folder / "cells").glob(f"{cell}-*")
    edit(path, lambda record: change(record["provenance"], _key_of(folder, pool)))
    refused = check_results(folder).refused
    assert refused and all(line.startswith(f"cell '{path.stem}': ") for line in refused)
    assert any(what in line for line in refused), refused


def test_records_older_than_lineage_pass_as_before(descended, tmp_path):
    folder = shutil.copytree(descended, tmp_path / "copy")
    for path in (folder / "cells").iterdir():
        edit(path, lambda record: [record["provenance"].pop(name) for name in ("pools", "adapters", "searches")])
    assert check_results(descended).refused == check_results(folder).refused == []
    export(Store(folder), tmp_path / "out", "tiny")
    assert (tmp_path / "out" / "costs.json").read_bytes() == (descended / "costs.json").read_bytes()


def test_a_readme_says_how_it_was_made_and_a_persons_stays(full, tmp_path):
    out = tmp_path / "out"
    export(full, out, "one")
    text = (out / "README.md").read_text()
    record = full.read_record(min(full.keys("cells")))
    assert "augbench run one.yaml" in text and "Tiny." in text and record["provenance"]["device"] in text
    assert "| memseg | 6 |" in text and "Oracle" not in text and "mechanics, not evidence" in text and COMPLETE in text
    assert text == readme(Store(out), "out")
    (out / "README.md").write_text("Mine.")
    export(full, out, "one")
    assert (out / "README.md").read_text() == "Mine."


def test_a_readme_does_not_pretend_to_know_what_was_set(full, tmp_path):
    store = Store(shutil.copytree(full.url, tmp_path / "copy"))
    content = store.read_json("grids", "one")
    content["grid"]["name"] = "one+3fa2b1"
    store.write_json("grids", "one+3fa2b1", content)
    export(store, tmp_path / "out", "one+3fa2b1")
    assert f"augbench run one.yaml --set {COMPLETE} --store" in (tmp_path / "out" / "README.md").read_text()
    assert check_results(tmp_path / "out").refused == []


def test_export_refuses_what_it_cannot_do(full, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    assert_one_line(cli("results", "export", full.url, "--out", out), "thesis.tex", "empty folder")
    assert (out / "thesis.tex").read_text() == "x" and len(list(out.iterdir())) == 1
    with pytest.raises(UserError, match=r"knows no grid 'on' \(did you mean 'one'\?\)"):
        export(full, tmp_path / "new", "on")
    with pytest.raises(UserError, match="holds no records"):
        export(Store(tmp_path / "nothing"), tmp_path / "new")
    with pytest.raises(UserError, match="is a file"):
        export(full, out / "thesis.tex")
    export(full, tmp_path / "both")
    with pytest.raises(UserError, match="holds other things"):
        export(full, tmp_path / "both", "one")  # cells of the other grid would stay
    with pytest.raises(UserError, match="holds other things"):
        export(full, Path(full.url))


def test_export_needs_scores(full, tmp_path):
    store = Store(shutil.copytree(full.url, tmp_path / "copy"))
    name = store.name("scores", min(store.keys("cells")))
    store.files.remove(name)
    with pytest.raises(UserError, match="is missing"):
        export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_searches_and_fidelity_come_along(neu, tmp_path):
    (neu / "searches" / "neu.arms").mkdir()
    (neu / "searches" / "neu.arms" / "000.json").write_text("{}")
    export(Store(neu), tmp_path / "out", "neu_small")
    counts = check_results(tmp_path / "out").counts
    assert counts == {"cell": 12, "fidelity record": 9, "search": 1, "grid": 1}

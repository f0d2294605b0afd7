"""Published results: records that follow from their scores pass, others are refused by name."""

import json
import random
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from frozen_cells import NORMALS, PROBE, fill, frozen_plan
from helpers import ROOT, assert_one_line, cli, path_of, tiny_grid

from augbench.core.errors import UserError
from augbench.core.specs import Cell
from augbench.metrics.evaluate import evaluate
from augbench.monitoring.known_grids import known_from_store
from augbench.report.publish import contents
from augbench.report.publish.contents import COMPLETE
from augbench.report.publish.export import export, readme
from augbench.report.publish.unpack import unpack
from augbench.report.publish.verify import check_results
from augbench.runner.driver import run
from augbench.storage.publication import ARCHIVES, RECORDS, packed, unpacked
from augbench.storage.scores import scores_frame
from augbench.storage.store import Store

RESULTS = ROOT / "results"
NAN = float("nan")
STORES = sorted(path.parent.name for name in RECORDS for path in RESULTS.glob(f"*/{name}"))
FORMS = pytest.mark.parametrize(
    "form", [lambda folder: folder, lambda folder: as_lines(folder), lambda folder: as_files(folder)],
    ids=["archives", "lines", "files"],
)  # fmt: skip


@pytest.fixture
def neu(tmp_path):
    """Recognition, with fidelity and a search."""
    return shutil.copytree(RESULTS / "neu_stablesdg", tmp_path / "neu")


@pytest.fixture
def tiles(tmp_path):
    """Detection, with held-out images and fidelity."""
    return shutil.copytree(RESULTS / "magnetic_tile_diag", tmp_path / "tiles")


def as_files(folder):
    """Write a publication as the first versions did: one file per record, per score table and per grid."""
    return write_files(folder, folder.with_name(f"{folder.name}_files"), ARCHIVES)


def as_lines(folder):
    """Write a publication as later versions did: plain lines, but one file per grid."""
    out = write_files(folder, folder.with_name(f"{folder.name}_lines"), ["grids"])
    shutil.copy(folder / ARCHIVES["scores"], out)
    for kind, name in ARCHIVES.items():
        if name.endswith(".gz") and kind != "grids" and (folder / name).exists():
            (out / name.removesuffix(".gz")).write_bytes(unpacked((folder / name).read_bytes()))
    return out


def write_files(folder, out, kinds):
    store = Store(folder)
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(*ARCHIVES.values()))
    for name in [store.name(kind, key) for kind in kinds for key in store.keys(kind)]:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(store.files.read(name))
        if name.startswith("grids/"):
            edit_file(out / name, lambda content: content.pop("key"))
    return out


def lines_of(folder, kind="cells"):
    return unpacked((folder / ARCHIVES[kind]).read_bytes()).decode().splitlines()


def write_lines(folder, lines, kind="cells"):
    (folder / ARCHIVES[kind]).write_bytes(packed("".join(f"{line}\n" for line in lines).encode()))


def edit_file(path, change):
    """Change a JSON file as a person with an editor would."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit(folder, kind, change, number=0):
    """Change a record; return its key."""
    lines = lines_of(folder, kind)
    record = json.loads(lines[number])
    key = record["key"]
    change(record)
    lines[number] = json.dumps(record)
    write_lines(folder, lines, kind)
    return key


def put(path, value):
    """A change of a record: put the value, or a function of the old one, at a path of names and indices."""

    def change(record):
        *above, last = (int(step) if step.lstrip("-").isdecimal() else step for step in path.split("."))
        for step in above:
            record = record[step]
        record[last] = value(record[last]) if callable(value) else value

    return change


def without(path):
    above, _, last = path.rpartition(".")
    return put(above, lambda held: {name: value for name, value in held.items() if name != last})


def edit_scores(folder, change):
    """Change the score table of the first cell; return its key."""
    whole = pd.read_parquet(folder / ARCHIVES["scores"])
    key = whole["key"].iloc[0]
    own = whole["key"] == key
    changed = change(whole[own].drop(columns="key")).assign(key=key)
    pd.concat([changed, whole[~own]]).to_parquet(folder / ARCHIVES["scores"], index=False)
    return key


def remove_first(folder):
    """Remove the first record; return its key."""
    first, *rest = lines_of(folder)
    write_lines(folder, rest)
    return json.loads(first)["key"]


def only(verdict):
    assert len(verdict.refused) == 1, verdict.refused
    return verdict.refused[0]


def size_of(name):
    return (RESULTS / name / ARCHIVES["scores"]).stat().st_size


LARGE = [pytest.param(name, marks=pytest.mark.slow) if size_of(name) > 5e5 else name for name in STORES]


@pytest.mark.parametrize("name", LARGE)
def test_what_is_published_follows_from_its_scores(name):
    verdict = check_results(RESULTS / name)
    assert verdict.refused == []
    assert verdict.counts["cell"] and verdict == check_results(RESULTS / name)


# -- a record edited by hand


@FORMS
def test_a_higher_ap_is_refused_by_name(tiles, form):
    was = next(Store(tiles).read_records([min(Store(tiles).keys("cells"))]))["result"]["ap"]
    key = edit(tiles, "cells", put("result.ap", was + 0.01))
    line = only(check_results(form(tiles)))
    assert key in line and f"ap is {was + 0.01!r}, its scores give {was!r}" in line
    found = cli("results", "check", tiles)
    assert found.returncode == 2 and key in found.stdout and "1 problem" in found.stdout and not found.stderr


def scaled(value):
    return value * 0.99 + 0.001


@pytest.mark.parametrize(
    ("field", "change"),
    [
        *((name, put(f"result.{name}", scaled)) for name in (
            "ap_step", "ap_trapezoidal", "auroc", "recall_at_1pct_false_alarms", "oracle.threshold", "oracle.recall",
            "heldout.precision", "per_class.crack.ap", "accuracy", "macro_f1", "per_class.patches.f1")),
        *((name, without(f"result.{name}")) for name in ("per_class.crack", "auroc", "counts")),
        ("heldout", put("result.heldout", None)),
        ("iou", put("result.iou", 0.5)),
        *((name, put(f"result.{name}", 1)) for name in ("counts.test_positives", "counts.synthetic")),
        ("curves.test ends", put("result.curves.test.-1.ap", 0.999)),
        ("curves", put("result.curves.loss", lambda loss: loss[:-1])),
        ("curves", without("result.curves")),
        ("chosen is stated, a result of kind 'finetune' has none", put("result.chosen", {"C": 1.0})),
        ("best_epoch_oracle", put("result.best_epoch_oracle.ap", 0.999)),
        ("confusion[0][0]", put("result.confusion.0.0", 90)),
        ("classes[0]", put("result.classes.0", "other")),
    ],
)  # fmt: skip
def test_every_number_is_recomputed(tiles, neu, field, change):
    of_neu = ("accuracy", "macro_f1", "confusion", "classes", "per_class.patches")
    folder = neu if field.startswith(of_neu) else tiles
    key = edit(folder, "cells", change)
    refused = check_results(folder).refused
    assert any(f"cell '{key}': {field}" in line for line in refused), refused


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("gives the key", put("spec.seed", 7)),
        ("gives the key", put("spec.protocol.epochs", 41)),
        ("gives the key", put("spec.data.fingerprint", "0" * 64)),
        ("gives the key", put("spec.augmenter.key_settings.steps", 50)),
        ("its spec is not valid for cells", without("spec.seed")),
        *((f"seed is {seed!r}, not a whole number", put("spec.seed", seed)) for seed in (None, "0", 1.5, True)),
        ("unknown key 'epoch'", put("spec.protocol.epoch", 3)),
        ("'provenance.device' is missing", without("provenance.device")),
        ("'provenance.seconds.total'", put("provenance.seconds.total", -1.0)),
        ("its parts add up to", put("provenance.seconds.total", 1.0)),
        ("not JSON compliant", put("spec.augmenter.settings.steps", NAN)),
        ("settings are not a mapping", put("spec.augmenter.settings", True)),
        ("'schema'", put("schema", 2)),
        ("unknown key 'note'", put("note", "better")),
        ("embedded does not name 'augmenter diag'", put("provenance.embedded", [])),
    ],
)
def test_spec_form_and_labels_are_held_to(tiles, what, change):
    key = edit(tiles, "cells", change)
    refused = [line for line in check_results(tiles).refused if f"cell '{key}'" in line]
    assert any(what in line for line in refused), refused


NO_RECORDS = [b"", b"[]", b"{", b'{"key": NaN}', b'{"key": "../x"}', b"\xff\xfe", b"[" * 100_000]


def test_nothing_a_file_may_hold_ends_in_a_traceback(tiles):
    tiles = as_files(tiles)
    others = [*NO_RECORDS[:5], b'{"key": "x"}', b'{"key": "x", "spec": {"data": []}}']
    paths = sorted((tiles / "cells").iterdir())
    for path, content in zip(paths, others, strict=False):
        path.write_bytes(content)
    edit_file(paths[-1], put("spec.augmenter.key_settings", {"x": NAN}))
    refused = check_results(tiles).refused
    for path in (*paths[: len(others)], paths[-1]):
        assert sum(f"cell '{path.stem}'" in line for line in refused) == 1


# -- records of classifiers on frozen features


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A published store with probes of several protocols, and the distance to the normal images."""
    weights = {"fixed": {"C": 0.1, "synthetic_weight": 0.5}, "equal": {"synthetic_weight": "equal_mass"}}
    heads = {"lda": {"head": "lda", "synthetic_weight": 1.0}}
    protocols = [PROBE, NORMALS, *(PROBE | {"name": name, **fields} for name, fields in (weights | heads).items())]
    store, out = (tmp_path_factory.mktemp(name) / name for name in ("store", "probed"))
    export(fill(Store(store), frozen_plan(protocols=protocols, draws=[0, 1]), (0.1, 0.0)), out)
    return out


def numbered(folder, protocol, augmenter, shots):
    """The number of the first record of that protocol, augmenter and shots."""
    specs = [json.loads(line)["spec"] for line in lines_of(folder)]
    names = [(spec["protocol"]["name"], spec["augmenter"]["name"], spec["shots"]) for spec in specs]
    return names.index((protocol, augmenter, shots))


def rekeyed(change):
    """The change, and the key that the spec gives then."""

    def both(record):
        change(record)
        record["key"] = Cell.from_dict(record["spec"]).key

    return both


def test_probes_follow_from_their_scores(probed):
    verdict = check_results(probed)
    assert verdict.refused == [] and verdict.counts["cell"] == 4 * (3 + 2 * 4) + 1


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_probe_whose_synthetic_images_count_nothing_may_equal_one_without(probed, tmp_path, weight):
    """Give a cell with synthetic images the result and logits of that without."""
    folder = shutil.copytree(probed, tmp_path / "copy")
    none, memseg = (json.loads(lines_of(folder)[numbered(folder, "probing", name, 5)]) for name in ("none", "memseg"))
    counts = memseg["result"]["counts"]
    result = {**none["result"], "counts": counts, "chosen": {"C": 0.01, "synthetic_weight": weight}}
    edit(folder, "cells", put("result", result), numbered(folder, "probing", "memseg", 5))
    table = pd.read_parquet(folder / ARCHIVES["scores"])
    own = table["key"] == memseg["key"]
    table.loc[own, "logit"] = table.loc[table["key"] == none["key"], "logit"].to_numpy()
    table.to_parquet(folder / ARCHIVES["scores"], index=False)
    verdict = check_results(folder)
    assert verdict.refused == []
    assert any("same logits" in line and memseg["key"] in line for line in verdict.said) == (weight > 0)


@pytest.mark.parametrize(
    ("where", "what", "change"),
    [
        (("probing", "memseg", 5), "chosen: 'C'", put("result.chosen.C", -1.0)),
        (("probing", "memseg", 5), "chosen: 'C'", put("result.chosen.C", "cv")),
        (("probing", "memseg", 5), "chosen.C is None, its spec gives a number", put("result.chosen.C", None)),
        (("probing", "memseg", 5), "chosen: 'synthetic_weight'", put("result.chosen.synthetic_weight", -0.1)),
        (("probing", "memseg", 5), "chosen.synthetic_weight is None", put("result.chosen.synthetic_weight", None)),
        (("probing", "none", 5), "chosen.synthetic_weight is 0.5, its spec gives None",
         put("result.chosen.synthetic_weight", 0.5)),
        (("fixed", "none", 5), "chosen.C is 0.01, its spec gives 0.1", put("result.chosen.C", 0.01)),
        (("fixed", "memseg", 5), "chosen.synthetic_weight is 1.0, its spec gives 0.5",
         put("result.chosen.synthetic_weight", 1.0)),
        (("equal", "memseg", 5), "chosen.synthetic_weight is 1.0, its spec gives 0.8333",
         put("result.chosen.synthetic_weight", 1.0)),
        (("equal", "memseg", 0), "chosen.synthetic_weight is 0.1, its spec gives 1.0",
         put("result.chosen.synthetic_weight", 0.1)),
        (("lda", "memseg", 5), "chosen.C is 1.0, its spec gives None", put("result.chosen.C", 1.0)),
        (("probing", "memseg", 0), "chosen: unknown key 'alpha'", put("result.chosen.alpha", 1.0)),
        (("probing", "memseg", 0), "chosen: ", without("result.chosen")),
        (("probing", "memseg", 0), "chosen: ", put("result.chosen", [1])),
        (("probing", "memseg", 0), "ap is", put("result.ap", 0.25)),
        (("probing", "memseg", 0), "counts.synthetic is 7", put("result.counts.synthetic", 7)),
        (("probing", "memseg", 0), "curves is stated, a result of kind 'probe' has none",
         put("result.curves", {"loss": [1.0], "test": []})),
        (("normals", "none", 0), "best_epoch_oracle is stated, a result of kind 'gaussian' has none",
         put("result.best_epoch_oracle", {"epoch": 1, "ap": 0.5})),
        *((("normals", "none", 0), "chosen: 'shrinkage'", put("result.chosen.shrinkage", wrong))
          for wrong in (-0.1, 1.5, None, "0.5", NAN)),
        (("probing", "none", 5), "seed is 0, but nothing is random", rekeyed(put("spec.seed", 0))),
        (("normals", "none", 0), "seed is 7, but nothing is random", rekeyed(put("spec.seed", 7))),
        (("probing", "memseg", 5), "seed is None, not a whole number", rekeyed(put("spec.seed", None))),
        (("probing", "memseg", 5), "gives the key", put("spec.seed", 7)),
        (("fixed", "memseg", 5), "gives the key", put("spec.protocol.C", 1.0)),
    ],
)  # fmt: skip
def test_a_forged_probe_is_refused(probed, tmp_path, where, what, change):
    folder = shutil.copytree(probed, tmp_path / "copy")
    edit(folder, "cells", change, numbered(folder, *where))
    refused = check_results(folder).refused
    assert any(line.startswith("cell '") and what in line for line in refused), refused


# -- archives


@pytest.mark.parametrize("line", NO_RECORDS)
def test_a_line_that_is_no_record_is_named(tiles, line):
    path = tiles / ARCHIVES["cells"]
    lines = unpacked(path.read_bytes()).splitlines()
    path.write_bytes(packed(b"\n".join([*lines[:6], line, *lines[6:]]) + b"\n"))
    assert f"{path}' is damaged (line 7 is no record with a key)" in only(check_results(tiles))


@pytest.mark.parametrize("kind", ["cells", "fidelity"])
def test_a_doubled_line_is_named(tiles, kind):
    lines = lines_of(tiles, kind)
    write_lines(tiles, [*lines, lines[2]], kind)
    key = json.loads(lines[2])["key"]
    assert f"{ARCHIVES[kind]}' is damaged (line {len(lines) + 1} repeats the key '{key}')" in only(check_results(tiles))
    assert_one_line(cli("store", "check", tiles), ARCHIVES[kind], "repeats the key")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("row 3169 repeats the key 'magnetic_tile-", lambda table: pd.concat([table, table.head(1)])),
        ("row 4 has no key", lambda table: table.assign(key=table["key"].where(table.index != 3))),
        ("the column 'key' of type int64", lambda table: table.assign(key=0)),
        ("nothing in the column 'logit_x'", lambda table: table.assign(logit_x=table["logit"] * NAN)),
        ("nothing in the column 'key'", lambda table: table.head(0)),
    ],
)
def test_rows_without_a_cell_of_their_own_are_named(tiles, what, change):
    path = tiles / ARCHIVES["scores"]
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    line = only(check_results(tiles))
    assert str(path) in line and what in line


@FORMS
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("the column 'logit' of type double", lambda table: table.astype({"logit": "float64"})),
        ("the column 'extra' of type int64", lambda table: table.assign(extra=1)),
        ("lack label", lambda table: table.drop(columns="label")),
    ],
)
def test_tables_that_are_no_scores_are_named(tiles, form, what, change):
    tiles = form(tiles)
    path = min(tiles.rglob("*.parquet"))
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    line = only(check_results(tiles))
    assert (path.stem in line and f"its scores have {what}" in line) or f"its scores {what}" in line
    path.write_bytes(path.read_bytes()[:-20])
    line = only(check_results(tiles))
    assert path.stem in line and "its scores are no whole Parquet file" in line
    assert_one_line(cli("compare", tiles), str(path))


def test_no_command_goes_on_with_a_publication(neu):
    (known,) = known_from_store(Store(neu))
    assert known.name == "neu_small" and len(known.outline.cells) == 12 and known.again is None


@pytest.mark.parametrize("other", ["records.jsonl", "cells/", "grids/"])
def test_two_forms_in_one_folder_are_refused(neu, other):
    (neu / other).mkdir() if other.endswith("/") else (neu / other).touch()
    own = ARCHIVES["grids" if other == "grids/" else "cells"]
    assert_one_line(cli("results", "check", neu), str(neu), f"holds '{own}' and '{other}'", "remove all but one")


# -- scores


@FORMS
def test_a_record_without_scores_and_scores_without_a_record_are_refused(tiles, neu, form):
    lonely = edit_scores(tiles, lambda table: table.head(0))
    assert only(check_results(form(tiles))) == f"cell '{lonely}': its scores are missing"
    strays = remove_first(neu)
    assert only(check_results(form(neu))) == f"scores '{strays}': they belong to no record"


@FORMS
def test_better_logits_do_not_fit_the_record(tiles, form):
    key = edit_scores(tiles, lambda table: table.assign(logit=table["logit"] + (table["label"] != "good").astype("f4")))
    assert f"cell '{key}': ap is" in check_results(form(tiles)).refused[0]


@FORMS
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("not finite", lambda table: table.assign(logit=table["logit"].where(table.index > 0, float("inf")))),
        ("lack rows, or values of id", lambda table: table.assign(id=table["id"].where(table.index > 0))),
        ("contain '", lambda table: pd.concat([table, table.head(1)])),
        ("no normal or no defect", lambda table: table[(table["label"] == "good") | (table["part"] == "heldout")]),
        ("held-out scores", lambda table: table[table["part"] == "test"]),
        ("the part 'train'", lambda table: table.assign(part=table["part"].where(table.index > 0, "train"))),
        ("logits none", lambda table: table.drop(columns="logit")),
        ("images are not those of", lambda table: table.assign(id=table["id"].where(table.index != 3, "elsewhere"))),
        ("differ in id, label or group", lambda table: table.assign(group=table["group"].where(table.index > 0, "x"))),
        ("images are not those of", lambda table: table.drop(index=3)),
    ],
)
def test_scores_that_cannot_be_a_cells_are_refused(tiles, form, what, change):
    key = edit_scores(tiles, change)
    assert any(key in line and what in line for line in check_results(form(tiles)).refused)


# -- grids, fidelity, searches


@FORMS
def test_missing_cells_are_noted(neu, form):
    key = remove_first(neu)
    edit_scores(neu, lambda table: table.head(0))
    verdict = check_results(form(neu))
    assert not verdict.refused
    assert f"grid 'neu_small': 1 of 12 cells are missing: '{key}'" in verdict.said


def swap_names(content):
    names = {"none": "stablesdg", "stablesdg": "none"}
    for cell in content["cells"]:
        cell["augmenter"] = names.get(cell["augmenter"], cell["augmenter"])


def borrow_fidelity(content):
    own, other = (
        next(cell for cell in content["cells"] if cell["augmenter"] == name) for name in ("stablesdg", "memseg")
    )
    own["fidelity"] = other["fidelity"]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("has augmenter 'stablesdg', its record says 'none'", swap_names),
        ("did not use the pool of", borrow_fidelity),
        ("the protocol 'recognition_small'", put("grid.protocols.0.epochs", 500)),
        ("the augmenter 'memseg' with the settings", put("grid.augmenters.1.settings", {})),
        ("the dataset 'neu'", put("grid.datasets.0.as", "steel")),
        ("is called 'other'", put("grid.name", "other")),
        ("unknown key 'note'", put("grid.note", "x")),
    ],
)
def test_a_grid_names_its_cells_and_what_they_are_made_of_as_their_records_do(neu, what, change):
    edit(neu, "grids", change)
    refused = check_results(neu).refused
    assert refused and all(line.startswith("grid 'neu_small': ") for line in refused)
    assert what in refused[0]


@pytest.mark.parametrize(
    ("settings", "what"),
    [({}, "enter keys on this machine as something else"), ({"source": "x"}, "were not compared with its keys")],
)
def test_settings_are_compared_with_what_keys_hold(neu, settings, what):
    for number, line in enumerate(lines_of(neu)):
        if "-memseg-" in json.loads(line)["key"]:
            edit(neu, "cells", put("spec.augmenter.settings", settings), number)
    assert any(line.startswith("augmenter 'memseg': its settings") and what in line for line in check_results(neu).said)


def test_values_of_any_kind_end_in_a_refusal_or_a_note(neu):
    """A sample of what stands in JSON files, each put in place of something else."""
    values = [None, [], {}, "x", -1, NAN, [1, "a"], True]
    rng = random.Random(0)

    def replace(place):
        while True:
            step = rng.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[step], dict | list) or not place[step] or rng.random() < 0.2:
                break
            place = place[step]
        place[step] = rng.choice(values)

    for kind in ("cells", "fidelity", "searches", "grids"):
        path = neu / ARCHIVES[kind]
        whole = path.read_bytes()
        for _ in range(4):
            edit(neu, kind, replace)
            assert check_results(neu).summary
            path.write_bytes(whole)


@pytest.mark.parametrize(
    ("kind", "what", "change"),
    [
        ("fidelity", "gives the key", put("spec.pictures", 100)),
        ("fidelity", "its classes are ", put("spec.pool.data.classes", lambda names: names[::-1])),  # not in keys
        ("fidelity", "made is 100", put("result.made", 100)),
        ("fidelity", "real is 5", put("result.real", 5)),
        ("fidelity", "ends below", put("result.kid_interval", [0.2, 0.1])),
        ("fidelity", "'result.kid'", put("result.kid", "low")),
        ("searches", "gives the key", put("spec.shots", 5)),
        ("searches", "chosen is", put("result.chosen", {"strength": 0.8})),
        ("searches", "the mean of its scores", put("result.table.0.score", 0.1)),
        ("searches", "is not sorted", put("result.table", lambda rows: rows[::-1])),
    ],
)
def test_fidelity_and_searches_are_held_to_what_is_known(neu, kind, what, change):
    key = edit(neu, kind, change)
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
        ("reports/neu_small/sample.png", "is an image"),
        ("reports/neu_small/model.safetensors", "is weights"),
        ("reports/neu_small/x.pkl", "is a pickle"),
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
    for name in ("compare.md", "pareto.svg", "diag_table1.html", "diag_table3.md"):
        (neu / "reports" / "neu_small" / name).write_bytes(b"x")
    assert not check_results(neu).refused


def test_large_files_links_and_a_missing_readme_are_refused(neu, monkeypatch):
    (neu / "README.md").unlink()
    (neu / "notes.txt").symlink_to("/etc/hostname")
    report = neu / "reports" / "neu_small" / "report.md"
    report.write_bytes(report.read_bytes() + b" " * 20_000_000)
    monkeypatch.setattr(contents, "MAX_ARCHIVE_BYTES", 100_000)
    text = "\n".join(check_results(neu).refused)
    assert "'README.md' is missing" in text and "'notes.txt' is a link" in text and "20,000,000 are the most" in text
    assert "'scores.parquet' has 131," in text and ARCHIVES["cells"] not in text


def test_provenance_is_noted(tiles):
    changes = {
        "1 cell made at an unknown commit": put("provenance.git_sha", None),
        "1 cell made at a commit with changes": put("provenance.git_sha", "a" * 40 + "-dirty"),
        "other (1 cells)": put("provenance.device", "other"),
        "absolute paths: '/home/me/masks'": put("spec.augmenter.settings.mask_folder", "/home/me/masks"),
    }
    for number, change in enumerate(changes.values()):
        edit(tiles, "cells", change, number)
    text = "\n".join(check_results(tiles).said)
    label = "smoke-test parts: not evidence (augmenter diag, backbone micro_resnet)"
    for what in (*changes, "more than one device", label):
        assert what in text


def test_a_folder_that_is_no_store_is_refused_in_one_line(tmp_path):
    assert_one_line(cli("results", "check", tmp_path / "none"), "none", "export")
    (tmp_path / "empty").mkdir()
    assert_one_line(cli("results", "check", tmp_path / "empty"), "empty", "export")


def test_a_thousand_records_are_checked_in_time(tiles):
    lines, scores = lines_of(tiles), [pd.read_parquet(tiles / ARCHIVES["scores"])]
    record = json.loads(lines[0])
    own = scores[0][scores[0]["key"] == record["key"]]
    for seed in range(100, 150):
        record["spec"]["seed"] = seed
        record["key"] = Cell.from_dict(record["spec"]).key
        lines.append(json.dumps(record))
        scores.append(own.assign(key=record["key"]))
    write_lines(tiles, lines)
    pd.concat(scores).to_parquet(tiles / ARCHIVES["scores"], index=False)
    protocol = Cell.from_dict(record["spec"]).protocol
    evaluate(own, protocol)  # libraries are imported
    started = time.process_time()
    for _ in range(59):
        evaluate(own, protocol)
    evaluated = time.process_time()
    verdict = check_results(tiles)
    checked = time.process_time()
    assert verdict.refused == [] and verdict.counts["cell"] == 59
    assert any("51 cells have the same logits" in line for line in verdict.said)
    assert checked - evaluated < 3 * (evaluated - started), "twice what the metrics alone take is usual"


# -- export


def assert_same_records(store, other):
    for kind in ARCHIVES:
        assert store.keys(kind) == other.keys(kind)
        for name in (store.name(kind, key) for key in store.keys(kind)):
            one, two = (files.read(name) for files in (store.files, other.files))
            if kind == "scores":
                pd.testing.assert_frame_equal(scores_frame(one), scores_frame(two), check_exact=True)
            else:
                one, two = map(json.loads, (one, two))
                own = ("command", "key") if kind == "grids" else ()  # of a store alone, of a publication alone
                assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in two.items() if k not in own}


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
    own = {*(ARCHIVES[kind] for kind in ("cells", "scores", "grids")), "reports", "README.md", "costs.json"}
    assert {path.name for path in out.iterdir()} == own
    assert_same_records(full, Store(out))
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


def test_a_run_goes_on_from_published_results(full, tmp_path):
    """What was published is kept; only the cells that a grid adds are made."""
    export(full, tmp_path / "out")
    store = Store(tmp_path / "store")
    assert "cells 4, scores 4, grids 2" in unpack(Store(tmp_path / "out"), store)
    assert_same_records(Store(tmp_path / "out"), store)
    run(tiny_grid(name="two", about="Tiny.", shots=[5], seeds=[0, 1, 2]), store, executor="inline")
    added = store.keys("cells") - full.keys("cells")
    assert len(added) == 2 and len(store.keys("pools")) == 1  # of the new seed alone
    assert_same_records(full, Store(tmp_path / "out"))
    export(store, tmp_path / "more")
    verdict = check_results(tmp_path / "more")
    assert verdict.refused == [] and verdict.counts["cell"] == 4 + len(added)
    old, new = (json.loads((tmp_path / name / "costs.json").read_text())["costs"] for name in ("out", "more"))
    assert old.items() < new.items()


@pytest.mark.parametrize("writes", [1, 3, 7])
def test_an_interrupted_unpack_goes_on_and_leaves_no_cell_without_scores(full, tmp_path, monkeypatch, writes):
    export(full, tmp_path / "out")
    store, left = Store(tmp_path / "store"), [None] * writes
    write = type(store.files).write

    def stopped(files, name, data):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        write(files, name, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(store.files), "write", stopped)
        unpack(Store(tmp_path / "out"), store)
    assert store.keys("cells") <= store.keys("scores")
    unpack(Store(tmp_path / "out"), store)
    assert_same_records(Store(tmp_path / "out"), store)


def test_unpack_refuses_what_it_cannot_do(full, tmp_path):
    export(full, tmp_path / "out")
    export(full, tmp_path / "one", "one")
    taken = cli("results", "unpack", tmp_path / "one", "--store", full.url)
    assert_one_line(taken, full.url, "holds other results")
    store = Store(tmp_path / "edited")
    unpack(Store(tmp_path / "out"), store)
    key = min(store.keys("cells"))
    store.write_json("cells", key, {**store.read_json("cells", key), "schema": 0})
    with pytest.raises(UserError, match=f"{key}.json' is another one than that of"):
        unpack(Store(tmp_path / "out"), store)
    with pytest.raises(UserError, match=r"out' is a publication: give --store another folder"):
        unpack(Store(tmp_path / "out"), Store(tmp_path / "out"))
    nothing = cli("results", "unpack", tmp_path / "nothing", "--store", tmp_path / "new")
    assert_one_line(nothing, "holds no published results")
    (tmp_path / "out" / ARCHIVES["scores"]).write_bytes(b"x")
    assert_one_line(
        cli("results", "unpack", tmp_path / "out", "--store", tmp_path / "new"), "scores.parquet' is damaged"
    )


def test_costs_come_along_and_are_held_to_their_keys(full, tmp_path):
    export(full, tmp_path / "both")
    export(full, tmp_path / "one", "one")
    pools, own = (json.loads((tmp_path / name / "costs.json").read_text())["costs"] for name in ("both", "one"))
    assert {part["kind"] for part in pools.values()} == {"pools"} and own.items() <= pools.items() and own
    assert pools.keys() == full.keys("pools")
    records = Store(tmp_path / "one").read_records(sorted(Store(tmp_path / "one").keys("cells")))
    assert own.keys() == {use["key"] for record in records for use in record["provenance"]["pools"]}
    path = tmp_path / "one" / "costs.json"
    edit_file(path, put(f"costs.{min(own)}.spec.seed", 9))
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


TOY, MIXTURE, NESTED = (f"surfaces-{name}-few5-n6-s0" for name in ("toy", "mixture", "nested"))


@pytest.mark.parametrize(
    ("cell", "path", "value", "what"),
    [
        (TOY, "pools.0.n", 5, "hold 5 images, it trained on 6"),
        (TOY, "pools.0.key", "toy-s0", "which has other 'shots'"),
        (TOY, "pools.0.key", "toy-few5-s1", "which has other 'seed'"),
        (TOY, "pools.0.key", "memseg-s0", "which has other 'augmenter'"),
        (MIXTURE, "pools.0.key", "cutpaste-s0", "which has other 'augmenter'"),
        (NESTED, "pools.1.key", "cutpaste-s1", "which has other 'seed'"),
        (NESTED, "pools.1.key", "searcher-few5-s0", "which has other 'augmenter'"),
        (TOY, "adapters", ["x"], "adapters hold 'x', which its pools did not need"),
        (MIXTURE, "searches", ["x"], "searches hold 'x', which its pools did not need"),
        (MIXTURE, "adapters", [], "adapters lack 'surfaces-toy-few5-"),
        (TOY, "adapters", None, "provenance.adapters is missing beside the rest"),
        (TOY, "pools.0.n", "6", "provenance.pools.0.n"),
    ],
)
def test_a_forged_lineage_is_refused(descended, tmp_path, cell, path, value, what):
    """``value``: of a pool the beginning of its key, without the dataset."""
    folder = shutil.copytree(descended, tmp_path / "copy")
    if path.endswith("key"):
        keys = json.loads((folder / "costs.json").read_text())["costs"]
        value = min(key for key in keys if key.startswith(f"surfaces-{value}"))
    change = without(f"provenance.{path}") if value is None else put(f"provenance.{path}", value)
    (number,) = (n for n, line in enumerate(lines_of(folder)) if json.loads(line)["key"].startswith(f"{cell}-"))
    key = edit(folder, "cells", change, number)
    refused = check_results(folder).refused
    assert refused and all(line.startswith(f"cell '{key}': ") for line in refused)
    assert any(what in line for line in refused), refused


def test_records_older_than_lineage_pass_as_before(descended, tmp_path):
    folder = shutil.copytree(descended, tmp_path / "copy")
    lineage = ("pools", "adapters", "searches")
    for number in range(len(lines_of(folder))):
        edit(folder, "cells", lambda record: [record["provenance"].pop(name) for name in lineage], number)
    assert check_results(descended).refused == check_results(folder).refused == []
    export(Store(folder), tmp_path / "out", "tiny")
    assert (tmp_path / "out" / "costs.json").read_bytes() == (descended / "costs.json").read_bytes()


def test_a_readme_says_how_it_was_made_and_a_persons_stays(full, tmp_path):
    out = tmp_path / "out"
    export(full, out, "one")
    text = (out / "README.md").read_text()
    record = full.read_record(min(full.keys("cells")))
    assert "augbench run one.yaml" in text and "Tiny." in text and record["provenance"]["device"] in text
    assert "| memseg | 6 |" in text and "Oracle" not in text and COMPLETE in text
    assert "smoke-test parts: not evidence" in text
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
    export(full, tmp_path / "both")
    for what, arguments in (
        (r"knows no grid 'on' \(did you mean 'one'\?\)", (full, tmp_path / "new", "on")),
        ("holds no records", (Store(tmp_path / "nothing"), tmp_path / "new")),
        ("is a file", (full, out / "thesis.tex")),
        ("holds other things", (full, tmp_path / "both", "one")),  # the other grid would stay
        ("holds other things", (full, Path(full.url))),
    ):
        with pytest.raises(UserError, match=what):
            export(*arguments)


def test_export_never_loses_a_record(full, tmp_path):
    out = tmp_path / "out"
    export(full, out)
    fewer = shutil.copytree(out, tmp_path / "fewer")
    key = remove_first(fewer)
    edit_scores(fewer, lambda table: table.head(0))
    with pytest.raises(UserError, match=f"holds other things \\('{key}'\\)"):
        export(Store(fewer), out)
    assert key in Store(out).keys("cells")
    write_lines(fewer, [*lines_of(fewer), "x"])
    with pytest.raises(UserError, match=r"records.jsonl.gz' is damaged \(line 4 is no record"):
        export(Store(fewer), tmp_path / "new")


@pytest.mark.parametrize(
    ("kind", "what", "damage"),
    [
        ("scores", "is missing", Path.unlink),
        ("scores", "no whole Parquet file", lambda path: path.write_text("x")),
        ("cells", "is not the record of", lambda path: path.write_text("{}")),
        ("cells", "not JSON compliant", lambda path: edit_file(path, put("result.ap", NAN))),
    ],
)
def test_export_refuses_what_is_damaged(full, tmp_path, kind, what, damage):
    store = Store(shutil.copytree(full.url, tmp_path / "copy"))
    damage(path_of(store, kind, min(store.keys("cells"))))
    with pytest.raises(UserError, match=what):
        export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@FORMS
def test_an_export_of_a_publication_has_the_same_records(neu, form, tmp_path):
    folder, out = form(neu), tmp_path / "out"
    export(Store(folder), out, "neu_small")
    assert check_results(out).counts == {"cell": 12, "fidelity record": 9, "search": 1, "grid": 1}
    assert_same_records(Store(folder), Store(out))
    assert lines_of(out) == lines_of(neu)
    if (folder / "searches").is_dir():
        (folder / "searches" / "neu.arms").mkdir()  # of a search, left out
        (folder / "searches" / "neu.arms" / "000.json").write_text("{}")
        export(Store(folder), out, "neu_small")
    if folder != neu:
        with pytest.raises(UserError, match="holds other things"):
            export(Store(out), folder)

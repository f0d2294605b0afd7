"""Reports: fidelity of the synthetic images next to their effect on the classifier, from records written by hand."""

# ruff: noqa: RUF001 - the dash is what is printed

import json
from pathlib import Path

import pytest
from boards import expected_cell
from helpers import assert_one_line, cli, path_of
from test_report import cell, everywhere, lines_of, printed, texts, to_latex, to_markdown, write, write_all
from test_report_classes import recognition

from augbench.core.errors import UserError
from augbench.planning.grid import make_grid
from augbench.planning.outline import expected_of
from augbench.planning.plan import make_plan
from augbench.report import build_tables, expected_frame, load_records, report
from augbench.report.fidelity_table import load_measured
from augbench.report.table_exports import to_json


def measure(store, key, augmenter="memseg", kid=0.1, settings=None, seconds=0.5, **result):
    """The record of a pool's fidelity; fields of ``result`` as in `stages.fidelity`."""
    result = {"extractor": "inception_v3", "size": [299, 299], "made": 100, "real": 60, "shots": 5, "kid": kid,
              "kid_interval": [kid - 0.01, kid + 0.02], "fid": None, "diversity": 4.0, "diversity_of_real": 5.0,
              "memorisation": None} | result  # fmt: skip
    pool = {"augmenter": {"alias": augmenter, "name": augmenter, "settings": {}, "key_settings": settings or {}}}
    spec = {"pool": pool, "extractor": result["extractor"], "pictures": result["made"]}
    record = {"key": key, "spec": spec, "result": result, "provenance": {"seconds_per_picture": seconds}}
    store.write_json("fidelity", key, record)
    return record


def takes(one, *pairs):
    return {**expected_cell(one), "fidelity": [list(pair) for pair in pairs]}


def tables_of(store, expected):
    frame = expected_frame(expected)
    return build_tables(frame, load_records(store, frame["key"]), load_measured(store, frame))


def rows_of(table):
    return [texts(table.fidelity, row) for row in table.fidelity.rows]


def one_pool(store, embedded=(), **fields):
    """The table of one cell whose pool is measured."""
    write(store, cell(), embedded=embedded)
    measure(store, "a", **fields)
    (table,) = tables_of(store, [takes(cell(), ("memseg", "a"))])
    return table


# -- numbers


def test_a_row_pools_the_pools_of_an_augmenter(store):
    cells = [cell(n_aug=n, seed=seed) for n in (80, 100) for seed in (0, 1)]
    for one, ap in zip(cells, (0.5, 0.7, 0.6, 1.0), strict=True):
        write(store, one, ap)
    measure(store, "a", kid=-0.0041, fid=12.34, diversity=4.0, memorisation=0.5, seconds=1.0)
    measure(store, "b", kid=0.0121, fid=14.34, diversity=5.0, memorisation=0.7, seconds=1.5)
    (table,) = tables_of(store, [takes(one, ("memseg", "ab"[one.seed])) for one in cells])  # both N_aug: one pool each
    assert [column.title for column in table.fidelity.columns] == [
        "augmenter", "images", "KID", "95 % interval", "FID", "diversity", "nearest shot", "s per image", "AP",
        "pools"]  # fmt: skip
    assert rows_of(table) == [
        ["memseg", "100", ".004 (.011)", "-.006, .024", "13.3", "4.50", "0.60", "1.2", ".700", "2"]]  # fmt: skip
    assert table.fidelity.rows[0].outcome.stat == table.rows[-1].stats["ap"]  # the average row's
    assert "over an augmenter's pools" in table.fidelity.captions[1]
    for words in everywhere(table):
        assert ".004 (.011)" in words and "of the real ones 5.00" in words.replace("\n", " ").replace("  ", " ")


def test_fid_by_layer_stands_beside_fid_where_it_was_measured(store):
    table = one_pool(store, fid_by_layer={"64": 0.3344, "192": 1.52})
    row = dict(zip([column.title for column in table.fidelity.columns], rows_of(table)[0], strict=True))
    assert (row["FID 64"], row["FID 192"]) == ("0.334", "1.520")
    assert any(note.startswith("FID 64 and 192: on max-pooling layers") for note in table.fidelity.notes)


def test_table_3_of_diag_has_theirs_and_ours_without_a_difference(store, tmp_path):
    one = cell()
    write(store, one)
    measure(store, "a", fid_by_layer={"64": 0.5, "192": 3.25})
    store.write_json("grids", "g", {"grid": {}, "cells": [takes(one, ("memseg", "a"))]})
    done = cli("report", store.url, "--layout", "diag_table3", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["MemSeg", "0.834", "4.376", "0.500", "3.250", "100", "60", "1"] in lines
    assert ["DIAG", "0.096", "0.411", "–", "–", "–", "–", "0"] in lines
    assert "how many images are on either side is not stated" in " ".join(done.stdout.split())
    assert json.loads((tmp_path / "diag_table3.json").read_text())["rows"][1]["theirs_fid_192"] == 1.52
    assert_one_line(
        cli("report", store.url, "--layout", "diag_table3", "--protocol", "x"), "--protocol", "leave it out"
    )
    assert_one_line(cli("report", store.url, "--layout", "diag_table4"), "did you mean 'diag_table")


def test_what_could_not_be_measured_is_a_dash_with_a_note(store):
    cells = write_all(store, [cell(seed=seed, shots=5, draw=0) for seed in (0, 1)])
    measure(store, "a", fid=12.3)
    measure(store, "b", fid=None)
    (table,) = tables_of(store, [takes(one, ("memseg", "ab"[one.seed])) for one in cells])
    row = dict(zip([column.key for column in table.fidelity.columns], rows_of(table)[0], strict=True))
    assert row["fid"] == row["memorisation"] == "–"  # FID of some pools is none of the row
    assert any(note.startswith("FID: a dash where") for note in table.fidelity.notes)
    assert any("a dash where no shots are read" in note for note in table.fidelity.notes)
    measure(store, "b", fid=1.234)
    (table,) = tables_of(store, [takes(cells[1], ("memseg", "b"))])
    assert rows_of(table)[0][4] == "1.23" and not any(note.startswith("FID") for note in table.fidelity.notes)


# -- what is missing, and what must not be compared


def test_missing_records_are_marked(store):
    cells = [cell(name, seed=seed) for name in ("memseg", "ant") for seed in (0, 1)]
    write_all(store, cells[:3])
    measure(store, "memseg0")
    expected = [takes(one, (one.augmenter.alias, f"{one.augmenter.alias}{one.seed}")) for one in cells]
    (table,) = tables_of(store, expected)
    assert rows_of(table) == [
        ["memseg", "100", ".100 (–)", ".090, .120", "–", "4.00", "–", "0.50", ".600", "1/2 *"],
        ["ant", "–", "–", "–", "–", "–", "–", "–", ".600 *", "0/2 *"]]  # fmt: skip
    assert table.fidelity.notes[:2] == ["* incomplete: 1 of 4 pools have a record", "* at AP: cells are missing"]
    row = json.loads(to_json("x", [table]))["tables"][0]["fidelity"]["rows"][1]
    assert row["incomplete"] and row["metrics"]["kid"] == {"mean": None, "std": None, "n": 0} and row["pictures"] == []


def test_a_table_without_records_is_as_before(store):
    few, full = write_all(store, [cell(shots=5, draw=0), cell()])
    measure(store, "a")
    tables = tables_of(store, [takes(few), takes(full, ("memseg", "a"))])
    alone, old = tables[0], build_tables(expected_frame([expected_cell(few)]), load_records(store, [few.key]))[0]
    assert alone.fidelity.rows == [] and alone == old
    assert to_markdown("x", [alone]) + to_latex("x", [alone]) == to_markdown("x", [old]) + to_latex("x", [old])
    assert "idelity" not in "".join(everywhere(alone))
    assert json.loads(to_json("x", [alone]))["tables"][0]["fidelity"]["rows"] == []
    assert [line["row"] for line in lines_of(tables)] == ["cells", "cells", "fidelity"]


def test_rows_of_different_extractors_or_counts_say_so(store):
    cells = write_all(store, [cell("memseg"), cell("ant")])
    measure(store, "a")
    measure(store, "b", "ant", extractor="resnet18.a1_in1k", made=80, diversity_of_real=9.0)
    (table,) = tables_of(store, [takes(cells[0], ("memseg", "a")), takes(cells[1], ("ant", "b"))])
    assert table.fidelity.label == (
        "rows must not be compared: extractors (inception_v3, resnet18.a1_in1k) and numbers of synthetic images (80, "
        "100) differ"
    )
    assert [row[:3] for row in rows_of(table)] == [["memseg", "inception_v3", "100"], ["ant", "resnet18.a1_in1k", "80"]]
    assert table.fidelity.captions[0].startswith("The first 80 to 100 images of each pool")
    assert any("of the real ones 5.00 (inception_v3), 9.00 (resnet18.a1_in1k)" in note for note in table.fidelity.notes)
    assert all("rows must not be compared" in words for words in everywhere(table))
    measure(store, "b", "ant", real=59)  # an incomplete row of folds, say
    (table,) = tables_of(store, [takes(cells[0], ("memseg", "a")), takes(cells[1], ("ant", "b"))])
    assert table.fidelity.label == "rows must not be compared: numbers of real images (59, 60) differ"


def test_extractors_are_never_averaged(store):
    cells = write_all(store, [cell(seed=seed) for seed in (0, 1)])
    measure(store, "a", kid=0.1)
    measure(store, "b", kid=0.9, extractor="micro_resnet")
    (table,) = tables_of(store, [takes(one, ("memseg", "ab"[one.seed])) for one in cells])
    assert [row[:4] for row in rows_of(table)] == [
        ["memseg", "inception_v3", "100", ".100 (–)"], ["memseg", "micro_resnet", "100", ".900 (–)"]]  # fmt: skip


def test_captions_say_by_what_and_against_what(store):
    table = one_pool(store, real=54)
    assert table.fidelity.label == "" and table.fidelity.title == f"{table.title}: fidelity of the synthetic images"
    assert table.fidelity.captions == [
        "The first 100 images of each pool against the 54 defect images of the test split, which neither augmenters "
        "nor searches use, by features of inception_v3.",
        "One pool each: no standard deviation.",
        "Numbers of other extractors or of other image counts must not be compared with these.",
    ]


def test_the_embedded_extractor_is_no_evidence(store):
    table = one_pool(store, embedded=["dataset surfaces"], extractor="micro_resnet")
    assert table.label == "smoke-test parts: not evidence (dataset surfaces)"
    assert table.fidelity.label == "smoke-test parts: not evidence (dataset surfaces, extractor micro_resnet)"
    assert "extractor micro_resnet)" in printed(table)
    assert [line["embedded"] for line in lines_of([table])] == [
        "dataset surfaces", "dataset surfaces; extractor micro_resnet"]  # fmt: skip


# -- mixtures


def test_parts_of_a_mixture_go_by_their_own_names(store):
    cells = [cell("memseg"), cell("inout")]
    for one, ap in zip(cells, (0.6, 0.9), strict=True):
        write(store, one, ap)
    measure(store, "a")
    measure(store, "b", "ddpm")
    (table,) = tables_of(store, [takes(cells[0], ("memseg", "a")), takes(cells[1], ("memseg", "a"), ("ddpm", "b"))])
    assert [(row[0], *row[-2:]) for row in rows_of(table)] == [("memseg", ".600", "1"), ("ddpm", "–", "1")]
    assert "a dash for parts of a mixture, with which no classifier is trained alone." in table.fidelity.notes[-1]


def test_a_part_with_other_settings_is_not_averaged_with_its_namesake(store):
    cells = write_all(store, [cell(name, seed=seed) for name in ("inout", "memseg") for seed in (0, 1)])
    measure(store, "a", kid=0.2, settings={"opacity": 1})
    measure(store, "b", kid=0.8, settings={"opacity": 2})
    pools = ("a", "lost", "b", "gone")  # two of the mixture's part, two of memseg's own
    (table,) = tables_of(store, [takes(one, ("memseg", key)) for one, key in zip(cells, pools, strict=True)])
    rows = rows_of(table)
    assert [row[2] for row in rows] == [".800 (–)", ".200 (–)"]
    assert rows[0][0] == "memseg" and rows[0][-2:] == [".600", "1/3 *"]  # what is not known is counted here
    assert rows[1][0].startswith("memseg #") and rows[1][-2:] == ["–", "1"]
    assert any(note.startswith("#: start of the digest") for note in table.fidelity.notes)


def test_an_augmenter_that_is_not_measured_does_not_go_by_a_part_of_its_name(store):
    cells = write_all(store, [cell("inout"), cell("memseg")])
    measure(store, "a", settings={"opacity": 1})
    (table,) = tables_of(store, [takes(cells[0], ("memseg", "a")), takes(cells[1], ("memseg", "own"))])
    own, part = rows_of(table)
    assert (own[0], own[2], own[-2:]) == ("memseg", "–", [".600", "0/1 *"])
    assert part[0].startswith("memseg #") and (part[2], part[-2:]) == (".100 (–)", ["–", "1"])


# -- recognition


def test_recognition_stands_beside_accuracy_and_classes_are_in_csv_and_json_only(store):
    one = cell()
    write(store, one, result=recognition([[1, 0], [0, 1]]))
    measure(store, "a", kid_by_class={"b": -0.25, "a": 0.125})
    (table,) = tables_of(store, [{**takes(one, ("memseg", "a")), "task": "recognition"}])
    assert table.fidelity.columns[-2].title == "accuracy" and rows_of(table)[0][-2] == ".800"
    line, a, b = lines_of([table])[-3:]
    assert (line["row"], line["class"], line["accuracy_mean"], line["ap_mean"]) == ("fidelity", "", "0.8", "")
    assert [(x["row"], x["class"], x["kid_mean"]) for x in (a, b)] == [
        ("fidelity_class", "a", "0.125"), ("fidelity_class", "b", "-0.25")]  # fmt: skip
    row = json.loads(to_json("x", [table]))["tables"][0]["fidelity"]["rows"][0]
    assert row["kid_by_class"]["b"] == {"mean": -0.25, "std": None, "n": 1}
    assert not any(".125" in words or "-.250" in words for words in everywhere(table))


# -- renderers and files


def test_csv_and_json_have_full_precision(store):
    table = one_pool(store, kid=-1 / 3, fid=100 / 3, diversity=1 / 7, memorisation=1 / 9, seconds=1 / 11)
    line = lines_of([table])[-1]
    assert (line["row"], line["augmenter"], line["n_aug"], line["found"], line["expected"]) == (
        "fidelity", "memseg", "", "1", "1")  # fmt: skip
    columns = list(line)[-16:-3]  # the last three are those of confusion
    assert columns == [
        "kid_mean", "kid_std", "kid_low", "kid_high", "fid_mean", "diversity_mean", "diversity_of_real",
        "memorisation_mean", "auroc_of_normal", "seconds_per_picture", "extractor", "pictures", "real"]  # fmt: skip
    assert [float(line[name]) for name in ("kid_mean", "kid_low", "kid_high", "fid_mean", "memorisation_mean")] == [
        -1 / 3, -1 / 3 - 0.01, -1 / 3 + 0.02, 100 / 3, 1 / 9]  # fmt: skip
    assert (line["extractor"], line["pictures"], line["real"], line["kid_std"]) == ("inception_v3", "100", "60", "")
    assert float(line["ap_mean"]) == 0.6 and line["auroc_mean"] == ""
    assert not any(lines_of([table])[0][name] for name in columns)
    found = json.loads(to_json("x", [table]))["tables"][0]["fidelity"]["rows"][0]["metrics"]
    assert found["seconds_per_picture"] == {"mean": 1 / 11, "std": None, "n": 1}
    assert found["kid"]["mean"] == -1 / 3 and found["ap"]["mean"] == 0.6


@pytest.mark.parametrize("extractor", ["inception_v3", "a_rather_long_name_too.tv_in1k"])
def test_names_are_folded_so_that_numbers_are_not(store, extractor):
    cells = [cell(name, seed=seed) for name in ("a_rather_long_name_for_it", "ant") for seed in (0, 1)]
    write_all(store, cells[1:])
    for key, kid in (("a", -0.1), ("b", 0.1)):
        measure(store, key, cells[0].augmenter.alias, kid, fid=123.4, memorisation=0.5)
    measure(store, "d", "ant", extractor=extractor)
    keys = {"a_rather_long_name_for_it": "abc", "ant": "d"}
    expected = [takes(one, *((one.augmenter.alias, key) for key in keys[one.augmenter.alias])) for one in cells]
    text = printed(*tables_of(store, expected))
    below = text[text.index("Fidelity of the synthetic images") :]
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    for entry in (".000 (.141)", "-.010, .020", ".090, .120", "123.4", "4.00", "0.50", ".600 *", "2/3 *", "images"):
        assert entry in below


def test_rows_are_not_set_apart(store):
    cells = [cell("memseg"), cell("ant")]
    for one in cells:
        write(store, one)
        measure(store, one.augmenter.alias, one.augmenter.alias)
    tables = tables_of(store, [takes(one, (one.augmenter.alias, one.augmenter.alias)) for one in cells])
    at = [place for place, line in enumerate(printed(*tables).splitlines()) if ".090, .120" in line]
    assert at[1] == at[0] + 1
    assert to_latex("x", tables).count(r"\addlinespace") == 1  # of the table above


def test_a_grid_in_a_store_is_reported_with_equal_bytes(store, tmp_path):
    raw = {"name": "small", "datasets": ["surfaces"], "augmenters": ["none", "memseg"], "shots": ["all"],
           "n_aug": [20, 40], "seeds": [0, 1], "protocols": [{"name": "p", "width": 64, "height": 176, "lr": 0.01,
           "batch": 5, "epochs": 1}], "fidelity": {"extractor": "micro_resnet"}}  # fmt: skip
    plan = make_plan(make_grid(raw))
    store.write_json("grids", "small", {"grid": {}, "cells": expected_of(plan)})
    write_all(store, plan.cells)
    for spec in plan.fidelity.values():
        measure(store, spec.key, extractor="micro_resnet", made=spec.pictures)
    first = report(store, "small")
    again = report(store, "small", expected=expected_of(plan), out=tmp_path / "again")
    contents = [[Path(file).read_bytes() for file in files] for files in (first, again)]
    assert contents[0] == contents[1]
    (table,) = json.loads(contents[0][3])["tables"]
    (row,) = table["fidelity"]["rows"]
    assert (row["augmenter"], row["found"], row["expected"]) == ("memseg", 2, 2)


# -- what a user can meet


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda record: "", "is damaged"),
        (lambda record: json.dumps(record)[:-5], "is damaged"),
        (lambda record: json.dumps({**record, "key": "other"}), "is not the record of 'a'"),
        (lambda record: json.dumps({**record, "spec": None}), "is damaged (TypeError"),
        (lambda record: json.dumps({**record, "result": {}}), "is damaged (KeyError: 'kid_interval')"),
        (lambda record: json.dumps({**record, "result": record["result"] | {"kid": None}}), "is damaged (TypeError"),
        (lambda record: json.dumps({**record, "result": record["result"] | {"kid_interval": [1]}}), "(ValueError"),
    ],
)
def test_a_damaged_record_is_named_in_one_line(store, damage, message):
    record = measure(store, "a")
    path_of(store, "fidelity", "a").write_text(damage(record))
    with pytest.raises(UserError, match=r"fidelity.a\.json'") as caught:
        tables_of(store, [takes(cell(), ("memseg", "a"))])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_records_of_other_grids_are_not_read(store):
    store.write_json("fidelity", "other", {"damaged": True})
    assert len(one_pool(store).fidelity.rows) == 1

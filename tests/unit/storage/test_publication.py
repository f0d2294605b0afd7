"""Publications: archives that are read under the file names of a store, and are not written to."""

import gzip

import layouts
import numpy as np
import pandas as pd
import pytest
from helpers import assert_one_line, cli, grid_file, on_disk

from augbench.core.errors import UserError
from augbench.storage import publication as module
from augbench.storage.publication import ARCHIVES, RECORDS, packed, unpacked
from augbench.storage.scores import checked_scores, rows_by_key, rows_bytes, scores_archive, scores_bytes, scores_frame
from augbench.storage.store import Store, json_lines


def table(*logits, rows=3):
    ids, groups = ([f"{letter}{n}" for n in range(rows)] for letter in "ig")
    numbers = {name: np.arange(rows, dtype=np.float32) + place for place, name in enumerate(logits)}
    return pd.DataFrame({"id": ids, "part": "test", "label": "good", "group": groups, **numbers})


TABLES = {
    "a": table("logit"),
    "b": table("logit_dent", "logit_scratch"),
    "c": table("logit_good", "logit_crack", "logit_scratch", rows=5).iloc[::-1].reset_index(drop=True),
}


LINES = json_lines({"key": key, "spec": {}, "result": {}, "provenance": {}} for key in "ab")


@pytest.fixture
def publication(tmp_path):
    """A folder with two cells, three score tables, and a report."""
    folder = tmp_path / "published"
    (folder / "reports" / "g").mkdir(parents=True)
    (folder / "reports" / "g" / "report.md").write_text("x")
    (folder / ARCHIVES["cells"]).write_bytes(packed(LINES))
    archive = scores_archive((key, checked_scores(scores_bytes(one))) for key, one in TABLES.items())
    (folder / ARCHIVES["scores"]).write_bytes(archive)
    return folder


def test_every_score_table_comes_out_as_it_went_in():
    """Columns in the order of each table, whatever the columns of the others; rows in their order."""
    tables = [(key, checked_scores(scores_bytes(one))) for key, one in TABLES.items()]
    archive = scores_archive(tables)
    assert archive == scores_archive(tables)
    found = rows_by_key(archive)
    assert list(found) == list(TABLES)
    for key, one in TABLES.items():
        pd.testing.assert_frame_equal(scores_frame(rows_bytes(found[key])), one, check_exact=True)


def test_an_archive_is_a_plain_table_for_other_readers(publication):
    whole = pd.read_parquet(publication / ARCHIVES["scores"])
    logits = ["logit_good", "logit", "logit_crack", "logit_dent", "logit_scratch"]
    assert list(whole) == ["key", "id", "part", "label", "group", *logits] and len(whole) == 11
    assert whole["id"].dtype == TABLES["a"]["id"].dtype and set(whole[logits].dtypes) == {np.dtype("float32")}


def test_lines_are_gzip_that_other_readers_open(publication):
    path = publication / ARCHIVES["cells"]
    assert list(pd.read_json(path, lines=True)["key"]) == ["a", "b"]
    assert gzip.decompress(path.read_bytes()) == LINES == unpacked(packed(LINES))
    assert packed(LINES)[:10] == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"  # no name, no time, no system
    assert unpacked(gzip.compress(LINES, 1)) == LINES


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("its end is missing", lambda data: data[:-1]),
        ("its end is missing", lambda data: b""),
        ("more follows its end", lambda data: data * 2),
        ("Error -3", lambda data: LINES),
        ("Error -3", lambda data: data[:-6] + bytes(6)),  # the checksum
        ("unpacked it has 9,999 bytes or more", lambda data: packed(bytes(10_000_000))),
        ("line 1 is no record", lambda data: packed(b"{}")),
    ],
)
def test_a_damaged_archive_is_named_with_the_way_out(publication, monkeypatch, what, damage):
    monkeypatch.setattr(module, "MAX_UNPACKED", 9_999)
    path = publication / ARCHIVES["cells"]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        Store(publication).keys("cells")
    line = str(caught.value)
    assert f"'{path}' is damaged (" in line and what in line and "restore it, or export the store again" in line


def test_a_damaged_archive_is_one_line_at_every_command(publication):
    path = publication / ARCHIVES["cells"]
    path.write_bytes(path.read_bytes()[:-9])
    for command in (("report",), ("store", "check"), ("leaderboard", "--out", publication.parent / "page")):
        assert_one_line(cli(*command, publication), str(path), "is damaged", "export the store again")
    found = cli("results", "check", publication)
    assert found.returncode == 2 and f"refused: '{path}' is damaged" in found.stdout and not found.stderr


def test_archives_are_read_under_the_names_of_a_store(publication):
    store = Store(publication)
    files = store.files
    assert store.exists() and store.keys("cells") == {"a", "b"} and store.keys("scores") == set("abc")
    assert store.keys("fidelity") == store.keys("pools") == set() and {"cells", "scores", "reports"} <= files.top()
    assert store.read_record("b")["key"] == "b" and store.has("cells", "a") and not store.has("cells", "c")
    assert [data is None for data in files.read_many(["cells/a.json", "cells/x.json"])] == [False, True]
    with pytest.raises(FileNotFoundError):
        files.read("cells/x.json")
    assert files.ages("cells").keys() == {"a.json", "b.json"} and abs(files.ages("cells")["a.json"]) < 30
    assert abs(files.age("scores/c.parquet")) < 30 and files.age("cells/c.json") is None
    assert store.where("cells", "a") == f"{publication}/records.jsonl.gz, a"
    assert files.read("reports/g/report.md") == b"x"
    assert Store(f"file://{publication}").keys("cells") == {"a", "b"}
    assert store.check() == []


@pytest.mark.parametrize("name", RECORDS)
def test_a_publication_elsewhere_is_refused_in_one_line(name):
    elsewhere = Store("memory://published")
    elsewhere.files.write(name, b"{}")
    with pytest.raises(UserError, match="is a publication: copy it to a local folder"):
        Store("memory://published")
    elsewhere.files.remove(name)


def test_nothing_but_reports_is_written_into_a_publication(publication, tmp_path):
    before = sorted(publication.rglob("*"))
    settings = layouts.draw_folder(tmp_path / "data")
    grid = grid_file(tmp_path, **on_disk("folder", settings))
    refused = f"'{publication}' is a publication: give --store another folder"
    assert_one_line(cli("run", grid, "--store", publication), refused)
    assert_one_line(cli("datasets", "check", "folder", "--root", tmp_path / "data", "--store", publication), refused)
    for found in (cli("plan", grid, "--store", publication), cli("status", publication, "--grid", grid)):
        assert found.returncode == 0, found.stderr
    assert sorted(publication.rglob("*")) == before
    files = Store(publication).files
    files.write("reports/g/report.md", b"y")
    assert files.read("reports/g/report.md") == b"y"

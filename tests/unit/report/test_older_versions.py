"""Versions of an edited plug-in: tables show the newest, reports and pages fold the others, with a date."""

import pytest
from boards import cell, expect, write

from augbench.report.leaderboard.merge import gather
from augbench.report.leaderboard.write_page import write_leaderboard
from augbench.report.store_report import report
from augbench.storage.store import Store

VERSIONS = {"sha256:aaaaaaaaaa": "2026-01-02T03:04:05Z", "sha256:bbbbbbbbbb": "2026-02-03T04:05:06Z"}


def add(store, version, finished, **fields):
    """Write the record of a cell of the plug-in `stripes` in some version."""
    key = write(store, one := cell("stripes", settings={"plugin": version}, **fields))
    record = store.read_record(key)
    record["provenance"] |= {"finished": finished} if finished else {}
    store.write_json("cells", key, record)
    return one


@pytest.mark.parametrize("named", [None, 0, 1])
def test_the_newest_version_is_shown_and_the_other_folded_away(store, tmp_path, named):
    """Without a grid the one that ran last is the newest, else the one that the grid names."""
    none = cell("none", 0)
    write(store, none)
    cells = [add(store, version, finished) for version, finished in VERSIONS.items()]
    if named is not None:
        expect(store, "grid", [none, cells[named]])
    newest = 1 if named is None else named
    older_version, older_date = list(VERSIONS.items())[1 - newest]
    report(store, out=tmp_path / "out")
    write_leaderboard([store], tmp_path / "page", say=lambda line: None)
    for text in ((tmp_path / "out" / "report.md").read_text(), (tmp_path / "page" / "leaderboard.md").read_text()):
        (folded,) = [part for part in text.split("<details>")[1:] if f"{older_version[:13]} |" in part]
        tables = text.replace(folded, "")
        assert "| stripes |" in tables and "\\#" not in tables, "no digest behind its name"
        assert f"{older_version[:13]} | {older_date[:10]}" in folded
        assert text.count("sha256:") == 1
    page = (tmp_path / "page" / "index.html").read_text()
    assert f"<td>{older_date[:10]}</td>" in page and cells[1 - newest].key in page
    assert (tmp_path / "page" / "records" / f"{cells[1 - newest].key}.json").is_file()


def test_what_is_no_version_of_one_plugin_stays_side_by_side(store):
    """Other settings are other rows; and where no record says when it was made, none is the newest."""
    add(store, "sha256:aaaaaaaaaa", None)
    add(store, "sha256:bbbbbbbbbb", None)
    assert gather([store]).older.empty
    other = Store(store.files.folder.parent / "other")
    for version, finished in VERSIONS.items():
        add(other, version, finished, n_aug=int(finished[5:7]))  # one has other images than the other
    assert gather([other]).older.empty

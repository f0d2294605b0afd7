"""The leaderboard: its content, that every number links to its records, and that no record can run code on the page."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from boards import BREAKING, HOSTILE, cell, expect, grid_cells, protocol_of, write
from frozen_cells import PROBE, fill, frozen_plan
from helpers import assert_one_line, cli, path_of, tiny
from PIL import Image

from augbench.core.errors import UserError
from augbench.metrics.inference import Verdict
from augbench.report.evidence.build import build_evidence
from augbench.report.evidence.pareto import Spending
from augbench.report.leaderboard.board import board_of
from augbench.report.leaderboard.gains import verdict_summary
from augbench.report.leaderboard.headings import span_text
from augbench.report.leaderboard.merge import gather
from augbench.report.leaderboard.row_costs import Costs
from augbench.report.leaderboard.score_tables import RECALLS, precision_at_recalls
from augbench.report.leaderboard.write_page import script_json, write_leaderboard
from augbench.report.numbers import shots_text, signed
from augbench.report.render.self_contained import minus
from augbench.report.tables import build_tables
from augbench.storage.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with two shot regimes of three augmenters, and its leaderboard."""
    folder = tmp_path_factory.mktemp("board")
    store = Store(folder / "store")
    cells = [*grid_cells(), *grid_cells(shots=5)]
    for one in cells:
        write(store, one, notes=["ddpm: made of five shots"] if one.augmenter.name == "ddpm" else [])
    expect(store, "grid", cells)
    board(folder / "out", store)
    return store, folder / "out"


@pytest.fixture
def two(tmp_path):
    return [Store(tmp_path / name) for name in ("a", "b")]


def board(folder, *stores):
    """Write the leaderboard of these stores; return the texts of its page and of its Markdown."""
    write_leaderboard(stores, folder, say=lambda line: None)
    return texts_of(folder)


def texts_of(folder):
    return [(folder / name).read_bytes().decode() for name in ("index.html", "leaderboard.md")]


def page_data(folder):
    page, _ = texts_of(folder)
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def tables_of(*stores):
    return board_of(gather(stores)).content["tables"]


def by_row(table):
    return {(row["augmenter"], row["n_aug"]): row for row in table["rows"]}


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


# -- content


def test_numbers_are_those_of_the_report(made):
    store, _ = made
    gathered = gather([store])
    for table, content in zip(build_tables(gathered.expected, gathered.records), tables_of(store), strict=True):
        assert content["title"] == table.title
        for row, entry in zip(table.rows, content["rows"], strict=True):
            for column in table.columns[1:]:
                assert entry["values"][column.key]["text"] == row.text(column)


def test_gains_and_verdicts_are_those_of_the_evidence(made):
    store, _ = made
    gathered = gather([store])
    found = {}
    for one in build_evidence(store, gathered.expected, gathered.records):
        found |= {(one.table.title, row.augmenter, row.n_aug): row for row in one.against}
    tables = tables_of(store)
    assert {table["against"] for table in tables} == {"none"}
    rows = {(table["title"], *name): row for table in tables for name, row in by_row(table).items() if row["n_aug"]}
    assert len(rows) == 8
    for name, row in rows.items():
        assert row["values"]["gain"]["value"] == pytest.approx(found[name].together.estimate, abs=1e-6)
        assert row["values"]["verdict"]["text"] == found[name].verdict
    assert {row.verdict for row in found.values()} >= {"better"}  # ddpm is made to be


def test_a_row_without_seed_is_one_run(store):
    fill(store, frozen_plan(protocols=[PROBE], shots=[5]), (0.1, 0.0))
    content = board_of(gather([store])).content
    (table,), labels = content["tables"], [run["label"] for run in content["runs"]]
    assert labels == ["draw 0, no seed", *(f"N_aug 6, draw 0, seed {seed}" for seed in (0, 1, 2))]
    none, memseg = table["rows"]
    assert (none["values"]["runs"]["text"], memseg["values"]["runs"]["text"]) == ("1", "3")
    assert memseg["values"]["verdict"]["text"] == "better" and memseg["mark"] == "(1)"
    notes = " ".join(table["notes"])
    assert "none has no seed" in notes and "0.1, 0 in 1 of 3 cells" in notes and "extraction of features" in notes


@pytest.mark.parametrize(("verdicts", "said"), [
    ((Verdict.BETTER, Verdict.NONE), "better at 1 of 2 N_aug"),
    ((Verdict.WORSE, Verdict.BETTER, Verdict.TOO_FEW), "better at 1, worse at 1, too few runs at 1 of 3 N_aug"),
    ((Verdict.TOO_FEW, Verdict.TOO_FEW, Verdict.NONE), "no detectable difference at 1, too few runs at 2 of 3 N_aug"),
    ((Verdict.TOO_FEW,), "too few runs to say"),
])  # fmt: skip
def test_a_summary_of_verdicts_counts_rows_with_too_few_runs(verdicts, said):
    assert verdict_summary([{"values": {"verdict": {"text": str(one)}}} for one in verdicts])[0] == said


def test_without_scores_means_have_no_verdicts(store):
    for one in grid_cells():
        write(store, one, scored=one.seed > 0)
    (table,) = tables_of(store)
    keys = {column["key"] for column in table["columns"]}
    assert "gain" in keys and not keys & {"verdict", "interval", "gain_interval"}
    ddpm, none = (by_row(table)[name]["values"] for name in (("ddpm", 80), ("none", 0)))
    assert ddpm["gain"]["text"] == signed(ddpm["ap"]["value"] - none["ap"]["value"])
    assert any("no interval, no verdict" in note for note in table["notes"])


def test_without_none_the_baseline_is_memseg_with_as_many_images(store):
    for one in grid_cells(shots=0):
        if one.n_aug:
            write(store, one)
    (table,) = tables_of(store)
    rows = by_row(table)
    assert table["against"] == "memseg"
    assert rows["ddpm", 40]["partner"] == rows["memseg", 40]["id"]
    assert rows["memseg", 40]["values"]["gain"]["text"] == "–"  # noqa: RUF001 - the dash is what is printed


def test_missing_cells_are_marked(store, tmp_path):
    cells = grid_cells()
    expect(store, "grid", cells)
    for one in cells[:-1]:
        write(store, one)
    page, markdown = board(tmp_path / "out", store)
    assert "2/3 *" in page and "incomplete: 14 of 15 cells" in page and "2/3 \\*" in markdown


def test_embedded_parts_are_labelled_as_no_evidence(store, tmp_path):
    write(store, cell(), embedded=["dataset tiles"])
    assert all("smoke-test parts: not evidence" in text for text in board(tmp_path / "out", store))


def test_precision_at_recalls_by_hand():
    scores = pd.DataFrame({"label": ["bad", "good", "bad", "good"], "logit": [4.0, 3.0, 2.0, 1.0]})
    found = precision_at_recalls(scores)
    assert found[RECALLS <= 0.5] == pytest.approx(1.0)
    assert found[RECALLS > 0.5] == pytest.approx(2 / 3)
    tied = pd.DataFrame({"label": ["bad", "good", "bad", "good"], "logit": [1.0, 1.0, 0.0, 0.0]})
    assert precision_at_recalls(tied) == pytest.approx(0.5)  # equal scores share a threshold


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [(span_text, 0.42, "0.4 s"), (span_text, 99, "99 s"), (span_text, 180, "3 min"), (span_text, 20_000, "5.6 h"),
     (shots_text, 0, "zero-shot"), (shots_text, 1, "1 shot"), (shots_text, "all", "full-shot"),
     (shots_text, "ids1_1f3a9c", "1 named shot (1f3a9c)"),
     (minus, "[-.137, .041]", "[\N{MINUS SIGN}.137, .041]"), (minus, "rolled-in 1-2", "rolled-in 1-2")],
)  # fmt: skip
def test_formatting(function, value, text):
    assert function(value) == text


# -- every number has its record


def test_every_link_leads_to_the_bytes_of_a_record(made):
    store, folder = made
    data = page_data(folder)
    links = {run["file"] for run in data["runs"]}
    links |= {url for row in data["rows"].values() for files in row["files"].values() for _, _, url in files}
    links |= set(re.findall(r"\]\((records/[^)]*)\)", texts_of(folder)[1]))
    assert len(links) == 30
    for link in links:
        path = folder / unquote(link)
        assert path.read_bytes() == path_of(store, "cells", path.stem).read_bytes()


def test_a_mean_is_that_of_its_runs(made):
    store, folder = made
    data, checked = page_data(folder), 0
    for row in (row for table in tables_of(store) for row in table["rows"] if not row["is_average"]):
        runs = [data["runs"][place]["values"]["ap"] for place in data["rows"][row["id"]]["runs"]]
        assert row["values"]["ap"]["value"] == pytest.approx(np.mean(runs), abs=2e-6)
        checked += len(runs)
    assert checked == 30


def test_a_key_that_needs_quoting_is_linked(store, tmp_path):
    write(store, cell(), key="tiles #1 ä&b")
    board(tmp_path, store)
    (run,) = page_data(tmp_path)["runs"]
    assert (tmp_path / unquote(run["file"])).is_file()
    assert not set(run["file"]) & set(" #&\"'<>")


# -- nothing of a record runs


def test_text_of_records_is_escaped(store, tmp_path):
    augmenter = {"name": "memseg", "alias": HOSTILE + BREAKING, "settings": {}, "key_settings": {}}
    for seed in range(3):
        write(store, cell("none", 0, seed, protocol=protocol_of(HOSTILE)))
        one = cell("memseg", 40, seed, protocol=protocol_of(HOSTILE))
        write(store, one, notes=[BREAKING], device=HOSTILE, embedded=[BREAKING], augmenter=augmenter)
    page, markdown = board(tmp_path, store)
    tags = Tags(page).found
    assert all(found["src"].startswith("data:image/svg+xml;base64,") for tag, found in tags if tag == "img")
    assert [attributes.get("type") for tag, attributes in tags if tag == "script"] == ["application/json", None]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert HOSTILE in {row["augmenter"][: len(HOSTILE)] for row in page_data(tmp_path)["rows"].values()}
    assert "<img" not in markdown.replace("\\<img", "") and "<script" not in markdown.replace("\\<script", "")


def test_json_in_a_script_cannot_end_it():
    value = {"a": BREAKING, "b": "<!--", "c": "\u2028"}
    text = script_json(value)
    assert not set(text) & set("<>&\u2028") and json.loads(text) == value


def test_the_page_loads_nothing_and_runs_only_its_own_script(made):
    text, _ = texts_of(made[1])
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {"http://www.w3.org/2000/svg"}
    tags = Tags(text).found
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for kind, pattern in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        (content,) = re.findall(pattern, text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [1 for _, attributes in tags if "style" in attributes]  # the policy would drop it


# -- several stores, equal bytes


def test_equal_stores_give_equal_bytes(made, tmp_path):
    store, folder = made
    shutil.copytree(store.files.folder, tmp_path / "elsewhere")
    texts = board(tmp_path / "out", Store(tmp_path / "elsewhere"))
    assert texts == texts_of(folder) and str(tmp_path) not in "".join(texts)


def test_a_page_names_its_version_and_what_differs_from_the_one_before(two, tmp_path):
    """Date and commit are those of the newest record; the same stores again change nothing."""
    first, out = two[0], tmp_path / "out"
    for one in grid_cells()[:3]:
        write(first, one)
    key = grid_cells()[0].key
    record = first.read_record(key)
    record["provenance"] |= {"finished": "2031-02-03T04:05:06Z", "git_sha": "0123456789abcdef"}
    first.write_json("cells", key, record)
    for text in board(out, first):
        assert "Version 2031-02-03 (" in text and "3 records" in text and "0123456789ab" in text
        assert "the first version" in text
    before = {path.name: path.read_bytes() for path in out.glob("*.*")}
    board(out, first)
    assert {path.name: path.read_bytes() for path in out.glob("*.*")} == before
    for one in grid_cells()[1:5]:
        write(two[1], one, device="cpu two")
    page, markdown = board(out, two[1])
    assert "2 added, 1 removed, 2 changed" in page and "2 added, 1 removed, 2 changed" in markdown
    listed = json.loads((out / "versions.json").read_text())
    assert [one["records"] for one in listed] == [4, 3] and listed[1]["added"] is None
    (out / "versions.json").write_text("[1]")
    with pytest.raises(UserError, match=r"versions.json' is damaged: remove it"):
        board(out, first)


def test_halves_make_the_whole(made, two, tmp_path):
    _, folder = made
    cells = [*grid_cells(), *grid_cells(shots=5)]
    for place, one in enumerate(cells):
        for half in two if place % 3 == 0 else [two[place % 2]]:  # every third is in both
            write(half, one, notes=["ddpm: made of five shots"] if one.augmenter.name == "ddpm" else [])
    for half in two:
        expect(half, "grid", cells)
    _, markdown = board(tmp_path / "out", *two)
    assert page_data(tmp_path / "out")["runs"] == page_data(folder)["runs"] and markdown == texts_of(folder)[1]


def put_twice(stores, device="cpu one", more_ap=0.0, seconds=2.5):
    """Write a cell into both stores; device, AP and seconds of its record in the second may differ."""
    write(stores[0], cell())
    write(stores[1], cell(), device=device)
    record = stores[1].read_record(cell().key)
    record["result"]["ap"] += more_ap
    record["provenance"]["seconds"]["total"] = seconds
    stores[1].write_json("cells", cell().key, record)


def test_two_results_of_one_cell_are_refused(two):
    put_twice(two, more_ap=0.01)
    with pytest.raises(UserError, match="different results of one cell") as error:
        gather(two)
    assert all(str(path_of(store, "cells", cell().key)) in str(error.value) for store in two)


def test_results_of_another_device_are_noted_and_the_first_store_counts(two):
    put_twice(two, device="cpu two", more_ap=0.25)
    gathered = gather(two)
    assert gathered.records["ap"].tolist() == [two[0].read_record(cell().key)["result"]["ap"]]
    assert list(gathered.differing) == [cell().key]
    (table,) = tables_of(*two)
    assert any("One cell is in several stores with different results (up to .250 apart)" in n for n in table["notes"])


def test_other_seconds_are_no_other_result(two):
    put_twice(two, seconds=99.0)
    assert gather(two).records["seconds"].tolist() == [2.5]


def test_one_name_for_several_settings_gets_a_digest(two):
    for store, settings in zip(two, ({}, {"source": "shots"}), strict=True):
        cells = [cell("none", 0), cell(settings=settings)]
        expect(store, "grid", cells)
        for one in cells:
            write(store, one)
    names = board_of(gather(two)).content["augmenters"]
    assert names[0] == "none" and len(names) == 3
    assert all(re.fullmatch(r"memseg #[0-9a-f]{6}", name) for name in names[1:])


# -- images, costs, command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A store that a run has filled: pools of memseg and cutpaste, and trainings."""
    folder = tmp_path_factory.mktemp("run")
    parts = [{"name": name, "share": 0.5} for name in ("memseg", "cutpaste")]
    mixture = {"name": "mixture", "as": "both", "settings": {"parts": parts}}
    grid = tiny(augmenters=["none", "memseg", "cutpaste", mixture], shots=[5])
    (folder / "g.yaml").write_text(yaml.safe_dump(grid))
    ran = cli("run", folder / "g.yaml", "--store", folder / "s", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    return folder / "s"


def test_images_are_small_and_unique_and_their_licence_is_printed(run, tmp_path):
    done = cli("leaderboard", run, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Images of surfaces are embedded in the page; licence: Apache-2.0" in done.stdout
    text, _ = texts_of(tmp_path)
    urls = re.findall(r'href="data:image/webp;base64,([^"]+)"', text)
    assert len(urls) == len(set(urls)) > 20
    assert all(max(Image.open(io.BytesIO(base64.b64decode(url))).size) <= 96 for url in urls)
    ids = set(re.findall(r'<symbol id="(p\d+)"', text))
    assert set(re.findall(r'<use href="#(p\d+)"', text)) == ids
    sheet = text[text.index('<section id="images"') :]
    rows = re.findall(r'<th scope="row">([^<]+)', sheet)
    assert rows == ["normal", "real defect", "memseg", "cutpaste"]
    assert "Recall by size and contrast" in text and "False positives" in text and "False negatives" in text
    assert len(text) < 5_000_000


def test_pictures_none_embeds_no_images(run, tmp_path):
    done = cli("leaderboard", run, "--out", tmp_path, "--pictures", "none")
    assert done.returncode == 0 and "licence" not in done.stdout
    assert "data:image/webp" not in texts_of(tmp_path)[0]


def test_unavailable_images_are_reported(made):
    assert "tiles is not shown in full: its files were not available when this page was made" in texts_of(made[1])[0]


def test_scores_of_other_images_show_no_errors(run, tmp_path):
    """Ids unknown to the dataset belong to other files."""
    store = Store(tmp_path / "s")
    shutil.copytree(run, tmp_path / "s")
    for key in store.keys("scores"):
        path = path_of(store, "scores", key)
        table = pd.read_parquet(path)
        table.assign(id="x" + table["id"]).to_parquet(path, index=False)
    assert "False positives" not in board(tmp_path / "out", store)[0]


def test_costs_are_those_of_the_comparison(run):
    store = Store(run)
    gathered = gather([store])
    costs, spending = Costs(gathered), Spending(store, sorted(gathered.raw))
    seen = set()
    for key, spec in gathered.specs.items():
        ours, theirs = costs.of(key), spending.of([key])
        assert ours.is_whole and ours.total == pytest.approx(theirs.total)
        seen |= {(spec["augmenter"]["alias"], len(ours.sources))}
    assert seen == {("none", 0), ("memseg", 1), ("cutpaste", 1), ("both", 2)}


def test_usage_errors(made, tmp_path):
    store, _ = made
    assert_one_line(cli("leaderboard", tmp_path / "none", "--out", tmp_path / "o"), "does not exist", "none")
    (tmp_path / "file").write_text("x")
    assert_one_line(cli("leaderboard", store.url, "--out", tmp_path / "file"), "is a file", "--out")
    assert_one_line(cli("leaderboard", store.url, "--out", tmp_path / "o", "--pictures", "some"), "some")


def test_damage_is_named(store, tmp_path):
    key = write(store, cell())
    path = path_of(store, "scores", key)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        board(tmp_path / "o", store)
    path_of(store, "cells", key).write_text("{")
    with pytest.raises(UserError, match=re.escape(key)):
        board(tmp_path / "o", store)


def test_other_files_in_the_folder_stay(store, tmp_path):
    write(store, cell())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for _ in range(2):
        page, markdown = write_leaderboard([store], tmp_path / "out", say=lambda line: None)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert (page, markdown) == (tmp_path / "out" / "index.html", tmp_path / "out" / "leaderboard.md")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        *(page.name, markdown.name, "mine.txt", "records", "versions.json")
    ]

"""The numbers of the papers: that the files are whole, and that what is damaged is named."""

from importlib import resources
from pathlib import Path

import pytest
from helpers import ROOT

from augbench.core import registry
from augbench.core.errors import UserError
from augbench.core.protocol import load_preset, preset_names
from augbench.diffusion.pipelines import BUNDLES
from augbench.report.papers.printed import METRICS, load_paper, paper_names, read_paper

FOLDER = Path(str(resources.files("augbench") / "assets" / "papers"))


def texts(key="inout_visapp2024"):
    return [(FOLDER / f"{key}{suffix}").read_text(encoding="utf-8") for suffix in (".yaml", ".csv")]


def test_both_papers_are_there_with_every_row_of_their_tables():
    assert paper_names() == ["diag_italia2024", "inout_visapp2024"]
    rows = {key: {number: len(rows) for number, rows in load_paper(key).rows.items()} for key in paper_names()}
    assert rows["inout_visapp2024"] == {1: 6, 2: 3, 3: 6, 4: 3, 5: 5, 6: 6}
    assert rows["diag_italia2024"] == {1: 9, 2: 9}


@pytest.mark.parametrize("key", paper_names())
def test_names_are_those_of_this_package(key):
    paper = load_paper(key)
    known = {kind: registry.find(kind) for kind in ("datasets", "augmenters")} | {"protocols": preset_names()}
    assert paper.about.protocol in known["protocols"]
    pipelines = {facts["bundle"].value for facts in paper.about.settings.values() if "bundle" in facts}
    assert pipelines and pipelines <= set(BUNDLES)
    for row in (row for rows in paper.rows.values() for row in rows):
        assert row.dataset in known["datasets"]
        if row.augmenter not in paper.about.baselines:
            assert row.augmenter in known["augmenters"] and row.protocol in known["protocols"]
        assert not row.source_paper or row.source_paper in paper.about.sources


@pytest.mark.parametrize("key", paper_names())
def test_facts_are_settings_here_and_the_papers_protocol_follows_them(key):
    """Theirs could be set as they stand, each has a source, and the protocol of the paper's name holds its facts."""
    about = load_paper(key).about
    for name, facts in about.settings.items():
        nested: dict = {}
        for field, fact in facts.items():
            *above, last = field.split(".")
            (nested.setdefault(above[0], {}) if above else nested)[last] = fact.value
        made = registry.make("augmenters", name, nested).config.model_dump(mode="json")
        assert all((made[field] if not isinstance(made[field], dict) else nested[field].items() <= made[field].items())
                   for field in nested if nested[field])  # fmt: skip
    values = load_preset(about.protocol).model_dump(mode="json")
    assert {field: values[field] for field in about.training} == {f: one.value for f, one in about.training.items()}
    known = [fact.known for facts in (*about.settings.values(), about.training) for fact in facts.values()]
    assert set(known) >= {"stated", "published code"}


def test_what_diag_copied_is_what_inout_printed():
    """To the digit: 12 of its 18 rows, each with the table that it is from."""
    theirs = load_paper("inout_visapp2024")
    copied = [row for rows in load_paper("diag_italia2024").rows.values() for row in rows if row.copied_from]
    assert len(copied) == 12
    for row in copied:
        number = int(row.copied_from.partition(" table ")[2])
        (source,) = [one for one in theirs.rows[number] if (one.augmenter, one.n_aug) == (row.augmenter, row.n_aug)]
        assert source.shots == row.shots and source.protocol == row.protocol
        assert [row.stats[m].mean for m in METRICS] == [source.stats[m].mean for m in METRICS]


def test_the_results_folder_shows_the_same_files():
    """Only in a checkout that can hold links."""
    link = ROOT / "results" / "papers"
    if not link.is_dir():
        pytest.skip("no link here")
    assert link.resolve() == FOLDER.resolve()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.514", "1.514", r"inout_visapp2024.csv', line 2: 1.514 is not in \[0, 1\]"),
        ("0.514", "x", r"line 2: could not convert string to float: 'x'"),
        ("paper,table", "table,paper", r"must have the columns paper, table, dataset"),
        ("memseg,0,80", "memseg,5,80", r"line 3: shots 0, others of its table have another number"),
        ("memseg,0,100", "memseg,0,80", r"line 3: memseg with N_aug 80 occurs twice"),
        ("inout_visapp2024,1", "diag_italia2024,1", "line 2: paper 'diag_italia2024' in the file of 'inout_"),
        ("trapezoidal", "square", r"line 2: ap_definition 'square .* begins with none of trapezoidal, step-wise"),
        ("ksdd2,memseg", "ksdd2,segmem", r"'printed_as' lacks \['segmem'\]"),
        ("seeds: 4", "seeds: none", r"inout_visapp2024.yaml': 'seeds'"),
        ("seeds: 4", "seed: 4", r"'seeds' is missing|unknown key 'seed'"),
        ("short: inout", "short: [", r"inout_visapp2024.yaml' is no YAML"),
        ("  4: {", "  7: {", r"do not have the same tables: see \[4, 7\]"),
    ],
)
def test_what_is_damaged_is_named(old, new, message):
    """A change in the YAML file, or else in the CSV."""
    found = texts()
    place = 0 if ": " in old else 1
    assert old in found[place]
    found[place] = found[place].replace(old, new, 1)
    with pytest.raises(UserError, match=message):
        read_paper("inout_visapp2024", *found)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"'other2025.yaml' is missing in the package"):
        load_paper("other2025")

"""Tables of classifiers on frozen features: rows without a seed, what was trained, and chosen weights."""

import json

import pandas as pd
import pytest
from frozen_cells import NORMALS, PROBE, fill, frozen_plan
from test_report import everywhere, lines_of

from augbench.planning.outline import expected_of
from augbench.report import build_tables, expected_frame, load_expected, load_records
from augbench.report.evidence.build import build_evidence
from augbench.report.frame import CELL_FIELDS, expected_from_records
from augbench.report.references import REFERENCE, with_reference
from augbench.report.table_exports import to_json

SCREENS = "it screens augmenters; a fine-tuned classifier may rank them otherwise."
WEIGHT = "memseg: weight of a synthetic image against a real one, "


def tables_of(store, plan, weights=(0.1,)):
    """The tables by protocol and shots."""
    fill(store, plan, weights)
    tables = build_tables(load_expected(store, "tiny"), load_records(store))
    return {(table.protocol, table.shots): table for table in tables}


def test_what_the_plan_expects_is_what_records_say(store):
    plan = frozen_plan(draws=[0, 1])
    fill(store, plan)
    expected, found = expected_frame(expected_of(plan)), load_records(store)
    pd.testing.assert_frame_equal(
        found[list(CELL_FIELDS)], expected[list(CELL_FIELDS)].sort_values("key", ignore_index=True)
    )
    alone = expected_from_records(found)
    few = alone[(alone["protocol"] == "probing") & (alone["shots"] == 5) & (alone["draw"] == 1)]
    assert [*zip(few["augmenter"], few["seed"], strict=True)] == [*(("memseg", s) for s in (0, 1, 2)), ("none", None)]


def test_a_row_without_seed_is_one_run(store):
    tables = tables_of(store, frozen_plan())
    few, zero, normals = tables["probing", 5], tables["probing", 0], tables["normals", 0]
    assert few.captions[0] == (
        "Mean (sample standard deviation) over 3 seeds; none: one run, as nothing is random in it."
    )
    assert few.columns[-1].title == "runs" and [row.text(few.columns[-1]) for row in few.rows] == ["1", "3"]
    assert few.rows[0].text(few.columns[2]).endswith("(–)")  # noqa: RUF001
    assert zero.captions[0] == "Mean (sample standard deviation) over 3 seeds." and zero.columns[-1].title == "seeds"
    assert normals.captions[0] == "One run, as nothing is random in it."


def test_draws_are_what_a_row_without_seed_differs_in(store):
    plan = frozen_plan(draws=[0, 1], shots=[5], protocols=[PROBE])
    few = tables_of(store, plan)["probing", 5]
    assert few.captions[0] == (
        "Mean (sample standard deviation) over 3 seeds x 2 draws of the shots, pooled; none: one run for each draw of "
        "the shots, as nothing else is random in it."
    )
    assert [(row.found, row.expected) for row in few.rows] == [(2, 2), (6, 6)]
    alone = build_tables(load_expected(store, "tiny").query("augmenter == 'none'"), load_records(store))[0]
    assert alone.captions[0] == (
        "Mean (sample standard deviation) over 2 draws of the shots, as nothing else is random."
    )


@pytest.mark.parametrize(
    ("protocol", "caption"),
    [
        ({}, f"Logistic regression on frozen features of test_byobnet: {SCREENS}"),
        (
            {"head": "lda", "synthetic_weight": 1.0},
            f"Linear discriminant analysis on frozen features of test_byobnet: {SCREENS}",
        ),
        (
            {"head": "mlp", "normality": True},
            "A perceptron with one hidden layer on frozen features of test_byobnet and their distance to the normal "
            f"training images: {SCREENS}",
        ),
    ],
)
def test_a_caption_says_what_was_trained(store, protocol, caption):
    table = tables_of(store, frozen_plan(protocols=[PROBE | protocol]))["probing", 5]
    assert caption in table.captions and table.frozen == caption


def test_the_distance_to_normal_images_used_no_defect(store):
    table = tables_of(store, frozen_plan(protocols=[NORMALS]))["normals", 0]
    assert table.captions[1] == (
        "Mahalanobis distance to the normal training images on frozen features of test_byobnet: no defect image was "
        "used."
    )


def test_chosen_weights_are_noted_once_per_augmenter(store):
    table = tables_of(store, frozen_plan(n_aug=[6, 12]), (0.1, 0.0, 0.03))["probing", 5]
    each = "; ".join(f"N_aug {n}: 0.03 to 0.1, 0 in 1 of 3 cells" for n in (6, 12))
    note = f"{WEIGHT}chosen on real training images: {each}"
    assert table.notes[0] == f"(1) {note}"
    assert [row.mark for row in table.rows] == ["", *["(1)"] * 3]  # two N_aug and their average
    assert all("chosen on real training images" in " ".join(text.split()) for text in everywhere(table))
    first, *others = (line["notes"] for line in lines_of([table]))
    assert first == "" and any(WEIGHT in notes for notes in others)  # the first row has no synthetic images
    assert json.loads(to_json("x", [table]))["tables"][0]["notes"][0] == f"(1) {note}"


@pytest.mark.parametrize(
    ("weights", "text"),
    [((0.0,), "N_aug 6: 0 in all 3 cells"), ((1.0,), "N_aug 6: 1"), ((1 / 3, 1.0), "N_aug 6: 0.333 to 1")],
)
def test_weights_are_formatted(store, weights, text):
    table = tables_of(store, frozen_plan(), weights)["probing", 5]
    assert table.notes[0].endswith(f"chosen on real training images: {text}")


def test_without_real_defects_a_weight_is_not_chosen(store):
    tables = tables_of(store, frozen_plan(shots=[0, 1]), (1.0,))
    for shots in (0, 1):
        assert tables["probing", shots].notes[0].startswith(f"(1) {WEIGHT}with too few real defects to choose it by")


def test_a_fixed_weight_is_no_news(store):
    table = tables_of(store, frozen_plan(protocols=[PROBE | {"synthetic_weight": 1.0}]), (1.0,))["probing", 5]
    assert not any("weight" in note for note in table.notes)


def test_every_table_has_the_row_of_the_normal_images_alone(store):
    fill(store, frozen_plan(draws=[0, 1]))
    records = load_records(store)
    expected = with_reference(load_expected(store, "tiny"), records)
    tables = {(table.protocol, table.shots): table for table in build_tables(expected, records)}
    normals = tables.pop(("normals", 0))
    assert len(normals.rows) == 1 and len(tables) == 2
    for table in tables.values():
        row = next(row for row in table.rows if row.augmenter == REFERENCE)
        assert row.stats == normals.rows[0].stats and not row.n_aug
        assert table.frozen.startswith("Logistic regression")
    made = build_evidence(store, expected, records, resamples=200)
    evidence = {one.table.shots: one for one in made if one.table.protocol == "probing"}
    assert [one.versus for one in evidence[0].against] == [REFERENCE] * len(evidence[0].against) != []
    few = {(one.augmenter, one.versus): one for one in evidence[5].against}
    assert few[REFERENCE, "none"].together.runs == 2  # its one run beside both draws
    kept = expected[expected["augmenter"] != REFERENCE]
    other = kept.assign(false_alarm_rate=kept["false_alarm_rate"].where(kept["protocol"] == "probing", 0.01))
    assert REFERENCE not in set(with_reference(other, records)["augmenter"])  # another threshold

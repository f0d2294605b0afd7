"""Operating points from hand-made scores, and which class of defects to collect."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from augbench.advice.operating import (
    FEW,
    Operation,
    Point,
    Production,
    Share,
    at_threshold,
    class_sentence,
    percent,
    recall_by_class,
    stands_out,
)
from augbench.core.errors import UserError
from augbench.metrics.inference import wilson


def scores(heldout, **test):
    """Return the score table of one cell: logits of held-out normal images, and of test images by class."""
    rows = [("h", "heldout", "good", logit) for logit in heldout]
    rows += [(label, "test", label, logit) for label, logits in test.items() for logit in logits]
    table = pd.DataFrame(rows, columns=["id", "part", "label", "logit"])
    table["id"] += [f"/{number}" for number in range(len(table))]
    return table.assign(group=table["id"])


# The highest of 20 held-out images has 20, the next 19: at 5 % one of them may lie above the threshold, at 0 none.
CELLS = [
    scores(range(1, 21), good=[0, 19.5, 30, 2], crack=[19.5, 25], spot=[3]),
    scores(range(1, 21), good=[0, 1, 2, 3], crack=[18, 22], spot=[40]),
]


def operation(rates=(0.05, 0.0), defect_rate=0.1, costs=None, cells=CELLS):
    made = []
    for rate in rates:
        rows = at_threshold(cells, rate)
        normal = rows["label"] == "good"
        made.append(Point("none", rate, 20, Share.of(rows[~normal]), Share.of(rows[normal])))
    return Operation(made, recall_by_class(rows, {"crack": 4, "spot": 2}), defect_rate, True, costs, rows)


def test_a_threshold_is_chosen_on_held_out_images_and_measured_on_test_images():
    alone, none = operation().points
    assert (alone.recall.value, alone.false_positives.value) == (4 / 6, 2 / 8)  # above 19
    assert (none.recall.value, none.false_positives.value) == (3 / 6, 1 / 8)  # above 20
    assert none.lowest == 3 / 20
    assert none.where == "above all 20 held-out normal images"
    assert alone.where == "above 95 % of 20 held-out normal images"


def test_misses_and_false_alarms_of_a_thousand_parts():
    made = operation()
    point = made.points[1]
    assert point.misses(0.1) == pytest.approx(100 * 0.5) and point.false_alarms(0.1) == pytest.approx(900 / 8)
    assert "33 misses and 225 false alarms" in made.sentences()[0]
    assert "50 misses and 112 false alarms" in made.sentences()[0]


def test_none_of_n_shows_only_a_rate_below_three_of_n():
    quiet = [scores(range(1, 21), good=[0] * 30, crack=[25, 1])]
    point = operation((0.0,), cells=quiet).points[0]
    assert point.false_positives.value == 0 and point.false_positives.high == pytest.approx(3 / 30)
    assert "0 (0 of 30 normal items show only: below 90) false alarms" in operation((0.0,), cells=quiet).sentences()[0]


def test_no_miss_among_a_handful_of_defects_is_no_promise():
    keen = [scores(range(1, 21), good=[0] * 30, crack=[25] * 12)]
    made = operation((0.0,), defect_rate=0.02, costs=(50.0, 1.0), cells=keen)
    low = wilson(1, 12)[0]
    assert f"0 (0 of 12 items with a defect show only: below {20 * (1 - low):.2g}) misses" in made.sentences()[0]
    assert "; no miss and no false alarm was seen, so it may be more; letting every part" in made.sentences()[1]
    seen = operation((0.0,), costs=(50.0, 1.0)).sentences()
    assert "show only" not in seen[0] and "may be more" not in seen[1]


def test_small_costs_are_no_zero_and_nearly_all_is_not_all():
    assert "costs .5" in operation(costs=(0.005, 1.0)).sentences()[1].replace(" 0.", " .")
    assert [percent(share) for share in (299 / 300, 0.9999, 1, 0.994)] == ["99.7 %", "99.9 %", "100 %", "99 %"]


def test_images_of_one_item_count_once_in_an_interval():
    rows = at_threshold(CELLS, 0.0)
    joined = rows.assign(group="one")
    assert Share.of(joined).value == Share.of(rows).value
    assert Share.of(joined).items == 1 and Share.of(joined).low < Share.of(rows).low


def test_costs_name_the_cheaper_threshold():
    text = operation(costs=(100.0, 1.0)).sentences()[1]
    assert "3,558 with none, threshold above 95 % of 20" in text  # 33.3 * 100 + 225
    assert "the cheapest; otherwise 5,112)" in text and "every part pass costs 10,000." in text
    cheap = operation(costs=(1.0, 1.0)).sentences()[1]
    assert "threshold above all 20" in cheap and "every part pass costs 100, which is less." in cheap


@pytest.mark.parametrize(("values", "option"), [
    ((0.0,), "--defect-rate 0"), ((float("nan"),), "--defect-rate nan"), ((0.1, 1.0), "--false-alarm-cost is missing"),
    ((None, None, 2.0), "--miss-cost is missing"), ((None, 1.0, float("inf")), "--false-alarm-cost inf"),
])  # fmt: skip
def test_what_is_stated_must_make_sense(values, option):
    with pytest.raises(UserError, match=option):
        Production(*values)


# -- classes


def classes(**counts):
    """Return classes from their found and all images."""
    rows = pd.DataFrame(
        [
            (f"{name}/{number}", name, f"{name}/{number}", 1.0 if number < found else -1.0)
            for name, (found, images) in counts.items()
            for number in range(images)
        ],
        columns=["id", "label", "group", "margin"],
    )
    return recall_by_class(rows, {name: images for name, (_, images) in counts.items()})


def test_a_rare_class_that_is_found_less_than_the_others_is_to_be_collected():
    made = classes(uneven=(2, 12), crack=(28, 30), blowhole=(27, 30))
    assert [one.name for one in made] == ["uneven", "blowhole", "crack"] and stands_out(made)
    assert class_sentence(made) == "Collect more of uneven next: 17 % of 12 images found, 92 % of the others."


def test_no_class_stands_out_within_its_own_uncertainty():
    made = classes(uneven=(1, 2), crack=(28, 30))
    assert not stands_out(made) and class_sentence(made).startswith("No class of defects stands out")
    assert class_sentence(classes(crack=(1, 30))) == ""


def test_more_images_are_no_advice_for_a_class_that_is_not_rare():
    text = class_sentence(classes(uneven=(10, FEW), crack=(28, 30)))
    assert text.startswith("uneven stands out") and "not rare" in text


def test_a_class_rarely_stands_out_where_all_are_found_alike():
    """Five classes of one recall: the least found of them is named in less than one folder of twenty."""
    rng = np.random.default_rng(0)
    found = [classes(**{f"c{number}": (int(rng.binomial(15, 0.7)), 15) for number in range(5)}) for _ in range(100)]
    alone = [one[0].recall.high < one[0].others.value for one in found]
    assert sum(map(stands_out, found)) <= 5 < sum(alone)


def test_wilson_is_that_of_scipy():
    for found, number in ((0, 10), (8, 10), (30, 30), (7, 120)):
        expected = stats.binomtest(found, number).proportion_ci(0.95, "wilson")
        assert wilson(found / number, number) == pytest.approx((expected.low, expected.high))
    assert wilson(0.5, 0) == (0.0, 1.0)

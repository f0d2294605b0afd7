"""`augbench try`: what is planned in a budget, what is recommended, and the whole way on a drawn folder."""

import html
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from helpers import assert_one_line, cli
from PIL import Image

from augbench.advice import design, tryout
from augbench.advice.decide import NONE, Advice, Option, _collecting, _guess, _recommended, _what_to_do
from augbench.advice.design import AUGMENTERS, DIFFUSION, POOLS, Speed, choose, confirm_grid, diffusion
from augbench.core import registry
from augbench.metrics.inference import Verdict, smallest_difference, verdict
from augbench.metrics.resampling import Interval
from augbench.planning.plan import make_plan
from augbench.report.evidence.build import Comparison
from augbench.report.render.self_contained import minus

PILOT = Interval(0.02, -0.1, 0.14, 2, 0.05, 1e9, {"items": 0.04, "seed": 0.03})
FOLDER = SimpleNamespace(folds=5, items=50)


def smallest(comparisons, scale=None):
    return smallest_difference(PILOT.parts, PILOT.freedom, comparisons, scale)


def test_the_smallest_difference_is_that_of_textbooks():
    """One comparison: (1.96 + 0.84) standard errors; the part of the pools shrinks with their number."""
    assert smallest(1) == pytest.approx(2.8016 * 0.05, rel=1e-3)
    assert smallest(1, {"seed": 0.5}) == pytest.approx(2.8016 * (0.04**2 + 0.03**2 / 2) ** 0.5, rel=1e-3)
    assert smallest(4) > smallest(1)


def test_a_gain_of_the_smallest_difference_is_found_four_times_of_five():
    rng, few = np.random.default_rng(0), 0.05
    drawn = rng.normal(smallest(1), few, 20_000)
    assert 0.78 < (drawn - 1.96 * few > 0).mean() < 0.82


def test_time_decides_how_many_augmenters_are_compared_and_nothing_else():
    speed = Speed(0.05, 0.03, 0.1)
    plans = [choose(FOLDER, speed, PILOT, seconds) for seconds in (0, 100, 250, 600, 10_000)]
    numbers = [len(plan.augmenters) for plan in plans]
    assert numbers == sorted(numbers) and numbers[0] == 1 and numbers[-1] == len(AUGMENTERS)
    assert plans[0].over_budget and not plans[-1].over_budget
    assert {plan.pools for plan in plans} == set(POOLS) and plans[-1].pools == POOLS[1]
    assert {plan.shots for plan in plans} == {(5, 20)}
    for plan, seconds in zip(plans[1:], (100, 250, 600, 10_000), strict=True):
        assert plan.over_budget or plan.seconds <= seconds
        assert {*plan.augmenters, *plan.dropped} == {entry.get("as") or entry["name"] for entry in AUGMENTERS}


def test_the_smallest_difference_is_corrected_for_what_may_be_recommended():
    """Two protocols of MemSeg, CutPaste and MemSeg without texture; the free option and the null are no candidates."""
    plan = choose(FOLDER, Speed(0.05, 0.03, 0.1), PILOT, 10_000)
    assert plan.smallest == smallest(2 * 3, {"seed": 2 / plan.pools})


@pytest.mark.parametrize(("each", "compared"), [(0.5, True), (60.0, False)])
def test_diffusion_is_compared_where_there_is_time_for_it_or_where_it_is_asked_for(each, compared):
    speed = Speed(0.05, 0.03, 0.1, diffusion=each, adapting=30)
    found = choose(FOLDER, speed, PILOT, 10_000)
    assert ("ddpm" in found.augmenters) is compared and ("ddpm" in found.dropped) is not compared
    assert set(found.augmenters) >= {entry.get("as") or entry["name"] for entry in AUGMENTERS}
    assert found.pools == POOLS[1] and not found.over_budget
    asked = choose(FOLDER, speed, PILOT, 1, wanted=True)
    assert asked.augmenters == ("memseg", "ddpm") and asked.over_budget
    assert asked.seconds > FOLDER.folds * (30 + POOLS[0] * design.N_AUG * each)


def test_a_gpu_is_used_where_the_weights_are_at_hand(monkeypatch):
    said, gpu, weights = [], [False], [False]
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu[0])
    monkeypatch.setattr(tryout, "at_hand", lambda name: weights[0])
    assert tryout._for_this_machine(7200, said.append) is None and not said
    gpu[0] = True
    assert tryout._for_this_machine(7200, said.append) is None and "--diffusion sd15" in said[0]
    weights[0] = True
    assert tryout._for_this_machine(7200, said.append) == "sd15"
    assert tryout._for_this_machine(900, said.append) is None


def test_few_shots_are_tried_only_where_there_are_twice_as_many():
    assert choose(SimpleNamespace(folds=2, items=8), Speed(0.1, 0.05, 0.1), PILOT, 100).shots == ()
    assert choose(SimpleNamespace(folds=5, items=20), Speed(0.1, 0.05, 0.1), PILOT, 100).shots == (5,)


# -- what is recommended


def compared(estimate, error, row="x"):
    low, high = estimate - 2 * error, estimate + 2 * error
    span = Interval(estimate, low, high, 4, error)
    return SimpleNamespace(row=(row, 80), alone=span, together=span, verdict=verdict(low, high, 4))


def option(name, gain, error, seconds=10.0):
    evidence = SimpleNamespace(cost=SimpleNamespace(total=seconds))
    return Option((name, 80), "augmenter", name, "probe", "all", evidence, compared(gain, error, name), ())


def test_only_what_beats_every_free_option_is_recommended():
    helps = option("helps", 0.10, 0.02)
    assert _recommended([helps], {helps.name: [compared(0.05, 0.02)]}) is helps
    assert _recommended([helps], {helps.name: [compared(0.05, 0.02), compared(0.03, 0.02)]}) is None
    assert _recommended([option("unclear", 0.10, 0.06)], {("unclear", 80): []}) is None


def test_of_those_that_qualify_the_cheapest_within_one_standard_error_of_the_best():
    best, near, far = option("best", 0.10, 0.02, 100), option("near", 0.09, 0.02, 5), option("far", 0.06, 0.02, 1)
    assert _recommended([best, near, far], {one.name: [] for one in (best, near, far)}) is near


def test_useless_methods_are_rarely_recommended():
    """Five methods of no use, many times: at most one in twenty folders is told to use one of them."""
    rng, error = np.random.default_rng(1), 0.03
    wrong = 0
    for _ in range(2000):
        options = []
        for number in range(5):
            gain = compared(rng.normal(0, error), error)
            low, high = (gain.alone.estimate + sign * 2.576 * error for sign in (-1, 1))  # Bonferroni, five
            gain.together, gain.verdict = Interval(gain.alone.estimate, low, high), verdict(low, high, 4)
            evidence = SimpleNamespace(cost=None)
            options.append(Option((str(number), 80), "augmenter", str(number), "probe", "all", evidence, gain, ()))
        wrong += _recommended(options, {one.name: [] for one in options}) is not None
    assert wrong / 2000 <= 0.05
    assert Verdict.BETTER in {one.gain.verdict for one in options} or wrong > 0


# -- the whole way


@pytest.fixture
def parts(tmp_path):
    """A folder of images of `surfaces`: 16 without and 8 with a defect, of two classes."""
    dataset = registry.make("datasets", "surfaces", {})
    table = dataset.samples()
    defects = table[table["label"] != "good"]
    sources = {"good": table[table["label"] == "good"].head(16), "defect": defects.head(4), "<b>x": defects[4:8]}
    for label, rows in sources.items():
        (tmp_path / "parts" / label).mkdir(parents=True)
        for row in rows.to_dict("records"):
            Image.fromarray(dataset.read_image(row)).save(
                tmp_path / "parts" / label / f"{row['id'].replace('/', '_')}.png"
            )
    return tmp_path / "parts"


def tiny(*names):
    """The protocols under their names, with a small backbone on small images."""
    fields = {
        "backbone": "micro_resnet",
        "weights": "timm",
        "width": 32,
        "height": 48,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    short = {"epochs": 1, "epoch_pictures": 16, "eval_every": 1}
    return [{"name": n, "preset": n, **fields, **(short if n == "finetune_lite0" else {})} for n in names]


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(design, "_protocols", tiny)
    monkeypatch.setattr(design, "AUGMENTERS", tuple(AUGMENTERS[place] for place in (0, 1, -1)))
    monkeypatch.setattr(design, "N_AUG", 4)
    monkeypatch.setattr(design, "POOLS", (2, 2))
    monkeypatch.setattr(design, "DRAWS", 2)


@pytest.mark.usefixtures("_small")
def test_from_a_folder_to_an_answer(parts, tmp_path, monkeypatch):
    out = tmp_path / "out"
    ran = cli("try", parts, "--out", out, "--budget", "10h", "--executor", "inline")
    assert ran.returncode == 0, ran.stderr
    assert "16 normal images (good); 8 with a defect (<b>x 4, defect 4)" in ran.stdout
    assert "only gains above" in ran.stdout and "Compared: none, memseg, classic, noise_patch" in ran.stdout
    advice = json.loads((out / "advice.json").read_text())
    kinds = {one["name"]: one["kind"] for one in advice["options"]}
    assert kinds["no synthetic images"] == kinds["normal images alone"] == "free"
    assert kinds["memseg, counted less"] == "augmenter" and kinds["noise_patch, counted less"] == "control"
    assert all(sentence in " ".join(ran.stdout.split()) for sentence in advice["sentences"])
    compared = {one["name"]: one["over_none"] for one in advice["options"]}
    assert compared["no synthetic images"] is None
    assert all(one["low"] <= one["estimate"] <= one["high"] for one in compared.values() if one)
    grid = yaml.safe_load((out / "try.yaml").read_text())
    assert grid["datasets"][0]["as"] == "parts" and grid["folds"][:2] == [0, 1]
    assert_classes_are_those_of_the_records(advice, out)
    assert_one_page((out / "index.html").read_text(), advice["sentences"])
    # The same command has nothing left to do, and says the same; what is stated changes what is expected alone.
    stated = ("--defect-rate", "0.02", "--miss-cost", "50", "--false-alarm-cost", "2")
    again = cli("try", parts, "--out", out, "--budget", "10h", "--executor", "inline", *stated)
    assert again.returncode == 0 and "A pilot first" not in again.stdout
    now = json.loads((out / "advice.json").read_text())
    assert now["options"] == advice["options"]
    for one in now["operation"]["points"]:
        recall, rate = one["recall"]["value"], one["false_positive_rate"]["value"]
        assert one["cost_per_1000"] == pytest.approx(50 * 20 * (1 - recall) + 2 * 980 * rate)
    assert "Expected cost per 1,000 parts" in " ".join(again.stdout.split())
    # A recommendation is confirmed by fine-tuning.
    monkeypatch.setattr("augbench.advice.decide._recommended", lambda options, _: _memseg(options))
    assert cli("try", parts, "--out", out, "--budget", "10h", "--executor", "inline").returncode == 0
    said = json.loads((out / "advice.json").read_text())
    assert said["recommended"].startswith("memseg") and said["sentences"][0].startswith("Add 4 images of memseg")
    assert any(sentence.startswith("Fine-tuned, memseg gives") for sentence in said["sentences"])


def _memseg(options):
    return next(one for one in options if one.kind == "augmenter")


def assert_classes_are_those_of_the_records(advice, out):
    """Recall of each class: that of the records' held-out threshold, over all folds."""
    first = advice["operation"]["points"][0]
    cells = next(one["cells"] for one in advice["options"] if one["name"] == first["option"])
    results = [json.loads((out / "store" / "cells" / f"{key}.json").read_text())["result"] for key in cells]
    for one in advice["operation"]["classes"]:
        parts = [result["per_class"][one["name"]] for result in results if one["name"] in result["per_class"]]
        number = sum(part["support"] for part in parts)
        found = sum(part["support"] * part["heldout_recall"] for part in parts)
        assert one["recall"]["value"] == pytest.approx(found / number)
    assert {one["name"]: one["images"] for one in advice["operation"]["classes"]} == {"defect": 4, "<b>x": 4}


def assert_one_page(page, sentences):
    """One file without other hosts or scripts, which says all that the terminal does and escapes names."""
    assert all(minus(sentence) in html.unescape(page) for sentence in sentences)
    assert "<b>x" not in page and "&lt;b&gt;x" in page and "<script" not in page
    links = re.findall(r"""(?:src|href)=["']([^"']*)|url\(([^)]*)""", page)
    assert links and all(link.startswith("data:image/") for link, _ in links)
    assert "default-src &#39;none&#39;" in page and len(page) < 3_000_000
    for name in ("memseg", "classic", "noise_patch", "real defect"):
        assert f"<h3>{name} " in page


def test_the_page_shows_what_was_left_out_for_lack_of_time(tmp_path):
    grid = design.preview_grid(
        "preview", {"name": "surfaces", "as": "mine", "settings": {}}, ("classic", "noise_patch")
    )
    assert [entry["name"] for entry in grid["augmenters"]] == ["classic", "noise_patch"]
    assert len(make_plan(tryout._written(tmp_path, grid)).cells) == 2


def test_whatever_is_recommended_can_be_confirmed():
    more = [diffusion("micro-sd")]
    for name in (*(entry.get("as", entry["name"]) for entry in AUGMENTERS), DIFFUSION):
        grid = confirm_grid("confirm", {"name": "folder", "as": "parts"}, 2, name, more)
        assert [entry.get("as", entry["name"]) for entry in grid["augmenters"]] == ["none", name]


def test_mistakes_end_in_one_line(parts, tmp_path):
    assert_one_line(cli("try", parts, "--budget", "soon"), "--budget 'soon'")
    assert_one_line(cli("try", tmp_path / "nowhere"), "does not exist")
    assert_one_line(cli("try", parts, "--defect-rate", "2"), "--defect-rate 2")
    assert_one_line(cli("try", parts, "--miss-cost", "5"), "--false-alarm-cost is missing")
    assert_one_line(cli("try", parts, "--miss-cost", "-5", "--false-alarm-cost", "1"), "--miss-cost -5")
    assert_one_line(cli("try", parts, "--out", parts / "out"), "stays as it is")
    (parts / "good").rename(parts / "blue")
    (parts / "defect").rename(parts / "red")
    assert_one_line(cli("try", parts, "--out", tmp_path / "out"), "--good")
    assert not (tmp_path / "out" / "store").exists()


def over(row, versus, low, high, verdict=Verdict.BETTER):
    return Comparison(row, 80, versus, 0, *[Interval((low + high) / 2, low, high, 8)] * 2, verdict, 0, float("nan"))


def recommended(*over_free, null=None):
    """Return what is said where memseg is better than none by .002 to .058."""
    name = ("memseg, counted like real defects", 80)
    gain = over(name[0], NONE, 0.002, 0.058)
    best = SimpleNamespace(name=name, gain=gain, augmenter="memseg", protocol=design.ALIKE)
    over_null = {} if null is None else {name: null}
    return _what_to_do(SimpleNamespace(recommended=best, over_free={name: over_free}, over_null=over_null))


def test_the_least_gain_over_the_free_options_counts_none_among_them():
    others = [over("memseg", "normal images alone", low, low + 0.2) for low in (0.2, 0.05)]
    assert "+.030 (+.002 to +.058) AP over none, and at least +.002 over the best free option" in recommended(*others)
    assert "at least +.001 over" in recommended(over("memseg", "classic", 0.001, 0.1))


def test_noise_that_does_better_is_not_said_to_do_as_well():
    better, alike = (
        over("memseg", "noise", *ends) for ends in ((-0.07, -0.01, Verdict.WORSE), (-0.03, 0.01, Verdict.NONE))
    )
    assert recommended(null=better).endswith("Plain noise in the same places does better: -.040 (-.070 to -.010).")
    assert "does as well, as far as can be told: -.010" in recommended(null=alike)


@pytest.mark.parametrize(("first", "last", "said"), [
    (Verdict.BETTER, Verdict.BETTER, "helps"), (Verdict.BETTER, Verdict.NONE, "is not shown to help any more"),
    (Verdict.NONE, Verdict.WORSE, "is not shown to help"),
])  # fmt: skip
def test_collecting_helps_no_more_only_where_it_once_did(first, last, said):
    curve = [over("20 real defects", "5 real defects", 0, 0.1, first), over(NONE, "20 real defects", 0, 0.1, last)]
    assert next(_collecting(SimpleNamespace(curve=curve))).startswith(f"Collecting defects {said}: from 5 to 20 ")


def test_where_all_is_found_already_there_is_nothing_to_gain():
    row = SimpleNamespace(intervals={"ap": Interval(0.998, 0.993, 1.0)})
    none = Option((NONE, 0), "free", "", "probe", "all", row, None, ())
    assert "there is nothing to gain" in _what_to_do(Advice([none], {}, {}, [], {}, None, None))
    row.intervals["ap"] = Interval(0.98, 0.94, 1.0)
    said = _what_to_do(Advice([none], {}, {}, [], {}, None, None))
    assert "are shown to do better" in said and "a gain too small to show may be there" in said


def test_where_nothing_is_shown_the_highest_mean_is_called_a_guess():
    def row(name, kind, at, low=0.5):
        evidence = SimpleNamespace(intervals={"ap": Interval(at, low, 1.0)})
        return Option((name, 0), kind, "", "probe", "all", evidence, None, ())

    none, free, memseg = row(NONE, "free", 0.7), row("classic", "free", 0.71), row("memseg", "augmenter", 0.72)
    undecided = Advice([none, free, memseg, row("noise", "control", 0.9)], {}, {}, [], {}, None, None)
    assert list(_guess(undecided)) == ["Highest mean: memseg, a guess and not a finding."]
    assert not list(_guess(replace(undecided, options=[none, row("memseg", "augmenter", 0.7)])))
    assert not list(_guess(replace(undecided, free=free))) and not list(_guess(replace(undecided, recommended=memseg)))
    assert not list(_guess(replace(undecided, options=[row(NONE, "free", 0.998, low=0.993), memseg])))

"""Captions and notes of the evidence: how intervals are computed and what they do not cover."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from augbench.metrics.exchange import LEAVING, WIDEST, Rate
from augbench.metrics.inference import (
    ENUMERATED,
    FEWEST_RUNS,
    FEWEST_SEEDS,
    FLIPS,
    LEVEL,
    Verdict,
    seeds_needed,
    smallest_p,
)
from augbench.metrics.resampling import CONFIDENCE
from augbench.report.evidence.build import Comparison, Evidence
from augbench.report.evidence.lineage import inference_notes
from augbench.report.evidence.pareto import DEFINITION
from augbench.report.numbers import COLLAPSED, count_text, share
from augbench.report.sheet import Detail, Legend
from augbench.report.table_notes import FEATURE_SECONDS, FEW_ITEMS, few_items_note, folds_text, plural, run_notes

PERCENT = f"{100 * CONFIDENCE:g} %"
SEED = (
    "The seed of a cell is both that of its pool and that of its classifier, so the variance of the two cannot be "
    "separated"
)
POOL_SEED = "The seed of a cell is that of its pool alone, since its classifier has none"
ARTEFACT_CAPTIONS = (
    Legend(
        "A null shares with an augmenter all that may betray a synthetic image, but shows no defect. Shown: the row "
        "is better than the baseline and better than its null. Null itself gains: the null is better than the "
        "baseline, and the row not better than the null. Not shown: the data allow neither."
    ),
    Legend("Intervals of the differences to nulls, and of the nulls' own gains, hold all at once."),
)
FREE_CAPTION = Legend(
    "Strongest free baseline: of the rows that need no generator, the one with the best mean here. The interval begins "
    "at the lowest end of those of the differences to each of these rows: better means better than every one of them.",
)
EXCHANGE_CAPTIONS = (
    Legend(
        "Worth: the number of real defects at which a classifier of real images alone has the same AP, read off its "
        "curve over shots, made monotone and interpolated over the logarithm. Test items, draws of the shots and seeds "
        f"are resampled together. Not identifiable: more than {100 * LEAVING:g} % of the resamples leave the curve, or "
        f"the interval spans more than a factor of {WIDEST:g}. Fewer than none: all of the interval is "
        "below the real defects of the row.",
    ),
)
EXCHANGE_TOO_FEW = Legend(
    f"Too few runs to say: fewer than {FEWEST_RUNS} of the row, or at one of the numbers of shots of the curve, unless "
    "nothing in them is random."
)
COST_CAPTIONS = (
    Legend(DEFINITION, about="cost"),
    Legend("Efficient: no other row is as good at no higher cost. This compares means: see their intervals."),
)


def weight_text(weight: float | str) -> str:
    """Say how much a synthetic image counts: ``a synthetic image counts like a real one``."""
    known = {"cv": "the weight of a synthetic image is chosen on real training images",
             "equal_mass": "all synthetic images together count like all real defects"}  # fmt: skip
    if isinstance(weight, str):
        return known[weight]
    return f"a synthetic image counts {'like a real one' if weight == 1 else f'{weight:g} of a real one'}"


def exchange_captions(evidence: Evidence) -> list[str]:
    """Say what a table's worths rest on: the weight, the baseline, the curve, and what is counted."""
    counted = evidence.worths[0].counting
    low, high = min(counted.of.values()), max(counted.of.values())
    items = "" if counted.is_of_items else "; which items they show is not known"
    return [
        f"Baseline: none, at {len(counted.of)} numbers of shots, {count_text(low)} to {count_text(high)} "
        f"{counted.what}{items}. Here {weight_text(evidence.weight)}.",
        *EXCHANGE_CAPTIONS,
        *([EXCHANGE_TOO_FEW] if any(one.found.rate == Rate.TOO_FEW for one in evidence.worths) else []),
    ]


def variance_captions(evidence: Evidence) -> list[str]:
    """Explain the sources of variance."""
    return [
        Legend(
            "Standard deviations that each source adds to one run, by analysis of variance (random effects, method of "
            "moments; negative estimates are given as 0). A dash: it cannot be estimated from these runs.",
            about="variance",
        ),
        Legend(f"{_seed(evidence)}."),
    ]


def _seed(evidence: Evidence) -> str:
    return POOL_SEED if evidence.table.frozen else SEED


def seed_notes(evidence: Evidence, compared: Sequence[Comparison]) -> list[str]:
    """Say how rows without a seed are paired with the others."""
    paired = [name for one in compared if one.seeds for name in (one.augmenter, one.versus)]
    names = [name for name in dict.fromkeys(paired) if name in evidence.without_seed]
    if not names:
        return []
    return [
        Legend(
            f"{', '.join(names)} has no seed, as nothing is random in it: each of its runs is paired with every pool "
            "seed of the other row at the same fold and draw, and counts once in its own interval."
        )
    ]


def method(evidence: Sequence[Evidence]) -> list[str]:
    """Explain how the numbers are computed; printed once, before all tables."""
    resamples = max((one.resamples for one in evidence), default=0)
    sentences = [
        f"{PERCENT} intervals are for other test items and other runs like these, by a two-level bootstrap of "
        f"{resamples:,} resamples: of test items (all images of a physical item together, normal and defect ones "
        "separately, the same items for all rows of a table), then of the draws of shots, the seeds and the adapters; "
        "widened by Student's t where either are few. Other data sets, classifiers and folds than those named are not "
        "covered.",
        "s.e. items, s.e. runs: standard error of the mean due to test items, and due to draws, seeds and adapters.",
    ]
    if any(one.against or one.pairs for one in evidence):
        sentences += [
            "Differences are paired: equal fold, draw and seed, and the same test items on both sides. So two rows may "
            "differ though their own intervals overlap. The intervals of one list hold all at once (Bonferroni); lists "
            "and tables are not corrected for one another.",
            "Better, worse: the interval of the difference excludes 0. No detectable difference: it includes 0, which "
            "is no proof of equality; the interval shows how large a difference may still be. Too few runs to say: "
            f"fewer than {FEWEST_RUNS} pairs, whatever the interval, unless nothing in them is random.",
        ]
    return sentences


def interval_captions(evidence: Evidence) -> list[str]:
    """Return what the intervals of rows are based on."""
    defective = "" if evidence.table.task == "recognition" else f", {evidence.defective_groups} of them with a defect"
    counts = [row.runs for row in evidence.rows]
    runs = plural(max(counts), "run")
    if evidence.without_seed and min(counts) < max(counts):
        runs = f"{min(counts)} to {runs}"
    folds = evidence.table.folds if evidence.table.test_share is None else ()
    over = f", each the average of {folds_text(folds)}, whose items are all used" if len(folds) > 1 else ""
    return [f"{PERCENT} intervals from {plural(evidence.groups, 'test item')}{defective}, with {runs} a row{over}."]


def interval_notes(evidence: Evidence) -> list[str]:
    """Return the limitations of the intervals."""
    notes = run_notes(evidence.rows)
    if any(row.incomplete for row in evidence.rows):
        notes.append("* incomplete: some cells have no record.")
    one = [row.intervals[evidence.headline].parts for row in evidence.rows if row.runs == 1 and row.has_seed]
    if any("fold" in parts for parts in one):
        notes.append(Legend("One run: the interval takes the differences between its folds for those between seeds."))
    elif one:
        notes.append(Legend("One run: the interval covers other test items alone, not other seeds."))
    if evidence.smallest < FEW_ITEMS:
        few = few_items_note(evidence.smallest, evidence.table.task, evidence.kinds_apart)
        notes.append(
            f"{few}: from fewer than {FEW_ITEMS}, intervals tend to be too narrow. Where items add the larger s.e., "
            "more test items would help more than more seeds."
        )
    return notes


def why_not_against(evidence: Evidence) -> str:
    """Explain why no row is compared with a baseline."""
    name = evidence.baseline
    if not name:
        return f"No row of {' or '.join(evidence.wanted)} to compare the others with: --against names another."
    if all(row.augmenter == name for row in evidence.rows):
        return f"All rows are of {name}: there is no other to compare it with."
    return f"No row of {name} has the N_aug of another row, so none is compared with it."


def comparison_captions(evidence: Evidence, compared: list[Comparison]) -> list[str]:
    """Return for how many comparisons the intervals hold at once."""
    decided = sum(one.verdict != Verdict.TOO_FEW for one in compared)
    if decided < 2:
        return [Detail(f"Paired difference with its {PERCENT} interval.")]
    return [Detail(f"Paired differences, with intervals that hold for all {decided} of them at once at {PERCENT}.")]


def comparison_notes(evidence: Evidence, compared: list[Comparison]) -> list[str]:
    """Describe the test, or explain why there is none; and say how rows without a seed are paired."""
    notes = seed_notes(evidence, compared)
    if any(one.collapsed for one in compared):
        notes.append(
            f"{COLLAPSED} the difference rests on runs that have collapsed, so its verdict is about the collapse: see "
            "the intervals above."
        )
    tested = [one for one in compared if one.p == one.p]
    seeds = max((one.seeds for one in compared), default=0)
    if not tested:
        return [
            *notes,
            Detail(
                f"No test over seeds: with {plural(seeds, 'paired seed')} an exact one has no p below "
                f"{_p(smallest_p(seeds))}. There is one from {FEWEST_SEEDS} on ({_p(smallest_p(FEWEST_SEEDS))})."
            ),
        ]
    test = "exact two-sided sign-flip test"
    if seeds > ENUMERATED:
        test = f"two-sided sign-flip test, by {FLIPS:,} random signs,"
    notes.append(
        Legend(
            f"p: {test} of the mean difference over paired seeds, after Holm over "
            f"{plural(len(tested), 'comparison')}. It treats the test items as fixed, so it may be small where the "
            "interval, which does not, includes 0.",
            "p",
        )
    )
    least = min(1.0, smallest_p(seeds) * len(tested))
    if least > LEVEL:
        notes.append(
            Legend(
                f"With {plural(seeds, 'seed')} and {plural(len(tested), 'comparison')} no p can be below {_p(least)}: "
                f"it takes {seeds_needed(len(tested))} seeds to reach {_p(LEVEL)}.",
                "p",
            )
        )
    return notes


def no_variance_split(evidence: Evidence) -> str:
    """Explain why the variance cannot be split; "" where it can."""
    if any(row.variance.is_split for row in evidence.rows):
        return ""
    if all(row.trainings <= 1 for row in evidence.rows):
        if not any(row.has_seed for row in evidence.rows):
            return "One run per row, as nothing is random in it: no variance to split."
        return "One run per row: the variance between runs is unknown."
    if any(not row.variance.balanced for row in evidence.rows):
        return "Runs are missing, so the variance between runs is not split."
    for source in ("fold", "draw"):
        if any(not isnan(getattr(row.variance, source)) for row in evidence.rows):
            return f"Runs differ in their {source} alone: no variance to split."
    none = any(not row.n_aug and row.runs > 1 for row in evidence.rows)
    pool = "; a row without synthetic images has no pool, so its variance is the classifier's" if none else ""
    return f"Runs differ in their seed alone: no variance to split. {_seed(evidence)}{pool}."


def cost_notes(evidence: Evidence) -> list[str]:
    """Return why costs are missing or cannot be compared, and what they lack."""
    notes: list[str] = [Legend(FEATURE_SECONDS)] if evidence.table.frozen else []
    unknown = dict.fromkeys(row.augmenter for row in evidence.rows if row.cost is None and row.n_aug)
    if unknown:
        notes.append(f"Not on record, and so not compared: the cost of {', '.join(unknown)}.")
    costs = [row.cost for row in evidence.rows if row.cost is not None]
    devices = sorted({device for cost in costs for device in cost.devices if device})
    if len(devices) > 1:
        notes.append(f"Made on different devices, so seconds must not be compared: {', '.join(devices)}.")
    if any("" in cost.devices for cost in costs):
        of_fidelity = "Seconds of some pools are known from their fidelity records, which do not name the device."
        notes.append(Legend(of_fidelity))
    if any(not cost.told_apart for cost in costs):
        notes.append(
            Legend(
                "Adapters of an older version do not record class images separately: where there are any, their "
                "seconds are part of those of the adapter that needed them first."
            )
        )
    return notes + lineage_notes(evidence)


def lineage_notes(evidence: Evidence) -> list[str]:
    """Say how many records are older than the recorded lineage."""
    records = sum(row.found for row in evidence.rows if row.n_aug)
    return inference_notes(sum(row.inferred for row in evidence.rows), records)


def _p(value: float) -> str:
    """Format a p-value: ``.016``; below a thousandth ``0.0005``."""
    return share(value) if value >= 0.001 else f"{value:.1g}"

"""Classifiers on features of a frozen backbone: probes, and distances to the normal images.

Two things decide what a probe says about synthetic images, so they are settings of the protocol or fixed here. How much
one of them counts: at weight 1, eighty beside five shots are 94 % of the positive mass. And what features are
standardised by: always the real training images alone, since synthetic ones would shift the scale of all.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from augbench.core.errors import UserError
from augbench.core.protocol import Protocol

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.preprocessing import StandardScaler

FIXED_C = 1e-2  # below `FEWEST_GROUPS`
FEWEST_GROUPS = 20  # items with real defects from which on C is cross-validated
STRENGTHS = (1e-3, 1e-2, 1e-1)  # among which `C: cv` chooses
WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # among which `synthetic_weight: cv` chooses; 0: without synthetic images
FOLDS = 5
HIDDEN = 64  # units of the mlp head
SMALLEST = 1e-12  # probability, before its logarithm
RIDGE = 1e-6  # added to the variance of standardised features, as constant ones have none

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeRows:
    """Training images: the real ones, sorted by id, then the synthetic ones, by index in their pools."""

    features: np.ndarray  # N,D float32
    labels: np.ndarray  # N int64: 0/1 (defect) in detection, else class indices
    defects: np.ndarray  # N bool
    groups: np.ndarray  # N str: the item that an image, or the source of a synthetic image, shows; "" if unknown
    synthetic: np.ndarray  # N bool

    def only(self, chosen: np.ndarray) -> ProbeRows:
        """Return some of the rows; ``chosen`` is N bool."""
        return ProbeRows(**{name: values[chosen] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Probe:
    """A fitted probe."""

    scaler: StandardScaler
    model: ClassifierMixin
    normal: Gaussian | None  # its distance is the last feature
    outputs: int

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return logits N,K float64 of features N,D; K is `outputs`."""
        inputs = features if self.normal is None else np.column_stack([features, self.normal(features)])
        return _logits(self.model, self.scaler.transform(inputs), self.outputs)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted parameters by name."""
        fitted = {"mean": self.scaler.mean_, "scale": self.scaler.scale_}
        layers = getattr(self.model, "coefs_", None)
        if layers is None:
            fitted |= {"coef": self.model.coef_, "intercept": self.model.intercept_}
        else:
            fitted |= {f"coef_{number}": layer for number, layer in enumerate(layers)}
            fitted |= {f"intercept_{number}": layer for number, layer in enumerate(self.model.intercepts_)}
        return fitted if self.normal is None else fitted | {f"normal_{k}": v for k, v in self.normal.arrays().items()}


@dataclass(frozen=True)
class Gaussian:
    """The normal images as a Gaussian with a Ledoit-Wolf covariance."""

    mean: np.ndarray  # D
    scale: np.ndarray  # D: standard deviations, by which the covariance is standardised
    precision: np.ndarray  # D,D
    shrinkage: float  # in [0, 1]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distances N float64 of features N,D."""
        centred = (features - self.mean) / self.scale
        return np.sqrt(np.maximum(((centred @ self.precision) * centred).sum(1), 0.0))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted parameters by name."""
        return {"mean": self.mean, "scale": self.scale, "precision": self.precision}


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Fit a Gaussian to the features N,D of normal images; at least two.

    Source: Ledoit and Wolf (2004), by scikit-learn.

    Raises:
        UserError: there are fewer than two images.
    """
    from scipy.linalg import inv
    from sklearn.covariance import ledoit_wolf
    from sklearn.preprocessing import StandardScaler

    if len(features) < 2:
        raise UserError(f"{len(features)} normal training images: the distance to them needs at least 2")
    scaler = StandardScaler().fit(features.astype(np.float64))
    covariance, shrinkage = ledoit_wolf(scaler.transform(features), assume_centered=True)
    covariance[np.diag_indices_from(covariance)] += RIDGE
    return Gaussian(scaler.mean_, scaler.scale_, inv(covariance), float(shrinkage))


@dataclass(frozen=True)
class Neighbours:
    """The normal images as they are, for the distance to the nearest one.

    PatchCore (Roth et al., CVPR 2022) takes the same distance between *patches*: features of each place of two middle
    stages, averaged over their surroundings, thinned out to a coreset, and the largest distance over the places of an
    image, reweighted by its neighbourhood. Here an image is one vector, pooled over space, and no normal image is left
    out, as in DN2 (Bergman, Cohen, Hoshen, 2020) with one neighbour. So a small defect counts by what it changes in the
    pooled features of its image, and no map of the defect comes out.
    """

    scale: np.ndarray  # D: standard deviations; 1 where a feature is constant
    normals: np.ndarray  # N,D float64: divided by `scale`

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the Euclidean distances N float64 of standardised features N,D to the nearest normal image."""
        from sklearn.neighbors import NearestNeighbors

        found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(self.normals)
        return found.kneighbors(features.astype(np.float64) / self.scale)[0][:, 0]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted parameters by name."""
        return {"scale": self.scale, "normals": self.normals}


def fit_neighbours(features: np.ndarray) -> Neighbours:
    """Keep the features N,D of normal images; at least one.

    Raises:
        UserError: there is none.
    """
    from sklearn.preprocessing import StandardScaler

    if not len(features):
        raise UserError("no normal training images: the distance to the nearest one needs at least 1")
    scale = StandardScaler().fit(features.astype(np.float64)).scale_
    return Neighbours(scale, features.astype(np.float64) / scale)


@dataclass(frozen=True)
class CrossFitted:
    """The normal images as Gaussians, so that no image is compared with normal images of its own item."""

    whole: Gaussian  # of all normal images
    parts: tuple[tuple[frozenset[str], Gaussian], ...]  # some items, and the Gaussian of all others

    def distances(self, features: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Return the distances N float64 of features N,D of images whose items are ``groups``, N str."""
        found = self.whole(features)
        for items, others in self.parts:
            inside = np.isin(groups, list(items))
            found[inside] = others(features[inside])
        return found


def fit_cross_fitted(features: np.ndarray, groups: np.ndarray) -> CrossFitted:
    """Fit Gaussians to the features N,D of normal images of the items ``groups``, N str.

    Raises:
        UserError: there are too few images or items.
    """
    from sklearn.model_selection import GroupKFold

    items = len(set(groups))
    if items < 2:
        raise UserError("the normal training images show 1 item: a distance to those of other items needs at least 2")
    folds = GroupKFold(min(FOLDS, items)).split(features, groups=groups)
    parts = tuple((frozenset(groups[held]), fit_gaussian(features[kept])) for kept, held in folds)
    return CrossFitted(fit_gaussian(features), parts)


def fit_probe(
    rows: ProbeRows, outputs: int, protocol: Protocol, seed: int, normals: CrossFitted | None = None
) -> tuple[Probe, dict[str, float | None]]:
    """Fit a probe.

    Args:
        rows: training images with at least two labels.
        outputs: 1 in detection, else the number of classes.
        protocol: of kind ``probe``. Its choices by cross-validation are made on real training images alone.
        seed: of the folds and of the initialisation of ``mlp``.
        normals: the normal training images, where the protocol asks for ``normality``: the distance to them is a
            further feature.

    Returns:
        The probe, and what was chosen: ``C`` and ``synthetic_weight``, None where the head or the cell has none.
    """
    if protocol.normality != (normals is not None):
        raise ValueError("normals are given where, and only where, the protocol asks for normality")
    if normals is not None:
        distances = normals.distances(rows.features, rows.groups)
        rows = replace(rows, features=np.column_stack([rows.features, distances]))
    strength, weight = _strength(rows, protocol, seed), _weight(rows, protocol)
    if weight == "cv":
        losses = _validation_losses(rows, protocol, [(strength, tried) for tried in WEIGHTS], seed)
        weight = _least(WEIGHTS, losses, "synthetic weight")
    scaler = _fit_scaler(rows, protocol)
    model = _fit_head(scaler.transform(rows.features), rows, protocol, strength, weight, seed)
    return Probe(scaler, model, normals and normals.whole, outputs), {"C": strength, "synthetic_weight": weight}


def _strength(rows: ProbeRows, protocol: Protocol, seed: int) -> float | None:
    """Return C, chosen if need be; None for a head that has none."""
    if protocol.head == "lda":
        return None
    if protocol.C != "cv":
        return protocol.C
    real = rows.only(~rows.synthetic)
    if _defect_groups(real) < FEWEST_GROUPS:
        return FIXED_C
    losses = _validation_losses(real, protocol, [(tried, None) for tried in STRENGTHS], seed)
    return _least(STRENGTHS, losses, "C")


def _weight(rows: ProbeRows, protocol: Protocol) -> float | Literal["cv"] | None:
    """Return the weight of a synthetic image, or that it is to be chosen; None if every image counts alike."""
    if protocol.head == "lda" or not rows.synthetic.any():
        return None
    real_defects = int((rows.defects & ~rows.synthetic).sum())
    few = _defect_groups(rows.only(~rows.synthetic)) < 2  # too few to hold one out
    if protocol.synthetic_weight == "equal_mass" or (protocol.synthetic_weight == "cv" and few):
        return real_defects / int(rows.synthetic.sum()) if real_defects else 1.0
    return protocol.synthetic_weight


def _defect_groups(rows: ProbeRows) -> int:
    return len(set(rows.groups[rows.defects]))


def _least(values: Sequence[float], losses: Sequence[float], name: str) -> float:
    """Return the value with the least loss, of equal ones the first."""
    log.info("%s: %s", name, ", ".join(f"{v:g} loss {loss:.4f}" for v, loss in zip(values, losses, strict=True)))
    return values[int(np.argmin(losses))]


def _validation_losses(
    rows: ProbeRows, protocol: Protocol, tried: Sequence[tuple[float | None, float | None]], seed: int
) -> list[float]:
    """Return for each (C, synthetic weight) the log loss of held-out real images, averaged over labels.

    A synthetic image whose source shows a held-out item is left out of training.
    """
    real = rows.only(~rows.synthetic)
    losses = np.empty((len(tried), len(real.labels)))
    folds = min(FOLDS, _defect_groups(real))
    for held in _folds(tuple(real.labels), tuple(real.groups), folds, seed):
        kept = rows.only(~np.isin(rows.groups, list(set(real.groups[held]))))
        scaler = _fit_scaler(kept, protocol)
        one_label = len(np.unique(kept.labels[~kept.synthetic])) < 2  # where few labels were shuffled
        inputs, held_inputs = scaler.transform(kept.features), scaler.transform(real.features[held])
        for number, (strength, weight) in enumerate(tried):
            if one_label and not weight:  # real images alone fit no classifier
                losses[number, held] = -math.log(SMALLEST)
                continue
            model = _fit_head(inputs, kept, protocol, strength, weight, seed)
            found = np.zeros((len(held), real.labels.max() + 1))  # 0 for a label that no other fold has
            found[:, model.classes_] = model.predict_proba(held_inputs)
            of_label = found[np.arange(len(held)), real.labels[held]]
            losses[number, held] = -np.log(np.maximum(of_label, SMALLEST))
    return np.mean([losses[:, real.labels == label].mean(1) for label in np.unique(real.labels)], axis=0).tolist()


@lru_cache(8)  # cells of one row differ in their pools alone
def _folds(labels: tuple[int, ...], groups: tuple[str, ...], folds: int, seed: int) -> list[np.ndarray]:
    """Return the indices of the held-out images of each fold; items stay together."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [held for _, held in splitter.split(labels, labels, groups)]


def _fit_scaler(rows: ProbeRows, protocol: Protocol) -> StandardScaler:
    """Fit the scaler to the real images."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(rows.features[~rows.synthetic])
    if protocol.normality:  # the distance, the last feature, counts as much as all others together
        scaler.scale_[-1] /= math.sqrt(rows.features.shape[1] - 1)
    return scaler


def _fit_head(
    inputs: np.ndarray, rows: ProbeRows, protocol: Protocol, strength: float | None, weight: float | None, seed: int
) -> ClassifierMixin:
    """Fit a head to the standardised features N,D of rows, with nothing left to choose."""
    from sklearn.exceptions import ConvergenceWarning

    weights = _sample_weights(rows, 1.0 if weight is None else weight)
    used = weights > 0
    model = _new_head(protocol.head, strength, seed, len(np.unique(rows.labels[used])))
    options = {} if protocol.head == "lda" else {"sample_weight": weights[used]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head stops after a fixed number of iterations
        return model.fit(inputs[used], rows.labels[used], **options)


def _sample_weights(rows: ProbeRows, weight: float) -> np.ndarray:
    """Return N float64: all labels have the same total, and all together the number of real images.

    So neither N_aug nor the weight of synthetic images changes the strength of the penalty.
    """
    weights = np.where(rows.synthetic, weight, 1.0)
    totals = np.bincount(rows.labels, weights)
    return weights / totals[rows.labels] * np.count_nonzero(~rows.synthetic) / np.count_nonzero(totals)


def _new_head(head: str, strength: float | None, seed: int, labels: int) -> ClassifierMixin:
    if head == "lda":
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(labels, 1 / labels))
    if head == "mlp":
        from sklearn.neural_network import MLPClassifier

        # Its penalty is alpha / 2 per sample, that of logistic regression 1 / 2C.
        return MLPClassifier(hidden_layer_sizes=(HIDDEN,), alpha=1 / strength, random_state=seed)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1000)


def _logits(model: ClassifierMixin, inputs: np.ndarray, outputs: int) -> np.ndarray:
    """Return N,K float64 of standardised features N,D."""
    if hasattr(model, "decision_function"):
        found = model.decision_function(inputs)
    else:
        found = np.log(np.maximum(model.predict_proba(inputs), SMALLEST))
        found = found[:, 1] - found[:, 0] if found.shape[1] == 2 else found
    if outputs == 2:
        return np.column_stack([-found / 2, found / 2])
    return found.reshape(len(inputs), outputs)

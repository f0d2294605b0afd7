"""Near-copies: planted ones are found, alike surfaces are not joined, and nothing is chained."""

import io

import numpy as np
import pytest
from PIL import Image

from augbench.metrics import near_copies as search
from augbench.metrics.near_copies import FULL_SIDE, complete_linkage, components, near_copies, threshold_of, thumbnail


def surface(seed, size=(160, 160)):
    """Draw a rough grey surface: noise of three scales."""
    rng = np.random.default_rng(seed)
    image = np.full(size, 128.0)
    for cells, contrast in ((10, 25), (40, 20), (80, 12)):
        noise = Image.fromarray(rng.normal(0, contrast, (cells, cells)).astype(np.float32))
        image += np.asarray(noise.resize(size[::-1], Image.Resampling.BICUBIC))
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(image):
    return np.asarray(Image.fromarray(image).resize([round(0.9 * side) for side in image.shape[1::-1]]))


def shifted(image):
    return np.pad(image, ((3, 0), (3, 0), (0, 0)), mode="reflect")[: len(image), : image.shape[1]]


def scaled(factor):
    return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)


def searched(images):
    """Search for near-copies among RGB images of any size."""
    thumbs = np.stack([thumbnail(image) for image in images]) if images else np.empty((0, 96, 96), np.uint8)
    return near_copies(thumbs, lambda indices: np.stack([thumbnail(images[index], FULL_SIDE) for index in indices]))


COPIES = {"jpeg": jpeg, "resize": resized, "shift": shifted, "brighter": scaled(1.2), "darker": scaled(0.8)}


@pytest.fixture(scope="module")
def originals():
    return [surface(seed) for seed in range(60)]


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_no_others(originals, kind):
    images = originals + [COPIES[kind](image) for image in originals[:20]]
    found = searched(images)
    planted = {(index, 60 + index) for index in range(20)}
    pairs = set(map(tuple, found.pairs.tolist()))
    assert len(pairs & planted) >= 0.95 * len(planted) and not pairs - planted
    assert {len(cluster) for cluster in found.clusters} == {2} and found.largest_component == 2


def test_a_dataset_without_copies_is_not_accused(originals):
    found = searched(originals)
    assert not len(found.pairs) and not found.clusters and found.largest_component == 1


@pytest.fixture(scope="module")
def modules():
    """Surfaces with one layout of bars and finger lines, which is not symmetric; only their faint grain differs."""
    layout = np.zeros((160, 160, 1))
    layout[30:40] = layout[100:110] = -80
    layout[:, 5::9] -= 25
    return [np.clip(surface(seed) * 0.3 + 110 + layout, 0, 255).astype(np.uint8) for seed in range(60)]


def test_alike_surfaces_are_not_joined(modules):
    flat = np.stack([thumbnail(image) for image in modules]).reshape(60, -1).astype(float)
    assert np.corrcoef(flat)[np.triu_indices(60, 1)].min() > 0.85
    assert len(searched(modules).pairs) <= 1


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_alike_surfaces_are_found(modules, kind):
    found = searched(modules + [COPIES[kind](image) for image in modules[:20]])
    planted = {(index, 60 + index) for index in range(20)}
    pairs = set(map(tuple, found.pairs.tolist()))
    assert len(pairs & planted) >= 0.95 * len(planted) and len(pairs - planted) <= 1


def test_mirrored_copies_are_counted(originals):
    images = [*originals, *(image[:, ::-1] for image in originals[:10])]
    assert searched(images).mirrored >= 10


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_few_images(number, originals):
    assert not len(searched(originals[:number]).pairs)


def test_the_threshold_allows_one_decoy_in_a_hundred_pairs():
    pairs, decoys = np.linspace(0.9, 0.3, 1000), np.linspace(0.6, 0.0, 1000)
    threshold, expected = threshold_of(pairs, [decoys])
    found, false = (pairs >= threshold).sum(), (decoys >= threshold).sum()
    assert false <= 0.01 * found + 1e-9 and expected <= 0.01 * found + 1e-9
    lower = pairs[found]
    assert max((decoys >= lower).sum(), expected) > 0.01 * (found + 1) - 1
    assert threshold_of(decoys, [pairs]) == (np.inf, 0.0)


def test_the_worse_way_of_mirroring_decides():
    pairs, few, many = np.linspace(0.9, 0.3, 500), np.linspace(0.4, 0, 500), np.linspace(0.7, 0, 500)
    assert threshold_of(pairs, [few, many])[0] == threshold_of(pairs, [many])[0] > threshold_of(pairs, [few])[0]


def test_chains_are_not_joined():
    chain = np.array([(0, 1), (1, 2), (2, 3)])
    assert complete_linkage(chain, lambda more: np.zeros(len(more), bool)) == [[0, 1], [2, 3]]
    assert complete_linkage(chain, lambda more: np.ones(len(more), bool)) == [[0, 1, 2, 3]]


def test_components_connect_through_others():
    assert components([(3, 4), (0, 1), (1, 2), (4, 4)]) == [[0, 1, 2], [3, 4]]


def test_nearest_pairs_are_nominated_in_blocks(monkeypatch):
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    whole = search.nominate(features, features, 2)
    monkeypatch.setattr(search, "BLOCK", 7)
    assert (search.nominate(features, features, 2) == whole).all()
    products = features @ features.T - 1e9 * np.eye(50)
    assert {(min(i, j), max(i, j)) for i, j in enumerate(products.argmax(axis=1))} <= set(map(tuple, whole.tolist()))

"""The corpus that pretrains the shipped models: determinism, masks, captions; and that `surfaces` is held out of it."""

import dataclasses
import sys

import numpy as np
import pytest
from corpus import DEFECTS, MATERIALS, RESERVED, Item, captions, make, plan, render
from corpus.defects import OVERLAP, SHAPES
from corpus.images import DEFECT_WORDS, MATERIAL_WORDS, TRAINED, choose_colour, of_items, vague_captions
from corpus.materials import COLOURS
from corpus.words import WORDS

from augbench.core.seeds import rng
from augbench.datasets import _surface_materials
from augbench.datasets._surface_defects import DEFECTS as SURFACE_DEFECTS
from augbench.datasets._surface_materials import MATERIALS as SURFACE_MATERIALS


def make_item(material, defect, index=0):
    return Item(9, index, material, choose_colour(rng("test-corpus", material, index), material, defect), defect)


def test_an_image_depends_on_its_own_item_only():
    some, later = make(6, seed=3, workers=1), make(3, seed=3, start=3, workers=1)
    assert (some.images[3:] == later.images).all() and (some.masks[3:] == later.masks).all()
    backwards = of_items(some.items[::-1], workers=1)
    assert (backwards.images[::-1] == some.images).all()
    assert (make(6, seed=4, workers=1).images != some.images).mean() > 0.5


def test_the_number_of_workers_changes_nothing(monkeypatch):
    monkeypatch.setattr("corpus.images.BLOCK", 4)
    one, two = make(10, seed=5, workers=1), make(10, seed=5, workers=2)
    assert (one.images == two.images).all() and (one.masks == two.masks).all()


def test_arrays_match_the_items():
    corpus = make(40, seed=6, workers=1)
    assert corpus.images.shape == (40, 64, 64, 3) and corpus.images.dtype == np.uint8
    assert corpus.masks.shape == (40, 64, 64) and corpus.masks.dtype == bool
    for number, item in enumerate(corpus.items):
        assert MATERIAL_WORDS[corpus.material[number]] == item.material
        assert DEFECT_WORDS[corpus.defect[number]] == item.defect
        assert corpus.masks[number].any() == bool(item.defect)


@pytest.mark.parametrize("material", MATERIALS)
def test_every_defect_shows_on_every_material_and_nowhere_else(material):
    """The same piece without the defect differs clearly inside the mask, and hardly outside."""
    for defect in DEFECTS:
        for index in range(3):
            defective = make_item(material, defect, index)
            image, mask = render(defective)
            normal, empty = render(dataclasses.replace(defective, defect=""))
            assert not empty.any()
            assert 0.004 < mask.mean() < 0.5, (material, defect, mask.mean())
            change = np.abs(image.astype(float) - normal).mean(axis=2)
            assert change[mask].mean() > 10, (material, defect, index)
            assert change[mask].mean() > 4 * change[~mask].mean(), (material, defect, index)


def test_images_may_have_any_size():
    image, mask = render(make_item("wood", "crack"), (40, 100))
    assert image.shape == (40, 100, 3) and mask.shape == (40, 100)


def test_captions_contain_their_terms():
    assert set(WORDS) == set(DEFECTS)
    coloured = 0
    for index in range(200):
        item = plan(7, index)
        names = (item.material, *MATERIALS[item.material].names)
        for text in captions(item, 3):
            assert any(name in text for name in names), text
            found = [w for w in WORDS if any(word in text for word in (*WORDS[w].nouns, *WORDS[w].adjectives))]
            assert (item.defect in found) if item.defect else not found, text
            coloured += bool(item.colour) and item.colour in text
        assert captions(item, 3)[:2] == captions(item, 2)
    assert coloured > 100


def test_captions_resemble_published_prompts():
    texts = {text for index in range(3000) for text in captions(plan(8, index), 2)}
    for ending in ("background scratched", "background cracked"):
        assert any(text.endswith(ending) for text in texts), ending
    for text in ("brushed metal background", "copper metal scratches", "white marks on the wall"):
        assert any(text in found for found in texts), text


def test_vague_captions_name_no_material_or_no_defect():
    named, texts = 0, []
    for index in range(300):
        item = plan(9, index)
        (text,) = vague_captions(item)
        texts.append(text)
        assert text == vague_captions(item, 2)[0]
        names = (item.material, *MATERIALS[item.material].names)
        if any(name in text for name in names):
            named += 1
            continue
        if not item.defect:
            assert not any(noun in text for words in WORDS.values() for noun in words.nouns if len(noun) > 5)
    assert 60 < named < 180  # 40 %
    assert sum("defect" in text and "defect free" not in text for text in texts) > 40


def test_white_marks_are_not_put_on_white():
    assert all(choose_colour(rng("w", i), "wall", "white marks") != "white" for i in range(50))
    assert set(MATERIALS["wall"].colours) <= set(COLOURS)


# The benchmark's dataset `surfaces` is held out.


def test_no_material_of_surfaces_is_in_the_corpus():
    for name, material in MATERIALS.items():
        words = {word for text in (name, *material.names) for word in text.split()}
        for theirs, recipe in SURFACE_MATERIALS.items():
            assert theirs not in (name, *material.names)
            assert theirs.split()[-1] not in words, f"{name} is called by {theirs}'s noun"
            assert material.draw is not recipe.texture
    used = {value for module in list(sys.modules.values()) if module.__name__.startswith("corpus")
            for value in vars(module).values() if callable(value)}  # fmt: skip
    recipes = {value for name, value in vars(_surface_materials).items() if name.startswith("_") and callable(value)}
    assert recipes and not used & recipes


def test_shared_shapes_have_disjoint_ranges():
    """For shapes that both draw with the same code, all ranges are disjoint, except those in `OVERLAP`."""
    ours = {type(shape): shape for shape in SHAPES.values()}
    theirs = {type(defect.shape): defect.shape for defect in SURFACE_DEFECTS.values()}
    assert set(ours) == set(theirs)  # five kinds of shape
    for kind, shape in ours.items():
        fields = [field.name for field in dataclasses.fields(kind) if field.name not in OVERLAP]
        assert fields
        for field in fields:
            low, high = interval(getattr(shape, field))
            their_low, their_high = interval(getattr(theirs[kind], field))
            assert high < their_low or low > their_high, f"{kind.__name__}.{field}"


def interval(value):
    return value if isinstance(value, tuple) else (value, value)


def test_reserved_materials_are_never_trained_on():
    assert set(RESERVED) <= set(MATERIALS) - set(TRAINED) and len(TRAINED) == 16
    assert {plan(1, index).material for index in range(500)} == set(TRAINED)
    assert {plan(1, index, RESERVED).material for index in range(60)} == set(RESERVED)

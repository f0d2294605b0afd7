"""The files below a folder: hidden ones and litter, links and loops, endings; and the files that a table names."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from augbench.augmenters._folders import image_files
from augbench.core.errors import UserError
from augbench.core.images import SUFFIXES, read_rgb
from augbench.core.walk import HIDDEN, LOOP, NOT_UTF8, Names, is_absolute, spelling, walk


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_hidden_files_and_litter_are_left_out(tmp_path):
    litter = ("._a.png", ".DS_Store", "Thumbs.db", "b/desktop.ini", "b/ehthumbs.db")
    folders = (".git/", "__MACOSX/", "b/@eaDir/", "b/.ipynb_checkpoints/", "$RECYCLE.BIN/")
    touch(tmp_path, "a.png", "b/c.txt", *litter, *(f"{folder}x.png" for folder in folders))
    found = walk(tmp_path)
    assert found.files == ("a.png", "b/c.txt") and found.folders == ("b",)
    assert set(found.left_out) == {*litter, *folders} and set(found.left_out.values()) == {HIDDEN}
    touch(tmp_path, ".hidden/a.png")
    assert walk(tmp_path / ".hidden").images() == ["a.png"], "the root itself may be hidden"
    assert image_files("texture_folder", tmp_path, "") == [tmp_path / "a.png"]


def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path, "root/a/1.png", "elsewhere/2.png", "elsewhere/deep/3.png")
    root = tmp_path / "root"
    (root / "a" / "linked.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "deep" / "self").symlink_to(tmp_path / "elsewhere")
    (root / "own.png").symlink_to(root / "own.png")
    found = walk(root)
    assert found.files == ("a/1.png", "a/linked.png", "b/2.png", "b/deep/3.png")
    assert found.left_out == dict.fromkeys(("a/up/", "b/deep/self/", "own.png"), LOOP)


def test_a_broken_link_is_listed_as_its_image_is_missing(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nothing")
    assert walk(tmp_path).images() == ["a.png"]
    with pytest.raises(UserError, match="holds no images"):
        image_files("texture_folder", tmp_path, "set it")


def test_names_that_are_not_utf8_and_special_files_are_left_out(tmp_path, caplog):
    try:
        (tmp_path / os.fsdecode(b"a\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    os.mkfifo(tmp_path / "pipe.png")
    found = walk(tmp_path)
    assert found.files == () and found.left_out["a\\xff.png"] == NOT_UTF8 and "pipe.png" in found.left_out
    walk(tmp_path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"'{tmp_path}': 1 entry is left out, as its name is not UTF-8: 'a\\xff.png'"), "once"


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_ending_that_is_listed_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    image = Image.fromarray(np.full((5, 4), 200, np.uint8))
    kind = {".jfif": "JPEG", ".jpe": "JPEG"}.get(suffix)
    (image.convert("1") if suffix == ".pbm" else image).save(path, kind)
    assert walk(tmp_path).images() == [path.name]
    assert read_rgb(path).shape == (5, 4, 3)


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "kö/ä.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "files", "found"),
    [
        ("a/b.png", ["a/b.png"], ("a/b.png", "a/b.png")),
        ("./a//b.png", ["a/b.png"], ("a/b.png", "a/b.png")),
        ("a\\b.png", ["a/b.png"], ("a/b.png", "a/b.png")),
        ("a\\b.png", ["a\\b.png", "a/b.png"], ("a\\b.png", "a\\b.png")),  # a valid name on Linux
        (COMPOSED, [DECOMPOSED], (COMPOSED, DECOMPOSED)),
        (DECOMPOSED, [COMPOSED], (COMPOSED, COMPOSED)),
        (DECOMPOSED, [COMPOSED, DECOMPOSED], (DECOMPOSED, DECOMPOSED)),
        ("gone.png", [], ("gone.png", "gone.png")),
        ("{root}/a/b.png", ["a/b.png"], ("a/b.png", "a/b.png")),
        ("../{name}/a/b.png", ["a/b.png"], ("a/b.png", "a/b.png")),
        ("../x.png", [], None),
        ("/elsewhere/x.png", [], None),
        ("C:\\data\\x.png", [], None),
        ("\\\\server\\x.png", [], None),
        ("a/../../x.png", [], None),
    ],
)
def test_a_table_names_files_below_the_root(tmp_path, name, files, found):
    names = Names(tmp_path, files)
    name = name.format(root=tmp_path, name=tmp_path.name)
    if found:
        assert names.find(name) == found
    else:
        with pytest.raises(UserError, match="leaves the root") as error:
            names.find(name)
        assert "\n" not in str(error.value)


def test_absolute_paths_and_spellings():
    assert all(map(is_absolute, ("/a", "~/a", "C:\\a", "d:/a", "\\\\server\\a")))
    assert not any(map(is_absolute, ("a", "a/b", "a:b.png", "~a", "\\a", "")))
    assert spelling("Kratzer ") == spelling("kratzer") and spelling("two  words") == spelling("Two words")
    assert spelling(COMPOSED) == spelling(DECOMPOSED) and spelling("a") != spelling("b")

"""A review on disk: what was decided is there after any kill, and damage costs one line only."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from augbench.core.errors import UserError
from augbench.core.reviews import Chosen, certified_words, seen_in, summary_of
from augbench.diffusion.masks import read_drawn
from augbench.diffusion.prompts import read_prompts
from augbench.studio.review import Conflict, Review

FACTS = {"dataset": "surfaces", "settings": {}, "fold": None, "augmenter": "diag"}


def picture(number):
    return np.full((6, 4, 3), number, np.uint8)


def region(number=0):
    mask = np.zeros((6, 4), bool)
    mask[number % 6, 1] = True
    return mask


def opened(folder, facts=FACTS):
    return Review(folder, facts)


def add(review, number, prompt="a scratch", **about):
    about = {"source": f"train/{number}", "prompt": prompt, "negative_prompt": "smooth", "seed": number, **about}
    return review.add(picture(number), region(number), "defect", about)


def filled(folder, count=4):
    with opened(folder) as review:
        names = [
            add(review, number, "a crack" if number % 2 else "a scratch", region="drawn") for number in range(count)
        ]
    return names


def lines(folder, state):
    return [json.loads(line) for line in (folder / state / "metadata.jsonl").read_text().splitlines()]


def test_decisions_move_images_and_can_be_undone(tmp_path):
    names = filled(tmp_path)
    with opened(tmp_path) as review:
        review.decide(names[0], "accept")
        review.decide(names[1], "reject", "not plausible")
        review.decide(names[2], "revise")
        assert review.counts() == {"queue": 1, "accepted": 1, "rejected": 2}
        assert [line["file_name"] for line in lines(tmp_path, "accepted")] == ["images/000000.png"]
        assert (
            lines(tmp_path, "rejected")[0] | {"reason": "not plausible", "source": "train/1"}
            == lines(tmp_path, "rejected")[0]
        )
        assert (tmp_path / "accepted/masks/000000.png").is_file() and not (
            tmp_path / "queue/images/000000.png"
        ).exists()
        assert review.undo().id == names[2] and review.undo().id == names[1]
        review.decide(names[0], "reject")
        assert review.undo().decision == "accept", "a changed decision is undone to the one before"
        assert review.counts() == {"queue": 3, "accepted": 1, "rejected": 0}
        assert np.array_equal(review.image(names[0]), picture(0)) and np.array_equal(review.mask(names[0]), region(0))
        assert review.next().id == names[1] and review.next(names[3]).id == names[1]
        assert review.undo().id == names[0] and review.undo() is None


def test_the_package_is_light():
    code = (
        "import sys, augbench.studio; print([m for m in ('numpy', 'pandas', 'torch', 'starlette') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_all_is_there_after_the_process_was_killed(tmp_path):
    script = f"""
import os, numpy as np
from augbench.studio import Review
review = Review({str(tmp_path)!r}, {FACTS!r})
mask = np.ones((6, 4), bool)
image = np.zeros((6, 4, 3), np.uint8)
names = [review.add(image, mask, "defect", {{"prompt": "p", "source": str(n)}}) for n in range(3)]
review.keep_prompt("another"); review.keep_mask(mask, "drawn"); review.saw("normal", ["a", "b"])
review.decide(names[0], "accept"); review.decide(names[1], "reject")
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with opened(tmp_path) as review:
        assert not review.problems
        assert [item.decision for item in review.items()] == ["accept", "reject", ""]
        assert review.seen("normal") == ["a", "b"] and list(review.kept_masks()) == ["0001.png"]
        assert [one.prompt for one in review.prompts() if one.kept] == ["another", "p"]


@pytest.mark.parametrize("after", ["the event", "the image", "the mask"])
def test_files_follow_the_events_where_a_kill_came_between(tmp_path, after):
    (name, *_) = filled(tmp_path)
    event = {"event": "decide", "image": name, "decision": "accept", "reason": ""}
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    for kind in {"the event": (), "the image": ("images",), "the mask": ("images", "masks")}[after]:
        (tmp_path / "accepted" / kind).mkdir(parents=True)
        (tmp_path / "queue" / kind / f"{name}.png").rename(tmp_path / "accepted" / kind / f"{name}.png")
    with opened(tmp_path) as review:
        assert not review.problems and review.item(name).state == "accepted"
        assert [line["file_name"] for line in lines(tmp_path, "accepted")] == [f"images/{name}.png"]
        assert np.array_equal(review.mask(name), region(0))
    assert read_prompts(str(tmp_path / "prompts.yaml")).prompts == ("a scratch",)


def test_damage_is_named_and_costs_that_line_only(tmp_path):
    names = filled(tmp_path)
    with opened(tmp_path) as review:
        review.decide(names[3], "accept")
    log = tmp_path / "decisions.jsonl"
    log.write_bytes(
        log.read_bytes()
        + b'{"event": "decide", "image": "000001"}\n\xff\xfe\n[1]\n{"event": "made", "image": "../../x"}\n'
        + b'{"event": "decide", "image": "000009", "decision": "accept"}\n{"event": "decide", "image": "0000'
    )
    (tmp_path / "queue/images/000002.png").unlink()
    with opened(tmp_path) as review:
        assert [problem.split(":")[0] for problem in review.problems] == [
            *(f"decisions.jsonl line {number}" for number in (6, 7, 8, 9, 10, 11)),
            "image 000002 (decisions.jsonl line 3) has lost its file",
        ]
        assert [item.id for item in review.items()] == ["000000", "000001", "000003"]
        review.decide(names[0], "accept")
    with opened(tmp_path) as review:
        assert review.item(names[0]).decision == "accept", "an event after a torn line begins a line"
        assert add(review, 4) == "000004"


def test_masks_put_there_by_hand_are_taken_up_where_their_names_fit(tmp_path):
    filled(tmp_path)
    with opened(tmp_path) as review:
        review.keep_mask(region(), "drawn")
    for name in ("0007.png", "9999.png", "mine.png"):
        (tmp_path / "masks" / name).write_bytes((tmp_path / "masks/0001.png").read_bytes())
    with opened(tmp_path) as review:
        assert list(review.kept_masks()) == ["0001.png", "0007.png", "9999.png"]
        assert review.problems == ["'masks/mine.png' has no name such as 0001.png: left out; rename it"]
        for name in ("0007.png", "9999.png"):
            review.drop_mask(name)
        with pytest.raises(UserError, match="not in the review"):
            review.drop_mask("mine.png")
        assert review.keep_mask(region(2), "drawn") == "0002.png"
        log = (tmp_path / "decisions.jsonl").read_bytes()
        with pytest.raises(ValueError, match="is no mask"):
            review._append({"event": "mask", "mask": "mine.png", "kept": False})
        assert (tmp_path / "decisions.jsonl").read_bytes() == log
    (tmp_path / "masks/mine.png").unlink()
    with opened(tmp_path) as review:
        assert not review.problems and list(review.kept_masks()) == ["0001.png", "0002.png"]


def test_a_second_process_and_other_data_are_refused(tmp_path):
    filled(tmp_path / "r")
    with opened(tmp_path / "r"), pytest.raises(UserError, match="open in another augbench studio"):
        opened(tmp_path / "r")
    with pytest.raises(UserError, match=r"is of dataset .*give another --review"):
        opened(tmp_path / "r", FACTS | {"dataset": "elpv"})
    with pytest.raises(UserError, match="is no review"):
        Review(tmp_path / "none")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        opened(tmp_path / "own")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        opened(tmp_path / "file")


@pytest.mark.parametrize("name", ["accepted", "masks", "decisions.jsonl", "queue/images"])
def test_links_to_elsewhere_are_refused(tmp_path, name):
    filled(tmp_path / "r")
    place = tmp_path / "r" / name
    if place.exists():
        place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    with pytest.raises(UserError, match="is a link"):
        opened(tmp_path / "r")


def test_an_image_that_is_a_link_is_not_read(tmp_path):
    names = filled(tmp_path / "r")
    (tmp_path / "secret.png").write_bytes((tmp_path / "r/queue/images/000000.png").read_bytes())
    with opened(tmp_path / "r") as review:
        path = tmp_path / "r/queue/images/000000.png"
        path.unlink()
        path.symlink_to(tmp_path / "secret.png")
        with pytest.raises(UserError, match="is a link"):
            review.image(names[0])


def test_threads_do_not_corrupt_it_and_the_second_decision_is_told(tmp_path):
    names = filled(tmp_path, 12)
    refused = []

    def judge(review, decision):
        for name in names:
            try:
                review.decide(name, decision, expected="")
            except Conflict:
                refused.append(name)

    with opened(tmp_path) as review:
        threads = [threading.Thread(target=judge, args=(review, one)) for one in ("accept", "reject")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(refused) == names
        states = {item.id: item.state for item in review.items()}
    with opened(tmp_path) as review:
        assert not review.problems and {item.id: item.state for item in review.items()} == states
    assert len(lines(tmp_path, "accepted")) + len(lines(tmp_path, "rejected")) == 12


def test_what_is_kept_is_what_grids_read(tmp_path):
    names = filled(tmp_path)
    with opened(tmp_path) as review:
        review.decide(names[1], "accept")
        review.decide(names[0], "reject", "no visible defect")
        review.keep_prompt("a dent")
        review.saw("normal", ["train/1"])
        assert [(one.prompt, one.images, one.rate) for one in review.prompts()] == [
            ("a dent", 0, None),
            ("a scratch", 2, 0.0),
            ("a crack", 2, 1.0),
        ]
        first = review.keep_mask(region(), "drawn")
        assert (
            review.keep_mask(region(), "drawn") == first and review.keep_mask(region(2), "procedural", "line") != first
        )
        review.drop_mask(first)
        assert list(review.kept_masks()) == ["0002.png"] and not (tmp_path / "masks" / first).exists()
        assert review.reasons() == {"no visible defect": 1}
        assert review.regions() == [{"region": "drawn", "images": 4, "accepted": 1, "rejected": 1}]
    kept = read_prompts(str(tmp_path / "prompts.yaml"))
    assert kept.prompts == ("a dent", "a crack") and kept.negative_prompt == "smooth"
    assert "2 synthetic images (1 accepted), 1 normal training images" in kept.chosen_by
    assert np.array_equal(read_drawn(tmp_path / "masks/0002.png"), region(2))
    with opened(tmp_path) as review:
        review.keep_prompt("a crack", False)
        review.keep_prompt("a dent", False)
    assert not (tmp_path / "prompts.yaml").exists()
    assert seen_in(tmp_path / "accepted") == ("train/1",)


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    (name, *_) = filled(tmp_path)
    with opened(tmp_path) as review:
        for call, words in (
            (lambda: review.decide(name, "maybe"), "accept, reject or revise"),
            (lambda: review.decide(name, "reject", "I do not like it"), "not in the list"),
            (lambda: review.decide("../x", "accept"), "not in the review"),
            (lambda: review.keep_prompt("  "), "empty"),
            (lambda: review.keep_mask(np.zeros((3, 3), bool), "drawn"), "empty"),
            (lambda: review.drop_mask("../../etc/passwd"), "not in the review"),
            (lambda: review.saw("normal", ["a\nb"]), "line break"),
        ):
            with pytest.raises(UserError, match=words):
                call()


def test_a_full_disk_loses_the_step_and_nothing_else(tmp_path, monkeypatch):
    names = filled(tmp_path)
    with opened(tmp_path) as review:
        real = os.fsync

        def full(handle):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("augbench.studio.review.os.fsync", full)
        with pytest.raises(UserError, match="the last step was not saved"):
            review.decide(names[0], "accept")
        monkeypatch.setattr("augbench.studio.review.os.fsync", real)
        assert review.item(names[0]).decision == ""
        review.decide(names[1], "accept")
    with opened(tmp_path) as review:
        assert not review.problems
        assert [review.item(name).decision for name in names[:2]] == ["", "accept"]


# -- what a grid reads of it


def test_chosen_images_are_the_accepted_ones_or_as_many_at_random(tmp_path):
    names = filled(tmp_path, 8)
    with opened(tmp_path) as review:
        for number, name in enumerate(names[:7]):
            review.decide(name, "reject" if number % 2 else "accept")
    accepted = Chosen.of(tmp_path)
    assert [line["file_name"][7:13] for line in accepted.lines] == names[0:7:2] and accepted.capacity(()) == 4
    assert (accepted.accepted, accepted.decided) == (4, 7)
    image, mask, line = accepted.take(5, "defect", ())
    assert np.array_equal(image, picture(2)) and np.array_equal(mask, region(2)) and line["prompt"] == "a scratch"
    draws = [Chosen.of(tmp_path / "accepted", draw) for draw in (0, 0, 1)]
    assert [len(one.lines) for one in draws] == [4, 4, 4]
    assert draws[0].content == draws[1].content != draws[2].content != accepted.content
    for one in draws:
        one.take(0, "defect", ())
    (tmp_path / "accepted/images/000002.png").write_bytes((tmp_path / "accepted/images/000004.png").read_bytes())
    with pytest.raises(UserError, match="is not what was reviewed"):
        Chosen.of(tmp_path).take(1, "defect", ())
    (tmp_path / "accepted/metadata.jsonl").write_text('{"file_name": "../../x.png"}')
    with pytest.raises(UserError, match=r"line 1 is damaged"):
        Chosen.of(tmp_path)
    with opened(tmp_path) as review:
        assert not review.problems
    assert len(Chosen.of(tmp_path).lines) == 4, "opening a review writes it again"


def test_a_prompt_may_hold_any_line_separator(tmp_path):
    prompt = "a\u2028b\u2029c\x85d\r\ne"
    with opened(tmp_path) as review:
        review.decide(add(review, 0, prompt), "accept")
    (line,) = Chosen.of(tmp_path).lines
    assert line["prompt"] == prompt
    metadata = tmp_path / "accepted/metadata.jsonl"
    metadata.write_bytes(b"\n" + metadata.read_bytes() + b"\n")
    assert len(Chosen.of(tmp_path).lines) == 1
    with opened(tmp_path) as review:
        assert not review.problems and review.prompts()[0].prompt == prompt


def test_images_of_pools_are_chosen_pool_by_pool(tmp_path):
    with opened(tmp_path) as review:
        names = [add(review, number, pool=f"pool{number % 2}", index=number) for number in range(6)]
        for name in names[:3]:
            review.decide(name, "accept")
        with pytest.raises(UserError, match="no accepted image"):
            Chosen.of(tmp_path, None, "pool7").take(0, "defect", ())
    assert [Chosen.of(tmp_path, None, f"pool{n}").capacity(()) for n in (0, 1)] == [2, 1]
    assert summary_of(tmp_path, None)["accepted"] == 3 and not Chosen.of(tmp_path).lines
    assert "3 of 3 accepted" in certified_words(3, 3, None) and "random subset" in certified_words(3, 3, 0)

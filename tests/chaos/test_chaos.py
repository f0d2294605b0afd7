"""After any disturbance the same command completes a run, and its store equals that of an undisturbed run.

Rounds of bench/chaos.py, on a cluster of a head and two more nodes; the bench itself runs more. Further tests
check the bench's checks: without them it could pass any run.
"""

import json
from types import SimpleNamespace

import pytest
from chaos import DISTURBANCES, draw_round, markdown, table_of
from chaos_disturbances import Driver, FullDisk, Interrupt, Node, NodeReplaced, Record, Worker
from chaos_evidence import Outcome, differences, problems_of
from chaos_round import Played, Player, stage

ROUNDS = {  # seed and number -> disturbances that must have happened
    (4, 3): {Node},
    (8, 2): {Driver, NodeReplaced},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with stage(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "number"), ROUNDS)
def test_a_round_of_chaos_changes_nothing(made, seed, number):
    for _ in range(3):  # on a busy machine the disturbance may come after the end of the run
        played = Player(made, draw_round(seed, number)).play()
        assert not played.problems, f"{played.round}: {played.problems}"
        if {type(one) for one in played.hit} >= ROUNDS[seed, number]:
            return
    pytest.fail(f"{played.round} came too late three times")


# -- the draw


def test_a_round_is_drawn_from_seed_and_number_alone():
    assert str(draw_round(1, 7)) == str(draw_round(1, 7)) != str(draw_round(2, 7))


def test_a_round_is_repeated_in_a_new_store(tmp_path):
    in_a_folder = next(each for each in (draw_round(1, number) for number in range(13)) if each.place == "folder")
    first = Player(SimpleNamespace(folder=tmp_path), in_a_folder).place
    first.write("cells/a.json", b"{}")
    again = Player(SimpleNamespace(folder=tmp_path), in_a_folder).place
    assert again.url == first.url and again.names() == set()


def test_every_disturbance_is_drawn():
    rounds = [draw_round(1, number) for number in range(len(DISTURBANCES))]
    assert {type(one) for each in rounds for _, one in each.events} == set(DISTURBANCES)
    assert all(each.place in one.places for each in rounds for _, one in each.events)


# -- the checks of the bench

FULL = "augbench: cannot write '/x' (No space left on device): make room or rights, or write elsewhere\n"


@pytest.mark.parametrize(
    ("status", "out", "err", "struck", "message"),
    [
        (0, "30 cells done, 4 of them now, in 9 s. Store: x", "", Worker, None),
        (0, "", "", Worker, "without saying what is done"),
        (0, "30 cells done, 4 of them now, in 9 s. Store: x", "Traceback (most recent call last)", Worker, "traceback"),
        (2, "", FULL, FullDisk, None),
        (2, "", FULL, Worker, "nothing that befell it explains"),
        (2, "", f"a word\n{FULL}", FullDisk, "not one line"),
        (2, "", "augbench: no\n", FullDisk, "not explained"),
        (1, "", "", Worker, "nothing that befell it explains"),
        (-9, "", "", Driver, None),
        (-9, "", "", Node, "nothing that befell it explains"),
        (130, "Stopped: run the same command again to go on (store: x).", "", Interrupt, None),
        (130, "Stopped", "", Interrupt, "not explained"),
        (2, "failed: a: pool picture 'x' is damaged: chunk 'y': delete it, and run the grid again to make it anew", "",
         Record, None),
    ],
)  # fmt: skip
def test_output_and_status_of_a_run_are_checked(status, out, err, struck, message):
    problems = problems_of(Outcome(status, out, err, 1.0), [struck(None)])
    assert bool(problems) == bool(message)
    assert not message or message in problems[0]


def test_files_that_messages_name_for_deletion_are_found():
    again = "delete it, and run the grid again to make it anew"
    err = f"augbench: 's/cells/a.json' is damaged (Expecting value: line 1 column 1 (char 0)): {again}"
    out = "\n".join([
        f"pool image 's/p/images/00007.png' is missing or damaged: chunk 's/p/chunks/00001.jsonl': {again}",
        f"failed: c: pool picture 's/p/images/0.png' is missing or damaged: chunk 's/p/chunks/00000.jsonl': {again}",
        f"record 's/cells/b.json' is not the record of 'b': {again}",
    ])  # fmt: skip
    assert Outcome(2, out, err, 1.0).to_delete() == [
        "s/cells/a.json", "s/p/chunks/00001.jsonl", "s/p/chunks/00000.jsonl", "s/cells/b.json",
    ]  # fmt: skip


RECORD = {"key": "a", "spec": 1, "result": {"ap": 0.5}, "provenance": {"seconds": 1}}


def test_a_store_is_compared_with_the_undisturbed_one():
    expected = {"cells/a.json": json.dumps(RECORD).encode(), "pools/p/images/0.png": b"1", "logs/a.log": b"x"}
    same = {**expected, "cells/a.json": json.dumps({**RECORD, "provenance": 2}).encode()}
    assert differences({name: same[name] for name in same if name != "logs/a.log"}, expected) == []
    other = json.dumps({**RECORD, "result": {"ap": 0.6}}).encode()
    found = {"cells/a.json": other, "leases/a": b"", "failures/a.json": b"{}", "cells/.a.json.1.part": b""}
    assert [problem.split("'")[1] for problem in differences(found, expected)] == [
        "pools/p/images/0.png", "cells/.a.json.1.part", "cells/a.json", "failures/a.json", "leases/a",
    ]  # fmt: skip


def test_the_table_counts_rounds():
    good, bad = draw_round(1, 0), draw_round(1, 1)
    rounds = [
        Played(good, hit=[Worker(None), Driver(None)], reruns=1, seconds=20.0),
        Played(bad, hit=[Worker(None)], missed=[Node(None)], seconds=10.0, problems=["lost"]),
    ]
    lines = {line["disturbance"]: line for line in table_of(rounds, "tmpfs")}
    assert lines[Worker.name] == {
        "disturbance": Worker.name, "times": 2, "survived": 1, "too late": 0, "reruns": 1, "seconds a round": 15.0,
    }  # fmt: skip
    assert lines[Node.name]["too late"] == 1 and f"{FullDisk.name} (tmpfs)" in lines
    assert f"| {Worker.name} | 2 | 1 | 0 | 1 | 15.0 |" in markdown(list(lines.values()))

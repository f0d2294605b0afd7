"""The page's server: what it does, and what it refuses in one line."""

import io
import json
import threading

import numpy as np
import pytest
from helpers import assert_one_line, cli
from PIL import Image
from reviews import draw_review

from augbench.core.errors import UserError
from augbench.studio.opening import Asked, open_studio
from augbench.studio.server import make_app

starlette = pytest.importorskip("starlette.testclient", reason="starlette is not installed: pip install -e '.[studio]'")
HERE = "http://127.0.0.1:7860"
SMALL = ("steps=2",)


class Page:
    """The requests that the page makes."""

    def __init__(self, studio):
        self.studio, self.client = studio, starlette.TestClient(make_app(studio), base_url=HERE)

    def get(self, what, /, **query):
        return self.client.get(f"/api/{what}", params=query)

    def post(self, what, /, headers=None, **body):
        return self.client.post(f"/api/{what}", json=body, headers=headers)

    def region(self, data, media="image/png", **query):
        query = {"source": self.source, "origin": "drawn", **query}
        return self.client.post("/api/region", params=query, content=data, headers={"Content-Type": media})

    @property
    def source(self):
        return self.studio.training.normals[0]

    def wish(self, **changes):
        region = self.region(png(marked())).json()["region"]
        return {"source": self.source, "prompt": "a scratch", "seed": 3, "region": region, "steps": 2, **changes}


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def marked(shape=(176, 64)):
    mask = np.zeros(shape, np.uint8)
    mask[60:90, 20:40] = 255
    return mask


def refused(response, status, *words):
    assert response.status_code == status, response.text
    line = response.json()["error"]
    assert "\n" not in line and all(word in line for word in words), line


@pytest.fixture
def page(tmp_path):
    studio = open_studio(Asked(changes=SMALL), tmp_path / "r")
    yield Page(studio)
    studio.close()


def test_a_person_generates_and_certifies(page):
    state = page.get("state").json()
    assert state["sources"] == 360 and state["counts"] == {"queue": 0, "decided": 0}
    assert len(state["mask_shares"]) == 3 and state["needs_region"] and not state["is_loaded"]
    assert page.get("estimate", count=2).json()["seconds"] is None
    assert page.post("generate", **page.wish(count=3, negative_prompt="smooth")).json() == {"job": 1}
    refused(page.post("generate", **page.wish()), 400, "still making images")
    assert page.studio.worker.wait() == ""
    first, second, third = (one["id"] for one in page.get("items").json()["items"])
    about = page.get("item", name=first).json()
    assert (about["seed"], about["prompt"], about["region"]) == (3, "a scratch", "drawn") and about["has_source"]
    assert page.get("estimate", count=2).json()["seconds"] > 0

    image, source, difference, mask = (
        np.asarray(Image.open(io.BytesIO(page.get("image", name=first, kind=kind).content)))
        for kind in ("image", "source", "difference", "mask")
    )
    assert np.array_equal(mask, marked()) and (difference[0:50] == 255).all() and (difference[70] < 255).any()
    assert np.array_equal(image[0:50], source[0:50]) and not np.array_equal(image, source)

    found = page.post("decide", name=first, decision="accept", expected="").json()
    assert found["item"]["id"] == second and found["left"] == 2
    page.post("decide", name=second, decision="reject", reason="not plausible")
    refused(page.post("decide", name=second, decision="accept", expected=""), 409, "was decided meanwhile: reject")
    assert page.post("undo").json()["item"]["id"] == second
    assert [one["id"] for one in page.get("items", state="accepted", prompt="a scratch").json()["items"]] == [first]
    assert page.get("next", after=second).json()["item"]["id"] == third

    summary = page.get("summary").json()
    assert summary["counts"] == {"queue": 2, "accepted": 1, "rejected": 0}
    assert "augbench run" in summary["commands"][0]["command"]
    assert page.get("sheet").content[:4] == b"\x89PNG"
    assert page.get("progress").json()["masks"] == [{"name": "0001.png", "origin": "drawn", "of": ""}]
    assert page.studio.review.seen("normal") == [page.source]


def test_the_same_wish_gives_the_same_image_and_another_seed_another(page):
    for seed in (3, 3, 4):
        page.post("generate", **page.wish(seed=seed))
        assert page.studio.worker.wait() == ""
    digests = [item.made["sha256"] for item in page.studio.review.items()]
    assert digests[0] == digests[1] != digests[2]


def test_cancel_ends_a_job_at_its_next_step(page):
    begun, real = threading.Event(), page.studio.generator._stepped

    def stepped():
        begun.set()
        page.studio.worker._cancel.wait(20)
        real()

    page.studio.generator._stepped = stepped
    page.post("generate", **page.wish(count=50, steps=30))
    assert begun.wait(60)
    page.post("cancel")
    assert page.studio.worker.wait() == "cancelled after 0 of 50"
    assert page.get("items").json()["total"] == 0


def test_what_cannot_be_made_is_one_line(page):
    for changes, words in (
        ({"prompt": " "}, "the prompt is empty"),
        ({"source": "test-good-00000"}, "no image to start from"),
        ({"region": "none"}, "draw it again"),
        ({"count": 1000}, "count"),
        ({"seed": -1}, "seed"),
        ({"steps": "many"}, "steps"),
        ({"unknown": 1}, "unknown"),
        ({"revises": "../../x"}, "not in the review"),
    ):
        refused(page.post("generate", **page.wish(**changes)), 400, words)
    page.post("generate", **page.wish(steps=5000))
    assert "less than or equal to 1000" in page.studio.worker.wait()
    page.post("generate", **page.wish(prompt="scratch " * 200))
    assert "shorten it" in page.studio.worker.wait()


def test_regions_come_from_hands_rules_and_real_defects(page):
    name = page.studio.training.masked[0]
    for response in (
        page.get("procedural", source=page.source, kind="line", area=0.02, seed=1),
        page.get("defect_mask", name=name, source=page.source),
    ):
        mask = np.asarray(Image.open(io.BytesIO(response.content)))
        assert mask.shape == (176, 64) and set(np.unique(mask)) == {0, 255}
    assert page.studio.review.seen("defects") == [name], "a mask of a real defect tells of it"
    real = page.region(png(marked()), origin="defect", of=name).json()["region"]
    refused(page.post("keep_region", region=real), 400, "strict zero-shot")
    drawn = page.region(png(marked())).json()
    assert drawn["share"] == pytest.approx(600 / (176 * 64))
    assert page.post("keep_region", region=drawn["region"]).json()["masks"][0]["name"] == "0001.png"
    assert page.get("kept_mask", name="0001.png", source=page.source).status_code == 200
    assert page.post("drop_mask", name="0001.png").json()["masks"] == []
    refused(page.get("kept_mask", name="0001.png", source=page.source), 400, "no such region")


# -- training images only


def test_only_training_images_can_be_reached(page):
    split = page.studio.training.split
    for name in (split.test["id"].iloc[0], split.heldout["id"].iloc[0], "../../../etc/passwd", "/etc/passwd", ""):
        for response in (
            page.get("source", name=name),
            page.get("thumb", name=name),
            page.get("defect_mask", name=name, source=page.source),
            page.get("procedural", source=name, kind="line", area=0.1, seed=0),
        ):
            refused(response, 400, "is no training image")
    listed = [*page.get("sources", query="test").json()["names"], *page.get("sources", offset=300).json()["names"]]
    assert set(listed) <= set(page.studio.training.normals) and len(listed) == 60


# -- catch trials


def test_catch_trials_are_hidden_until_decided_and_never_accepted(tmp_path):
    studio = open_studio(Asked(changes=SMALL, catch=0.5), tmp_path / "r")
    page = Page(studio)
    try:
        page.post("generate", **page.wish(count=4))
        assert studio.worker.wait() == ""
        items = page.get("items", state="queue", prompt="a scratch").json()["items"]
        assert len(items) == 8 and all(one["hidden"] and set(one) == set(items[0]) for one in items)
        assert not {"prompt", "source", "seed", "region", "catch"} & set(items[0]) and items[0]["has_mask"]
        kinds = {item.id: item.catch for item in studio.review.items()}
        assert sorted(kinds.values()) == ["", "", "", "", "defect", "defect", "normal", "normal"]
        for one in items:
            refused(page.get("image", name=one["id"], kind="source"), 400, "hidden until the decision")
            refused(page.get("image", name=one["id"], kind="difference"), 400, "hidden until the decision")
            page.post("decide", name=one["id"], decision="accept")
        assert (
            page.get("item", name=next(name for name, kind in kinds.items() if not kind)).json()["prompt"]
            == "a scratch"
        )
        summary = page.get("summary").json()
        assert summary["counts"]["accepted"] == 4 and len(page.get("items", state="accepted").json()["items"]) == 4
        rates = summary["catch"]
        assert rates["hits"]["accepted"] == rates["hits"]["decided"] == 2 and rates["hits"]["low"] < 0.5
        assert rates["false_accepts"]["rate"] == 1.0
        assert len((tmp_path / "r/accepted/metadata.jsonl").read_text().splitlines()) == 4
        assert len(studio.review.seen("defects")) == 2
    finally:
        studio.close()
    with pytest.raises(UserError, match="--catch"):
        open_studio(Asked(changes=SMALL, catch=0.9), tmp_path / "r")


# -- safety


def test_requests_of_other_sites_are_refused(page):
    for headers in (
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:7860"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1234"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        response = page.client.get("/api/state", headers=headers)
        assert response.status_code == 403 and "error" in response.json(), headers
        refused(page.post("undo", headers=headers), 403)
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        refused(page.client.post("/api/undo", content=b"{}", headers={"Content-Type": media}), 415)
    refused(page.region(png(marked()), media="text/plain"), 415)
    assert (
        page.client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    )
    assert page.client.get("/api/state", headers={"Host": "localhost:9999"}).status_code == 200, "an SSH tunnel"
    assert page.client.get("/api/undo").status_code == 405


def test_the_page_loads_nothing_from_elsewhere(page):
    for path in ("/", "/style.css", "/script.js"):
        response = page.client.get(path)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert "//" not in response.text.replace("// ", "").replace("/**", "") or "http" not in response.text
        assert "innerHTML" not in response.text and "eval(" not in response.text


def test_hostile_uploads_are_refused_before_they_are_decoded(page, monkeypatch):
    bomb = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 100_000
    refused(page.region(bomb.getvalue()), 400, "108,000,000 pixels")
    refused(page.region(b"\x89PNG\r\n\x1a\n" + b"x" * 20), 400)
    refused(page.region(png(marked())[:-30]), 400)
    refused(page.region(b"GIF89a" + bytes(100)), 400, "not a PNG")
    refused(page.region(b"\x89PNG\r\n\x1a\n" + bytes(9_000_000)), 413, "8,000,000 bytes")
    refused(page.region(png(marked((20, 20)))), 400, "20 x 20")
    refused(page.region(png(np.zeros((176, 64), np.uint8))), 400, "empty")
    refused(page.region(png(marked()), origin="<script>"), 400, "origin")
    body = json.dumps({"prompt": "x" * 3000})
    refused(page.client.post("/api/keep_prompt", content=body, headers={"Content-Type": "application/json"}), 400)
    for body in (b"{", b"[1]", b"null", b"[" * 100_000, b"\xff"):
        refused(page.client.post("/api/undo", content=body, headers={"Content-Type": "application/json"}), 400, "JSON")


def test_ids_are_looked_up_and_never_paths(page, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(marked()))
    for name in ("../secret", "..%2Fsecret", "/etc/passwd", "000000\0", "\u202e000000"):
        for kind in ("image", "mask", "source", "thumb"):
            refused(page.get("image", name=name, kind=kind), 400, "not in the review")
        refused(page.get("kept_mask", name=name, source=page.source), 400)
        refused(page.post("drop_mask", name=name), 400)
        refused(page.post("decide", name=name, decision="accept"), 400)
    assert page.client.get("/../../pyproject.toml").status_code == 404
    assert page.client.get("/assets/studio/script.js").status_code == 404


def test_a_parameter_of_any_name_is_one_that_is_not_known(page):
    for response in (page.get("state", func=1), page.region(png(marked()), func=1), page.post("undo", func=1)):
        refused(response, 400, "func: unexpected")


def test_an_unforeseen_error_is_one_line_too(page, monkeypatch):
    monkeypatch.setattr(page.studio.review, "undo", lambda: 1 / 0)
    refused(page.post("undo"), 500, "ZeroDivisionError")


# -- the command


def test_mistakes_of_the_command_are_one_line(tmp_path):
    review = ("--review", tmp_path / "r")
    draw_review(tmp_path / "other", 1, facts={"dataset": "elpv", "settings": {}, "fold": 0, "augmenter": "diag"})
    for options, words in (
        (("--augmenter", "memseg"), "makes no images on the page"),
        (("--augmenter", "ddpm"), "--adapter KEY"),
        (("--pool", "x"), "--store"),
        (("--pool", "x", "--store", tmp_path / "s"), "is not a finished pool"),
        (("--augmenter", "ddpm", "--adapter", "x", "--store", tmp_path / "s"), "is not in the store"),
        (("--dataset", "surface"), "did you mean 'surfaces'"),
        (("--fold", "2"), "official split"),
        (("--catch", "0.9"), "--catch"),
        (("--set", "steps"), "KEY=VALUE"),
        (("--set", "steps=0"), "steps"),
        (("--set", "bundle=micro-sd"), "cannot use pipeline"),
        (("--review", tmp_path / "other"), "give another --review"),
        (("--port", "70000"), "port"),
    ):
        assert_one_line(cli("studio", *review, *options), words)
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").glob("accepted/images/*"))


def test_a_port_in_use_is_one_line(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_one_line(cli("studio", "--review", tmp_path / "r", "--port", port), f"--port {port} cannot be used")

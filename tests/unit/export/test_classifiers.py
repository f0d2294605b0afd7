"""`augbench export`: the graph scores as the store does, thresholds are of held-out images, mistakes are one line."""

import csv
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, TINY_PROBE, assert_one_line, cli, path_of, tiny_grid
from layouts import draw_folder
from PIL import Image

from augbench.core.contracts import GOOD
from augbench.core.errors import UserError
from augbench.export import graph as graphs
from augbench.export.cell import COMPARED
from augbench.export.classifier import module_of, read_classifier
from augbench.export.graph import logits_of, require_packages, session_of, to_onnx
from augbench.export.licences import of_weights
from augbench.export.quantise import change_of
from augbench.export.thresholds import ROUNDING, thresholds_of
from augbench.planning.plan import make_plan
from augbench.runner.driver import run
from augbench.stages.decoded_images import decode_rows, geometry, prepared
from augbench.storage.scores import scores_frame
from augbench.storage.store import Store

PREPARED = {"crop": "centre", "resize_first": [90, 100], "harmonise": 80}
HEADS = {
    "probe": PREPARED,
    "normality": {"normality": True},
    "mlp": {"head": "mlp"},
    "lda": {"head": "lda", "synthetic_weight": 1},
    "normals": {"kind": "gaussian"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A plan of images in a folder, and the store that holds its cells by protocol, weights included."""
    folder = tmp_path_factory.mktemp("export")
    draw_folder(folder / "images")
    grid = tiny_grid(
        datasets=[{"name": "folder", "settings": {"root": str(folder / "images")}}],
        augmenters=["none"],
        protocols=[
            {"name": "tuned", **TINY, "epochs": 1},
            *({**TINY_PROBE, "name": name, **own} for name, own in HEADS.items()),
        ],
        shots=[0, 5],
        save_weights="last",
    )
    store = Store(folder / "store")
    assert not run(grid, store, executor="inline").failures
    plan = make_plan(grid)
    return plan, store, {cell.protocol.name: cell for cell in plan.cells}, folder / "images"


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """The folder of a probe with int8, and what was printed."""
    _, store, cells, root = made
    out = tmp_path_factory.mktemp("out") / "probe"
    found = cli("export", store.url, cells["probe"].key, "--out", out, "--int8", "--root", root)
    assert found.returncode == 0, found.stderr
    return out, found.stdout


def scores_of(store, cell):
    return scores_frame(store.files.read(store.name("scores", cell.key)))


@pytest.mark.parametrize("name", ["tuned", *HEADS])
def test_the_module_scores_as_the_store_does(made, name):
    import torch

    plan, store, cells, _ = made
    cell = cells[name]
    module = module_of(read_classifier(store, cell.key))
    rows = plan.library.evaluated(cell.data)
    with torch.inference_mode():
        logits, *probability = module(
            torch.from_numpy(decode_rows(plan.library.dataset("folder"), rows, geometry(cell.protocol)))
        )
    assert np.allclose(logits[:, 0], scores_of(store, cell)["logit"], rtol=1e-5, atol=2e-5)
    assert len(probability) == (name != "normals")
    for one in probability:
        assert torch.equal(one, logits.sigmoid())


def test_a_distance_to_every_normal_image_is_no_graph(tmp_path):
    grid = tiny_grid(
        augmenters=["none"], shots=[0], protocols=[{**TINY_PROBE, "kind": "neighbours"}], save_weights="last"
    )
    store = Store(tmp_path)
    assert run(grid, store, executor="inline").done == 1
    with pytest.raises(UserError, match="compares with every normal image, which no graph holds"):
        read_classifier(store, min(store.keys("cells")))


def run_script(folder, graph, *paths):
    words = [sys.executable, str(folder / "infer.py"), graph, *map(str, paths)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found, list(csv.DictReader(io.StringIO(found.stdout)))


def test_the_script_scores_files_as_the_store_does(made, exported, tmp_path):
    """Also of the same pixels as palette and RGBA; what Pillow would read wrongly is named, and the rest goes on."""
    plan, store, cells, root = made
    scores = scores_of(store, cells["probe"])
    table = plan.library.samples("folder").set_index("id")
    paths = [root / table.loc[name, "image"] for name in scores["id"]]
    image = Image.open(paths[0])
    image.convert("RGBA").save(tmp_path / "rgba.png")
    Image.new("I;16", (40, 30)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no image")
    others = [tmp_path / name for name in ("rgba.png", "deep.png", "text.png")]
    found, rows = run_script(exported[0], "model.onnx", *paths, *others)
    assert found.returncode == 2 and [line.count("Traceback") for line in found.stderr.splitlines()] == [0, 0]
    assert "deep.png: pixels of mode I;16: convert it to 8 bits" in found.stderr and "text.png" in found.stderr
    logits = np.array([float(row["logit"]) for row in rows])
    assert np.allclose(logits[:-1], scores["logit"], rtol=1e-5, atol=2e-5) and logits[-1] == logits[0]
    threshold = store.read_record(cells["probe"].key)["result"]["heldout"]["threshold"]
    assert [row["decision"] for row in rows[:-1]] == [
        ("normal", "defect")[one >= threshold] for one in scores["logit"].astype(float)
    ]


def test_the_script_prepares_images_as_the_protocol_says(made, exported, tmp_path):
    """JPEG, first size and centre crop: byte for byte, on an image of another shape."""
    _, _, cells, _ = made
    image = np.random.default_rng(0).integers(0, 256, (61, 133, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    code = f"import sys; sys.path.insert(0, {str(exported[0])!r}); import infer, numpy; "
    code += f"numpy.save({str(tmp_path / 'found.npy')!r}, infer.prepared({str(tmp_path / 'image.png')!r}))"
    subprocess.run([sys.executable, "-B", "-c", code], check=True)
    expected = prepared(image, geometry(cells["probe"].protocol))
    assert np.array_equal(np.load(tmp_path / "found.npy"), expected)


def test_the_description_says_what_is_needed(made, exported):
    out, text = exported
    _, store, cells, _ = made
    model = json.loads((out / "model.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["infer.py", "model-int8.onnx", "model.json", "model.onnx"]
    assert model["key"] == cells["probe"].key and model["classes"] == ["normal", "defect"]
    assert model["input"]["shape"] == ["N", 48, 32, 3] and model["licences"]["weights"].endswith("apache-2.0")
    float32, int8 = model["graphs"]["model.onnx"], model["graphs"]["model-int8.onnx"]
    assert float32["agreement"]["different_decisions"] == 0 and float32["agreement"]["images"] <= COMPARED
    record = store.read_record(cells["probe"].key)["result"]
    assert 0 < float32["threshold"]["logit"] - record["heldout"]["threshold"] < 1e-3
    assert int8["metric"]["float32"] == pytest.approx(record["ap"]) and int8["recall"]["float32"] == pytest.approx(
        record["heldout"]["recall"]
    )
    assert int8["bytes"] == (out / "model-int8.onnx").stat().st_size < float32["bytes"] / 2
    assert "int8: AP" in text and "held-out normal" in text


def test_graphs_take_any_number_of_images_and_no_other_size(exported):
    session = session_of((exported[0] / "model.onnx").read_bytes())
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 32, 3), np.uint8)
    assert np.allclose(logits_of(session, images)[3:], logits_of(session, images[3:]), atol=1e-5)
    with pytest.raises(Exception, match="invalid dimensions"):
        logits_of(session, images[:, :40])


def table(heldout, test=((0.0, GOOD), (1.0, "crack")), groups=None):
    rows = [("heldout", value, GOOD) for value in heldout] + [("test", *one) for one in test]
    frame = pd.DataFrame(rows, columns=["part", "logit", "label"]).astype({"logit": np.float32})
    return frame.assign(id=frame.index.astype(str), group=groups or frame.index.astype(str))


def test_thresholds_are_those_that_held_out_images_support():
    found = thresholds_of(table(np.arange(100) / 100), 0.05)
    assert [(one.rate, one.above) for one in found] == [(0.05, 5), (0.1, 10), (0.02, 2), (0.01, 1), (0.0, 0)]
    assert found[0].logit == pytest.approx(0.94 + ROUNDING) and found[-1].interval == (0.0, 0.03)
    few = thresholds_of(table([0.1, 0.3]), 0.05)
    assert [(one.rate, one.above, one.interval) for one in few] == [(0.0, 0, (0.0, 1.0))]
    assert thresholds_of(table([]), 0.05) == []
    moved = table(np.arange(100) / 100, test=((9.0, GOOD), (-9.0, "crack")))
    assert [one.logit for one in thresholds_of(moved, 0.05)] == [one.logit for one in found]  # test has no say


def test_a_fall_beyond_chance_is_told_from_one_within():
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(200) < 60, "crack", GOOD)
    scores = pd.DataFrame({"label": labels, "group": np.arange(200).astype(str)})
    before = rng.normal(np.where(labels == GOOD, 0, 2))[:, None].astype(np.float32)
    assert change_of(scores, before, rng.normal(size=(200, 1)), "step").falls
    same = change_of(scores, before, before + 1, "step")
    assert not same.falls and same.before == same.after and same.interval == (0, 0)


def test_an_operator_without_an_onnx_form_is_named():
    import torch

    class Other(torch.nn.Module):
        def forward(self, images):
            return (torch.linalg.eigvalsh(images[:, :3, :3, 0].float()),)

    with pytest.raises(UserError, match=r"no ONNX graph \(operator aten._linalg_eigh is not supported\)"):
        to_onnx(Other(), 8, 8)


def test_an_opset_that_cannot_be_written_is_named():
    import torch

    class Mean(torch.nn.Module):
        def forward(self, images):
            return (images.float().mean((1, 2)),)

    with pytest.raises(UserError, match="--opset 99: the graph cannot be written in it, only in 18"):
        to_onnx(Mean(), 8, 8, 99)


def test_mistakes_are_one_line_and_nothing_is_written(made, exported, tmp_path, monkeypatch):
    _, store, cells, _ = made
    out, key = tmp_path / "out", cells["probe"].key
    assert_one_line(cli("export", store.url, "nothing", "--out", out), "cell 'nothing' is not in the store")
    assert_one_line(cli("export", store.url, "folder", "--out", out), "begins 6 keys", "longer prefix")
    assert_one_line(cli("export", store.url, key, "--out", exported[0]), "--out", "holds other things")
    draw_folder(tmp_path / "other", good=20)
    assert_one_line(cli("export", store.url, key, "--out", out, "--root", tmp_path / "other"), "has other images here")
    changed = Store(shutil.copytree(store.files.folder, tmp_path / "changed"))
    path_of(changed, "scores", cells["mlp"].key).unlink()
    assert_one_line(cli("export", changed.url, cells["mlp"].key, "--out", out), "scores", "missing or damaged")
    weights = path_of(changed, "weights", key)
    weights.write_bytes(weights.read_bytes()[:50])
    assert_one_line(cli("export", changed.url, key, "--out", out), str(weights), "damaged")
    weights.unlink()
    assert_one_line(cli("export", changed.url, key, "--out", out), key, "has no weights", "save_weights: last")
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"onnx is not installed, which exporting needs: pip install 'augbench\[onnx\]'"
    ):
        require_packages()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed", "other"]


def test_weights_that_are_gone_are_named(made, tmp_path):
    """A probe needs those of its backbone; a fine-tuned classifier has all of its own."""
    _, store, cells, _ = made
    changed = Store(shutil.copytree(store.files.folder, tmp_path / "changed"))
    for name in ("probe", "tuned"):
        record = store.read_record(cells[name].key)
        record["spec"]["protocol"]["weights"] = str(tmp_path / "gone.safetensors")
        changed.write_json("cells", cells[name].key, record)
    assert module_of(read_classifier(changed, cells["tuned"].key))
    with pytest.raises(UserError, match=r"gone.safetensors' cannot be read"):
        module_of(read_classifier(changed, cells["probe"].key))


def test_images_behind_a_vae_cannot_be_exported(made, tmp_path):
    _, store, cells, _ = made
    changed, key = Store(shutil.copytree(store.files.folder, tmp_path / "changed")), cells["probe"].key
    record = store.read_record(key)
    record["spec"]["protocol"]["roundtrip"] = "micro-sd"
    changed.write_json("cells", key, record)
    with pytest.raises(UserError, match="passed a VAE"):
        read_classifier(changed, key)


def test_licences_of_weights(made):
    _, _, cells, _ = made
    protocol = cells["probe"].protocol
    lite = protocol.model_copy(update={"backbone": "tf_efficientnet_lite0", "weights": "package"})
    assert of_weights(lite).endswith("Apache-2.0") and "no pretrained" in of_weights(cells["tuned"].protocol)
    assert of_weights(protocol.model_copy(update={"weights": "/a/b.safetensors"})).startswith("a local file, b.safe")

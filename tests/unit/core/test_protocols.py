"""Protocols: every number has a source, and training follows the presets of the papers."""

import itertools
import typing
from pathlib import Path
from types import SimpleNamespace

import layouts
import numpy as np
import pytest
import torch
from helpers import TINY, assert_one_line, cli, on_disk, path_of, tiny_grid, tiny_plan
from PIL import Image
from sklearn.metrics import average_precision_score

from augbench.classifiers.backbone import build
from augbench.classifiers.fit import Fitted, fit, predict
from augbench.classifiers.loader import DeviceImages, make_sampler
from augbench.cli.protocols_view import GROUPS
from augbench.core.errors import UserError
from augbench.core.protocol import (
    PROTOCOL_NUMBERS,
    READ_BY,
    SWITCHES,
    Protocol,
    load_preset,
    make_protocol,
    preset_names,
)
from augbench.core.seeds import derive_seed
from augbench.metrics.evaluate import headline_score
from augbench.stages.cell_data import data_of, score_table
from augbench.stages.context import Context
from augbench.stages.decoded_images import DecodedImages, decode_all
from augbench.stages.finetune import _loss_weights, gather
from augbench.stages.generate import generate_chunk
from augbench.stages.soft_labels import pooled_maximum, soft_labels

PAPERS = {  # values from the papers and their code; sources mark all other values as our choice
    "inout": {"width": 200, "height": 600, "crop": "centre", "backbone": "resnet50", "optimiser": "sgd", "lr": 0.01,
              "momentum": 0, "weight_decay": 0, "batch": 5, "epochs": 50, "sampler": "balanced", "epoch_pictures": None,
              "ap": "trapezoidal", "holdout": 0, "flip": False, "batchnorm": "train"},
    "inout_v2": {"width": 200, "height": 600, "backbone": "resnet50.tv_in1k", "optimiser": "sgd", "lr": 0.01,
                 "batch": 5, "epochs": 50, "ap": "trapezoidal", "ap_beside": "trapezoidal_ties", "gradients": "mean",
                 "labels": "image"},
    "diag": {"width": 224, "height": 632, "crop": "none", "backbone": "resnet50.tv_in1k", "weights": "timm",
             "optimiser": "adam", "lr": 1e-4, "weight_decay": 0, "batch": 32, "epochs": 50, "sampler": "shuffle",
             "epoch_pictures": None, "ap": "step", "holdout": 0, "flip": False, "batchnorm": "train"},
    "diag_as_published": {"width": 256, "height": 704, "crop": "none", "backbone": "resnet50.tv_in1k",
                          "weights": "timm", "optimiser": "adam", "lr": 1e-4, "weight_decay": 0, "batch": 32,
                          "epochs": 30, "sampler": "shuffle", "epoch_pictures": None, "ap": "step", "holdout": 0,
                          "flip": False, "batchnorm": "eval_after_first_epoch", "resize_first": (224, 632)},
    "recognition": {"width": 64, "height": 64, "backbone": "resnet18.tv_in1k", "test_share": 0.3},
}  # fmt: skip
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# -- the presets and their sources


@pytest.mark.parametrize("name", PAPERS)
def test_presets_of_papers_hold_their_numbers(name):
    preset = load_preset(name)
    assert {field: getattr(preset, field) for field in PAPERS[name]} == PAPERS[name]
    assert (preset.mean, preset.std) == IMAGENET


@pytest.mark.parametrize("name", preset_names())
def test_every_number_has_a_source(name):
    preset = load_preset(name)
    named = [field.strip() for fields in preset.sources for field in fields.split(",")]
    assert sorted(named) == sorted(set(READ_BY[preset.kind]) - {"kind"}), "each field once, and nothing else"
    assert all(len(preset.source_of(field)) > 8 for field in named)
    assert preset.about
    if name not in PAPERS:
        assert all(text.startswith("our choice: ") for text in preset.sources.values())
    for text in preset.sources.values():
        assert "NOT STATED" not in text or "our choice" in text or "later paper" in text


def test_every_field_is_printed_and_every_switch_explained():
    assert sorted(field for fields in GROUPS.values() for field in fields) == sorted(PROTOCOL_NUMBERS)
    hints = typing.get_type_hints(Protocol)
    named = {field: _words(hints[field]) for field in PROTOCOL_NUMBERS if "Literal" in str(hints[field])}
    words = {field: set(meanings) - {"NUMBER"} for field, meanings in SWITCHES.items() if field != "weights"}
    assert named == words


def _words(hint):
    """The strings that a type allows, also beside a number."""
    inside = typing.get_args(hint)
    return {word for one in inside for word in ([one] if isinstance(one, str) else _words(one))}


@pytest.mark.parametrize(("name", "better"), [("inout", "inout_v2"), ("standard", "standard_v2")])
def test_a_superseded_preset_names_the_better_one_and_keeps_its_keys(name, better):
    old, new = load_preset(name), load_preset(better)
    assert old.superseded_by == better and not new.superseded_by
    assert (old.backbone, new.backbone) == ("resnet50", "resnet50.tv_in1k")
    assert "superseded_by" not in old.key_fields
    changed = {field for field in PROTOCOL_NUMBERS if getattr(old, field) != getattr(new, field)}
    assert changed <= {"backbone", "ap_beside"}
    assert f"Superseded by {better}" in cli("protocols", "show", name).stdout


def test_a_changed_number_does_not_claim_the_papers_source():
    protocols = [{"name": "diag", "lr": 0.01, "width": 64}, {"name": "mine", "preset": "diag", "batch": 4}]
    changed, mine = tiny_grid(protocols=protocols).protocols
    for protocol, field, was in ((changed, "lr", 0.0001), (changed, "width", 224), (mine, "batch", 32)):
        assert protocol.source_of(field) == f"changed; diag has {was}"
    assert changed.source_of("height").startswith("paper, ") and mine.source_of("lr").startswith("paper, ")


def test_new_fields_left_at_their_defaults_are_in_no_key():
    old = {"batchnorm": "train", "test_share": None, "resize_first": None}
    plain, spelt = make_protocol({"name": "t", **TINY}), make_protocol({"name": "t", **TINY, **old})
    assert plain.digest == spelt.digest and not set(old) & plain.key_fields.keys()
    assert len({plain.changed(batchnorm="eval_after_first_epoch").digest, plain.digest}) == 2


def test_tagged_backbones_are_the_ones_the_papers_used():
    """The published code names torchvision's first ImageNet weights; timm has them under a tag."""
    import timm
    from torchvision.models import ResNet50_Weights

    assert timm.models.get_pretrained_cfg("resnet50.tv_in1k").url == ResNet50_Weights.IMAGENET1K_V1.url
    with pytest.raises(UserError, match=r"no pretrained weights of 'resnet50.tv_in1k' at hand.*protocols.diag.weights"):
        build(load_preset("diag"), 1, 0)
    with pytest.raises(UserError, match=r"no weights of that tag \(did you mean 'resnet18.tv_in1k'\?\)"):
        build(load_preset("recognition").under_name("r", backbone="resnet18.tv_in2k"), 1, 0)
    protocols = (make_protocol({"name": "t", **TINY, "backbone": name}) for name in ("resnet18.tv_in1k", "resnet18"))
    tagged, plain = (build(protocol, 1, 0).state_dict() for protocol in protocols)
    assert all(torch.equal(tagged[name], plain[name]) for name in plain)


def test_protocols_are_listed_and_shown():
    assert "diag_as_published" in cli("protocols", "list").stdout
    shown = cli("protocols", "show", "diag_as_published", env={"COLUMNS": "100"})
    lines = shown.stdout.splitlines()
    assert shown.returncode == 0 and max(map(len, lines)) <= 100
    for field in READ_BY["finetune"]:
        assert any(line.split()[:1] == [field] for line in lines), field
    assert not any(line.split()[:1] == ["normality"] for line in lines), "no field of another kind"
    assert any(line.split()[:2] == [">", "eval_after_first_epoch"] for line in lines)
    assert "model.train() once before the loop" in " ".join(shown.stdout.split())
    assert_one_line(cli("protocols", "show", "inuot"), "inuot", "did you mean 'inout'?")


# -- what `diag_as_published` trains is what the published code trains

SEED, EPOCHS, TRAIN, TEST = 7, 3, 70, 45
BACKBONE = "test_byobnet"  # convolutions and BatchNorm; with ResNet-50 a step would take minutes on a CPU
QUARTER = {"width": 256 // 4, "height": 704 // 4, "resize_first": (224 // 4, 632 // 4)}  # for the same reason


def published_images(root, split, width, height, resize_first):
    """Load normal, then defect images as the published loader does; and labels from the unscaled masks."""
    import torchvision.transforms as T

    sizes = [T.Resize(resize_first[::-1]), T.Resize((height, width))]
    transform, normalise = T.Compose([*sizes, T.ToTensor()]), T.Normalize(*IMAGENET)
    found = []
    for path in (Path(root) / split).glob("[0-9]*[0-9].png"):
        defective = np.asarray(Image.open(path.with_name(f"{path.stem}_GT.png"))).any()
        found.append((int(defective), path.stem, normalise(transform(Image.open(path)))))
    found.sort(key=lambda entry: entry[:2])
    return torch.stack([image for *_, image in found]), torch.tensor([label for label, *_ in found])


def published_training(model, train, test, orders, batch):
    """Run the published loop: the loss of every step, the AP after every epoch, the last logits."""
    (x, y), (x_test, y_test) = train, test
    criterion = torch.nn.BCEWithLogitsLoss(reduction="mean")
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses, aps = [], []
    model.train()  # once, before the loop
    for order in orders:
        for chosen in torch.from_numpy(order).split(batch):
            model.zero_grad()
            loss = criterion(model(x[chosen]).squeeze(1), y[chosen].float())
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        model.eval()  # as the published evaluation does; nothing calls train() again
        with torch.no_grad():
            logits = model(x_test).squeeze(1).numpy()
        aps.append(average_precision_score(y_test.numpy(), logits))
    return losses, aps, logits


@pytest.fixture(scope="module")
def ksdd2(tmp_path_factory):
    return layouts.draw_ksdd2(tmp_path_factory.mktemp("ksdd2"), TRAIN, TEST, contrast=10)  # hard: AP is about .88


def material_of(settings, store, protocol):
    plan = tiny_plan(**on_disk("ksdd2", settings, augmenters=["none"], shots=["all"], protocols=[protocol]))
    cell, data = plan.cells[0], data_of(plan.library, plan.cells[0], ())
    return data, *gather(Context(store, plan.library), DecodedImages(store, decode_all(plan)), cell, (), data)


def small(**changes):
    fields = {"backbone": BACKBONE, "weights": "scratch", "epochs": EPOCHS, **QUARTER, **changes}
    return load_preset("diag_as_published").under_name("small", **fields)


def trained(protocol, material):
    """Run our training: the loss of every step, the AP after every epoch, the last logits, normal images first."""
    data, train, evaluation = material
    aps, logits = [], []

    def evaluate(model, epoch):
        logits[:] = [predict(model, evaluation, protocol)]
        aps.append(headline_score(score_table(data, logits[0]), protocol))

    losses = fit(train, data.labels, 1, protocol, SEED, evaluate).step_losses
    return losses, aps, logits[0][np.argsort(data.evaluated["label"] != "good", kind="stable"), 0]


def test_images_equal_those_of_the_published_loader(ksdd2, store):
    """At the published size. Scaling and normalising are in a different order, so rounding may differ."""
    size = {"width": 256, "height": 704, "resize_first": (224, 632)}
    _, data, _ = material_of(ksdd2, store, small(**size))
    theirs, _ = published_images(ksdd2["root"], "train", **size)
    some = np.array([0, 1, TRAIN // 2, TRAIN - 1])
    assert np.abs(data.batch(some) - theirs[some]).max() < 2e-6


def test_training_is_that_of_the_published_loop(ksdd2, store):
    """Equal weights, order and images give equal losses and AP.

    They are equal up to rounding, since channels_last and our order of normalising change the order of sums. Losses
    differed by at most 4e-7 and APs not at all when this was written; 1e-5 allows for other processors. Training with
    BatchNorm always in train mode differs a thousand times more, so the test detects the switch.
    """
    train, test = (published_images(ksdd2["root"], split, **QUARTER) for split in ("train", "test"))
    model = build(small(), 1, derive_seed("weights", SEED) % 2**31)
    sampler = make_sampler(small(), np.zeros(TRAIN), np.random.default_rng(derive_seed("order", SEED)), good=True)
    their_losses, their_aps, their_logits = published_training(
        model, train, test, [sampler.epoch() for _ in range(EPOCHS)], small().batch
    )
    material = material_of(ksdd2, store, small())
    losses, aps, logits = trained(small(), material)
    assert len(losses) == EPOCHS * -(-TRAIN // 32)
    assert losses == pytest.approx(their_losses, abs=1e-5)
    assert logits == pytest.approx(their_logits, abs=1e-4)
    assert aps == pytest.approx(their_aps, abs=0.01) and max(aps) < 0.95  # a swap of two neighbours is allowed
    ordinary, other_aps, _ = trained(small(batchnorm="train"), material)
    first = len(losses) // EPOCHS
    assert ordinary[:first] == losses[:first] and other_aps[0] == aps[0]
    assert np.abs(np.subtract(ordinary, losses))[first:].min() > 1e-3


# -- the BatchNorm switch


def random_data(protocol, count=24):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3 == 0
    images = rng.integers(0, 200, (count, protocol.height, protocol.width, 3)) + 40 * labels[:, None, None, None]
    parts = [torch.from_numpy(images.astype(np.uint8))]
    return DeviceImages(parts, np.arange(count), protocol, torch.device("cpu")), labels.astype(np.int64)


def run(batchnorm, evaluates=True) -> tuple[Fitted, list[dict]]:
    """Fit four epochs; return the fit and the state after each epoch."""
    protocol = make_protocol({"name": "t", **TINY, "epochs": 4, "batchnorm": batchnorm})
    data, labels = random_data(protocol)
    states = []

    def record(model, epoch):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        if evaluates:
            model.eval()

    return fit(data, labels, 1, protocol, 0, record), states


def parts_equal(a, b, running):
    """Return for each running statistic (or each other tensor) whether it is equal in two states."""
    return [torch.equal(a[name], b[name]) for name in a if ("running" in name or "num_batches" in name) is running]


def test_the_batchnorm_switch_freezes_statistics():
    (still, frozen), (usual, moving) = run("eval_after_first_epoch"), run("train")
    assert all(parts_equal(frozen[0], moving[0], True) + parts_equal(frozen[0], moving[0], False))
    steps = len(still.step_losses) // 4
    assert still.step_losses[:steps] == usual.step_losses[:steps]
    for before, after in itertools.pairwise(frozen):
        assert all(parts_equal(before, after, True)) and not any(parts_equal(before, after, False))
    for before, after in itertools.pairwise(moving):
        assert not any(parts_equal(before, after, True) + parts_equal(before, after, False))


@pytest.mark.parametrize("batchnorm", ["train", "eval_after_first_epoch"])
def test_the_batchnorm_switch_does_not_depend_on_evaluation(batchnorm):
    assert run(batchnorm)[0].step_losses == run(batchnorm, evaluates=False)[0].step_losses


# -- what mixed-segdec does: gradients summed, labels from masks


def test_summed_gradients_are_those_of_a_loop_over_images():
    """One step of SGD over a batch of 16, by hand: forward and backward image by image, then the step."""
    fields = {**TINY, "epochs": 1, "batch": 16, "optimiser": "sgd", "lr": 0.1, "gradients": "summed"}
    protocol = make_protocol({"name": "t", **fields})
    data, labels = random_data(protocol)
    fitted = fit(data, labels, 1, protocol, 0, lambda model, epoch: None)
    model = build(protocol, 1, derive_seed("weights", 0) % 2**31).to(memory_format=torch.channels_last).train()
    (order,) = [make_sampler(protocol, labels, np.random.default_rng(derive_seed("order", 0)), True).epoch()]
    losses = []
    for index in order:
        logit = model(data.batch(np.array([index]))).squeeze()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor(float(labels[index])))
        loss.backward()
        losses.append(loss.item())
    assert fitted.step_losses == pytest.approx([np.mean(losses)], rel=1e-5)
    for own, other in zip(fitted.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(own, other - 0.1 * other.grad, atol=1e-6)


def test_labels_from_masks_are_their_pooled_maximum(store):
    """A mask of 4 x 4 pixels in windows of 17 x 17, resized by nothing; whole masks stay 1, images without one too."""
    mask = np.zeros((48, 32), bool)
    mask[20:24, 12:16] = True
    assert pooled_maximum(mask, (32, 48, "none", ())) == pytest.approx(16 / 17**2)
    assert pooled_maximum(np.ones((48, 32), bool), (32, 48, "none", ())) == 1
    plan = tiny_plan(augmenters=["none", "memseg"], shots=[2], protocols=[{"name": "t", **TINY, "labels": "masks"}])
    plain, mixed = plan.cells
    data = data_of(plan.library, plain, ())
    found = soft_labels(Context(store, plan.library), plain, (), data)
    assert found.dtype == np.float32 and ((found > 0) == (data.labels == 1)).all() and 0 < found.max() < 1
    slices = plan.needs[mixed.key]
    for chunk in range(slices[0].chunks):
        generate_chunk(Context(store, plan.library), slices[0].pool, chunk)
    synthetic = soft_labels(Context(store, plan.library), mixed, slices, data_of(plan.library, mixed, slices))[-6:]
    assert (synthetic > 0).all() and synthetic.min() < 1
    path_of(store, "pools", slices[0].pool.key).joinpath("masks/00000.png").unlink()
    again = soft_labels(Context(store, plan.library), mixed, slices, data_of(plan.library, mixed, slices))
    assert again[-6] == 1


def test_step_losses_average_to_the_epoch_losses():
    fitted, _ = run("train")
    sizes = np.array([8, 8] * 4)  # 8 positives and as many negatives, in batches of 8
    means = (np.array(fitted.step_losses) * sizes).reshape(4, 2).sum(axis=1) / 16
    assert fitted.losses == pytest.approx(means.tolist(), abs=1e-12) and fitted.shown == 64


def test_the_weight_of_an_image_is_that_of_its_loss():
    protocol = make_protocol({"name": "t", **TINY, "epochs": 2})
    data, labels = random_data(protocol)

    def losses(weights):
        return fit(data, labels, 1, protocol, 0, lambda model, epoch: None, weights=weights).step_losses

    plain, ones = losses(None), losses(np.ones(len(labels), np.float32))
    assert ones == pytest.approx(plain, abs=1e-5)
    assert losses(np.where(labels, 0.0, 1.0).astype(np.float32))[0] < plain[0]


def test_a_synthetic_image_counts_as_the_protocol_says():
    """The mean weight of a label stays 1: real images count more where synthetic ones count less."""
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])  # two real defects, then four synthetic ones
    data = SimpleNamespace(train=range(5), labels=labels, counts={"synthetic": 4, "shots": 2})

    def weights(**fields):
        return _loss_weights(SimpleNamespace(protocol=make_protocol({"name": "t", **TINY, **fields})), data)

    assert weights() is None
    assert weights(synthetic_weight=0.25) == pytest.approx([1, 1, 1, 2, 2, 0.5, 0.5, 0.5, 0.5])
    assert weights(synthetic_weight="equal_mass") == pytest.approx([1, 1, 1, 1.5, 1.5, 0.75, 0.75, 0.75, 0.75])
    with pytest.raises(UserError, match="'synthetic_weight' is chosen by a probe only"):
        weights(synthetic_weight="cv")


# -- frozen backbones

FROZEN = {"name": "p", "width": 32, "height": 32, "kind": "probe"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 3}, "'epochs' is not read by a protocol of kind 'probe': leave it out"),
        ({"kind": "gaussian", "head": "mlp"}, "'head' is not read by a protocol of kind 'gaussian': leave it out"),
        ({"kind": "finetune"}, "'lr' is missing or empty"),
        ({"weights": "scratch"}, "a protocol of kind 'probe' needs pretrained weights, not 'scratch'"),
        ({"head": "lda", "synthetic_weight": "cv"}, "set synthetic_weight: 1, and no C"),
        ({"C": 0}, "'C': a number above 0, or 'cv' (got 0)"),
        ({"synthetic_weight": "much"}, "'synthetic_weight': a number above 0, 'equal_mass' or 'cv' (got 'much')"),
        ({"kind": "prob"}, "'kind': input should be 'finetune', 'probe', 'gaussian' or 'neighbours' (got 'prob')"),
    ],
)
def test_a_kind_refuses_what_it_does_not_read(fields, said):
    with pytest.raises(UserError) as raised:
        make_protocol({**FROZEN, **fields})
    assert str(raised.value).endswith(said)


def test_grids_define_probes_in_full_or_by_a_preset():
    entries = [FROZEN, {"name": "mine", "preset": "probe", "C": 0.5}, {"name": "probe", "synthetic_weight": 0.03}]
    full, mine, changed = tiny_grid(protocols=entries).protocols
    assert (full.backbone, full.C, full.synthetic_weight) == ("resnet50", "cv", 1.0)
    assert (mine.C, mine.weights) == (0.5, "package") and changed.name == "probe+synthetic_weight=0.03"
    assert full.key_fields == {"name": "p", "kind": "probe", "width": 32, "height": 32}


def test_a_frozen_backbone_without_weights_is_not_offered_random_ones():
    with pytest.raises(UserError, match=r"set protocols.probe_resnet50.weights to a local .safetensors file$"):
        build(load_preset("probe_resnet50"), 0, 0)

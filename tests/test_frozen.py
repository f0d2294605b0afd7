"""What must never change: bytes, splits, seeds, keys and defaults that published results and stores rest on.

No refactoring edits this file; it may only grow. What it looks at comes from `subjects`, wherever that lives now.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from subjects import (
    AdapterSpec,
    AugmenterSpec,
    Cell,
    DataSpec,
    FidelitySpec,
    PoolSpec,
    SearchSpec,
    choose_shots,
    defaults,
    derive_seed,
    digest,
    image_of,
    load_preset,
    make_split,
    plugin_names,
    preset_names,
    procedural_region,
    seeds_in_use,
    small_dataset,
    surface,
)

HERE = Path(__file__).parent / "frozen"

# -- images

IMAGES = {
    "memseg": "d70638ec820ef670e529259303961aa60c7b8be7e35fb422dc94383671f2c745",
    "memseg_structure": "8415a8286c7774d168939e38ac1d6a15f9ce4c12effa8b16e3b31e1caf7ed4e3",
    "memseg_shots": "daded2f802f646993655c69fd4b0ca7c12e10b006734b35e14cc49a7a0f2995f",
    "cutpaste": "cdc3a40e79398feb48c902f81a7b681ce671a44b67f19bf01750b3c2f296dec3",
    "region_noise": "1019e580718acbee3ad6ab39b76d6abf571eb1e0afb39b17c58009818a907457",
    "region_line": "08623100b8801c1f4ae9cb0e55d5b96a693076932969c37cdc5fe1488f00b622",
    "region_blob": "b0a5336958c98e207bbbdbebc49730f69974d3fee82e14b229f87ae47b1aaa62",
    "train-crack-00003": "125f4a4d8c793b96f480a12bf432dca90b68b78e5b97a75a3f80998ab5cea91b",
    "train-good-00399": "f915f88117a892131ddcd5e45664b9eecfbca8fc8a0bd51853bae955919baedd",
    "train-spot-00029": "62606e50c95d5a3830cc479642dc00c234782c1c70c391d114ff8f3691b56065",
}


def made():
    """Name -> how its image is made."""
    return {
        "memseg": lambda: image_of("memseg", 5),
        "memseg_structure": lambda: image_of("memseg", 5, texture_share=0.0, foreground=True),
        "memseg_shots": lambda: image_of("memseg", 5, source="shots"),
        "cutpaste": lambda: image_of("cutpaste", 5),
        **{f"region_{kind}": lambda kind=kind: region(kind) for kind in ("noise", "line", "blob")},
        "train-crack-00003": lambda: surface(0)[1],
        "train-good-00399": lambda: surface(407)[1],
        "train-spot-00029": lambda: surface(431)[1],
    }


def region(kind):
    found, _ = procedural_region(np.random.default_rng(1), (48, 32), [kind], (0.05, 0.1))
    return found.astype(np.uint8) * 255


def rounds_otherwise():
    """Whether NumPy computes powers by AVX-512 here: its last digit is another, and now and then a pixel with it."""
    used = np.lib.introspect.opt_func_info(func_name="^power$", signature="float32")
    return "baseline" not in used["power"]["fff"]["current"]


@pytest.mark.parametrize("name", IMAGES)
def test_images(name):
    image, frozen = made()[name](), np.asarray(Image.open(HERE / f"{name}.png"))
    assert digest(frozen) == IMAGES[name], "the file beside this test was changed"
    if not rounds_otherwise():
        assert digest(image) == IMAGES[name]
    apart = np.abs(image.astype(int) - frozen)
    assert image.shape == frozen.shape and (apart > 1).mean() == 0 and (apart > 0).mean() < 0.01


def test_masks_and_names_of_surfaces():
    found = {name: digest(mask) for name, _, mask in map(surface, (0, 407, 431))}
    assert found == {
        "train-crack-00003": "eefc4ef94a8b88787455d7f58aa2a95e098d4bd65622b218129efbcfb6207674",
        "train-good-00399": "5309e677c79cffae49a65728c61b436d3cdc2a2bab4c81bf0038415f74a56880",
        "train-spot-00029": "7751b198a538a900392ee1403a1e921a802d8ed241ed3bd72a6f1bd7668a6582",
    }


# -- splits, hold-outs, shots

SPLITS = {
    "magnetic_tile-f0": "17 83 2 26 1 1 3 3 83 9d3e14b1f2b1afa4",
    "magnetic_tile-f1": "17 83 2 26 1 1 3 3 83 31418064777c37fa",
    "magnetic_tile-f2": "17 84 2 25 1 1 3 3 84 e28854fca23c6cd7",
    "magnetic_tile-f3": "17 84 2 25 1 1 3 3 84 6b6d735d9227f253",
    "magnetic_tile-f4": "18 82 2 26 1 1 3 3 82 bd78197c5c497870",
    "ksdd-f0": "15 5 3 12 1 1 3 3 5 c4713709a1df0396",
    "ksdd-f1": "15 5 3 12 1 1 3 3 5 0185fa3616cce452",
    "ksdd-f2": "15 5 3 12 1 1 3 3 5 020f91c60e55db3e",
    "mvtec-f0": "22 11 2 9 1 1 3 3 11 927bb6f870bde81c",
    "mvtec-f1": "22 11 2 9 1 1 3 3 11 5c4bf340b9a387e1",
    "surfaces": "19 8 5 20 1 1 5 5 8 0ba43880082b5ea9",
    "neu-share0": "0 36 0 12 6 6 12 12 36 7c95784975e4823c",
    "neu-share1": "0 36 0 12 6 6 12 12 36 dbb5b34ba6e09506",
}
FOLDS = {"magnetic_tile": 5, "ksdd": 3, "mvtec": 2}


def splits(folder):
    """Dataset and fold -> how many ids each part and draw has, and a digest of all of them."""
    found = {}
    for name, folds in FOLDS.items():
        dataset = small_dataset(name, folder / name)
        for fold in range(folds):
            spec = DataSpec(name, name, {}, "x", fold, 0.1)
            found |= parts(f"{name}-f{fold}", dataset, spec, (1, 3))
    spec = DataSpec("surfaces", "surfaces", {}, "x", None, 0.2)
    found |= parts("surfaces", small_dataset("surfaces", folder), spec, (1, 5))
    neu = small_dataset("neu", folder / "neu")
    for draw in range(2):
        spec = DataSpec("neu", "neu", {}, "x", draw, 0.0, test_share=0.3)
        found |= parts(f"neu-share{draw}", neu, spec, (1, 2), per_class=True)
    return found


def parts(name, dataset, spec, shots, per_class=False):
    split = make_split(dataset, spec)
    tables = {part: getattr(split, part) for part in ("negatives", "positives", "heldout", "test")}
    for number in shots:
        for draw in (0, 1):
            tables[f"shots{number}d{draw}"] = choose_shots(split, spec, number, draw, per_class)
    tables["all"] = choose_shots(split, spec, "all", None, per_class)
    ids = {part: list(table["id"]) for part, table in tables.items()}
    sizes = " ".join(str(len(one)) for one in ids.values())
    return {name: f"{sizes} {digest(ids)[:16]}"}


def test_splits(tmp_path):
    assert splits(tmp_path) == SPLITS


# -- seeds

SEEDS = {
    "adapt": 628571250595370945,
    "cell": 4978072217890099356,
    "class-picture": 7747476428065936305,
    "compare-items": 4993132700793487955,
    "compare-runs": 79558282781072807,
    "compare-signs": 9177681020832219988,
    "ddpm": 5617193866894572294,
    "ddpm-instances": 3798281833344169,
    "dreambooth-order": 9133640374745856172,
    "dreambooth-step": 5434233223963864290,
    "dreambooth-weights": 3547462062700021297,
    "exchange": 6008293656598896062,
    "fidelity": 7298968525826004730,
    "flips": 3654815233667475860,
    "folds": 3626589200416846407,
    "generate": 3999839760118583882,
    "holdout": 6587884280504773310,
    "models-sample": 5800819439071548106,
    "int8": 7404576688174551689,
    "order": 9094674450175881943,
    "probe": 5596980522124454717,
    "search": 8994393117344373248,
    "shots": 51476845238954041,
    "shuffled-labels": 4498766847635950152,
    "stablesdg": 4691651084996440563,
    "stablesdg-class": 5035908979784847552,
    "stablesdg-sources": 3192042753705582907,
    "stage": 1434703102465640366,
    "stage-order": 3462773167898402500,
    "stage-weights": 2247802571541330177,
    "surfaces-exposure": 1016263175931609783,
    "surfaces-piece": 5249620301373663757,
    "test_share": 1471925446050676485,
    "weights": 6641948444604718176,
    "try-normal": 2060731729388960573,
    "catch": 5936281188865914704,
    "random_subset": 6245726990087758411,
    "studio": 4339921489623121675,
    "studio-kid": 9140562119148093924,
    "studio-region": 7986563218837068851,
}


def test_seeds():
    assert seeds_in_use() == SEEDS.keys(), "a new use is added here with its seed; an old one is never renamed"
    assert {use: derive_seed(use, "a", 1) for use in SEEDS} == SEEDS


# -- keys

KEYS = {
    "adapter plain None None": "ksdd2-memseg-cc6059d7",
    "search plain None None": "ksdd2-memseg-010ab12e",
    "pool plain None None": "ksdd2-memseg-s3-3d667516",
    "fidelity plain None None": "ksdd2-memseg-s3-micro_resnet-f40-01c0714c",
    "adapter plain 0 None": "ksdd2-memseg-zero-4feb269e",
    "search plain 0 None": "ksdd2-memseg-zero-875ba671",
    "pool plain 0 None": "ksdd2-memseg-zero-s3-1a4ace9c",
    "fidelity plain 0 None": "ksdd2-memseg-zero-s3-micro_resnet-f40-bfe3b8ba",
    "cell plain 0 None": "ksdd2-mine-zero-n80-s2-b9dd7f52",
    "block plain 0 None": "cells-859bccc26d9dc879",
    "adapter plain 5 1": "ksdd2-memseg-few5d1-5221be9f",
    "search plain 5 1": "ksdd2-memseg-few5d1-9b510467",
    "pool plain 5 1": "ksdd2-memseg-few5d1-s3-a4a3b769",
    "fidelity plain 5 1": "ksdd2-memseg-few5d1-s3-micro_resnet-f40-ea5b5133",
    "cell plain 5 1": "ksdd2-mine-few5d1-n80-s2-31a6bb27",
    "block plain 5 1": "cells-5ca35bb0759f6683",
    "adapter plain all None": "ksdd2-memseg-full-81029202",
    "search plain all None": "ksdd2-memseg-full-1e7b6711",
    "pool plain all None": "ksdd2-memseg-full-n80-s3-584cb058",
    "fidelity plain all None": "ksdd2-memseg-full-n80-s3-micro_resnet-f40-4f632843",
    "cell plain all None": "ksdd2-mine-full-n80-s2-68f71eaf",
    "block plain all None": "cells-643d2cb7e8c29003",
    "adapter folds None None": "tiles-f2-memseg-1e5acfa5",
    "search folds None None": "tiles-f2-memseg-e1d9676d",
    "pool folds None None": "tiles-f2-memseg-s3-5b5bcb55",
    "fidelity folds None None": "tiles-f2-memseg-s3-micro_resnet-f40-d764ede5",
    "adapter folds 0 None": "tiles-f2-memseg-zero-49bd1445",
    "search folds 0 None": "tiles-f2-memseg-zero-0495d730",
    "pool folds 0 None": "tiles-f2-memseg-zero-s3-3e4fce73",
    "fidelity folds 0 None": "tiles-f2-memseg-zero-s3-micro_resnet-f40-d38979e9",
    "cell folds 0 None": "tiles-f2-mine-zero-n80-s2-89956ef0",
    "block folds 0 None": "cells-1d72364f895d4cb7",
    "adapter folds 5 1": "tiles-f2-memseg-few5d1-ae7bcde5",
    "search folds 5 1": "tiles-f2-memseg-few5d1-abc34842",
    "pool folds 5 1": "tiles-f2-memseg-few5d1-s3-fea51290",
    "fidelity folds 5 1": "tiles-f2-memseg-few5d1-s3-micro_resnet-f40-ef34e427",
    "cell folds 5 1": "tiles-f2-mine-few5d1-n80-s2-e8240380",
    "block folds 5 1": "cells-d48ed31757a648dd",
    "adapter folds all None": "tiles-f2-memseg-full-fa2a4fdf",
    "search folds all None": "tiles-f2-memseg-full-27b76812",
    "pool folds all None": "tiles-f2-memseg-full-n80-s3-a65c5341",
    "fidelity folds all None": "tiles-f2-memseg-full-n80-s3-micro_resnet-f40-3612a4b4",
    "cell folds all None": "tiles-f2-mine-full-n80-s2-e1a6220f",
    "block folds all None": "cells-ebd44e6f86ee2a1b",
    "adapter share None None": "neu-f1-memseg-150cf6e8",
    "search share None None": "neu-f1-memseg-db0277c1",
    "pool share None None": "neu-f1-memseg-s3-6f21942e",
    "fidelity share None None": "neu-f1-memseg-s3-micro_resnet-f40-8dd2eba4",
    "adapter share 0 None": "neu-f1-memseg-zero-9382dd55",
    "search share 0 None": "neu-f1-memseg-zero-dcce0214",
    "pool share 0 None": "neu-f1-memseg-zero-s3-13dba2b6",
    "fidelity share 0 None": "neu-f1-memseg-zero-s3-micro_resnet-f40-18c650df",
    "cell share 0 None": "neu-f1-mine-zero-n80-s2-b4c66c73",
    "block share 0 None": "cells-6e0c4bcbb1f7d3bf",
    "adapter share 5 1": "neu-f1-memseg-few5d1-c70a8809",
    "search share 5 1": "neu-f1-memseg-few5d1-4adf01de",
    "pool share 5 1": "neu-f1-memseg-few5d1-s3-77e7c963",
    "fidelity share 5 1": "neu-f1-memseg-few5d1-s3-micro_resnet-f40-7530f4be",
    "cell share 5 1": "neu-f1-mine-few5d1-n80-s2-af35d955",
    "block share 5 1": "cells-b2d53e85f7e09242",
    "adapter share all None": "neu-f1-memseg-full-2159570f",
    "search share all None": "neu-f1-memseg-full-98e0b185",
    "pool share all None": "neu-f1-memseg-full-n80-s3-e58c6fcf",
    "fidelity share all None": "neu-f1-memseg-full-n80-s3-micro_resnet-f40-bfa8f688",
    "cell share all None": "neu-f1-mine-full-n80-s2-e9b6a23c",
    "block share all None": "cells-126afe81df4251fc",
}
PROTOCOLS = {
    "demo": "4a2ece4a57bb897f",
    "demo+lr=0.5": "ac3c3ad212b57106",
    "demo+batch=7+epochs=3": "3743f7c17748a4b8",
    "demo+ap=trapezoidal+backbone=resnet18+holdout=0.25": "8d3da11a8b6afaa3",
    "diag": "33298cbacb2028e7",
    "diag+lr=0.5": "de42b1a9301fdd36",
    "diag+batch=7+epochs=3": "f261d13fa253c233",
    "diag+ap=trapezoidal+backbone=resnet18+holdout=0.25": "3a4c22c95f701d8c",
    "diag_as_published": "11710bae7b887263",
    "diag_as_published+lr=0.5": "b583938ce0882ad8",
    "diag_as_published+batch=7+epochs=3": "d9a9ceae27ecbd93",
    "diag_as_published+ap=trapezoidal+backbone=resnet18+holdout=0.25": "950c5577ac6f9ea4",
    "edge": "3f142f28182d7dc0",
    "finetune_lite0": "639d10adda1b8b9b",
    "inout": "5a36263b93793e80",
    "inout+lr=0.5": "c538aea3d18ace54",
    "inout+batch=7+epochs=3": "217066c477e9aa35",
    "inout+ap=trapezoidal+backbone=resnet18+holdout=0.25": "df76fd3550f687b0",
    "inout_v2": "ae6b27aaaa61046f",
    "inout_v2+ap=trapezoidal+backbone=resnet18+holdout=0.25": "5e331ad0fc3bd249",
    "nearest_normal": "c8dedba577adf9d0",
    "normals_only": "527c1de0e4ac998e",
    "probe": "ef6786ef221d4e24",
    "probe_as_papers": "5fb1884049cc8cdd",
    "probe_dinov2": "10877d51f2d77056",
    "probe_normality": "2a68f0ccdb3acf79",
    "probe_resnet50": "567c0270d4f1e385",
    "recognition": "a1c126bc083af80f",
    "recognition+lr=0.5": "c20f6d185a77f920",
    "recognition+batch=7+epochs=3": "b5c8df03bae62805",
    "recognition+ap=trapezoidal+backbone=resnet18+holdout=0.25": "dc0ddf828982a34c",
    "small": "8a39d59583d056ee",
    "small+lr=0.5": "a881eaa45bf24ea8",
    "small+batch=7+epochs=3": "831ed466a0bdfe8c",
    "small+ap=trapezoidal+backbone=resnet18+holdout=0.25": "67e01e1b5b846921",
    "small_pretrained": "93900fbbe7ebd8bf",
    "small_pretrained+lr=0.5": "44fff635e430fd0a",
    "small_pretrained+batch=7+epochs=3": "f7d62380435b3308",
    "small_pretrained+ap=trapezoidal+backbone=resnet18+holdout=0.25": "e7b2726e31f8dd88",
    "standard": "7201461368ff063f",
    "standard+lr=0.5": "d460c53515c074ad",
    "standard+batch=7+epochs=3": "9fa2bbf9107791b2",
    "standard+ap=trapezoidal+backbone=resnet18+holdout=0.25": "2e75f91cd984bbc4",
    "standard_v2": "6ff8f45c11b29e40",
    "standard_v2+ap=trapezoidal+backbone=resnet18+holdout=0.25": "bcf8ee5ec44bc6fd",
}
CHANGES = ({"lr": 0.5}, {"epochs": 3, "batch": 7}, {"backbone": "resnet18", "holdout": 0.25, "ap": "trapezoidal"})


def protocols():
    """Preset, or what `changed` makes of it -> name and digest of what enters keys."""
    found = {}
    for name in preset_names():
        preset = load_preset(name)
        changes = CHANGES if preset.kind == "finetune" and preset.weights != "package" else ()
        for protocol in (preset, *(preset.changed(**change) for change in changes)):
            found[protocol.name] = protocol.digest[:16]
    return found


def keys():
    """A spec in words -> its key."""
    data = {
        "plain": DataSpec("ksdd2", "ksdd2", {}, "0" * 64, None, 0.0),
        "folds": DataSpec("magnetic_tile", "tiles", {}, "1" * 64, 2, 0.1),
        "share": DataSpec("neu", "neu", {"root": None}, "2" * 64, 1, 0.0, ("a", "b"), 0.3),
    }
    made = AugmenterSpec("memseg", "mine", {"texture_share": 0.0}, {"texture_share": 0.0})
    found = {}
    for name, spec in data.items():
        for shots, draw in ((None, None), (0, None), (5, 1), ("all", None)):
            where = f"{name} {shots} {draw}"
            adapter = AdapterSpec(spec, made, shots, draw, regions=draw == 1)
            pool = PoolSpec(spec, made, shots, draw, 3, 20, 80 if shots == "all" else None, regions=draw == 1)
            found |= {f"adapter {where}": adapter.key, f"search {where}": SearchSpec(adapter).key}
            found |= {f"pool {where}": pool.key, f"fidelity {where}": FidelitySpec(pool, "micro_resnet", 40).key}
            if shots is not None:
                cell = Cell(spec, made, shots, draw, 80, 2, load_preset("small"), fresh_pools=shots == "all")
                found |= {f"cell {where}": cell.key, f"block {where}": cell.block}
    return found


def test_protocols():
    found = protocols()
    assert {name: found[name] for name in PROTOCOLS} == PROTOCOLS


def test_keys():
    assert keys() == KEYS


# -- names and defaults: settings enter keys where they differ from them

DATASETS = {
    "folder": ("csv folds good mask_threshold root task", "be1ddeb04e7d0536"),
    "ksdd": ("root", "e3c4e5269d5dafc0"),
    "ksdd2": ("root", "e3c4e5269d5dafc0"),
    "magnetic_tile": ("root", "e3c4e5269d5dafc0"),
    "mvtec": ("category root split", "66371e19833375d1"),
    "neu": ("root", "e3c4e5269d5dafc0"),
    "surfaces": ("root seed test_defective test_good train_defective train_good", "0e65fcf4ef7a9c24"),
}
AUGMENTERS = {
    "cutpaste": ("variant", "25428d2fcf3d1c22"),
    "draem": ("foreground opacity texture_folder", "85e2cc6219aeb046"),
    "nsa": ("blend half_width patches resize", "2f2d06ef9648872a"),
    "ddpm": (
        "as_published aspect batch bundle class_pictures class_prompt clip_skip conv_alpha conv_rank cycles few full "
        "gradient_checkpointing guidance instance_prompt lr min_snr precision prior_weight rank rank_alpha repeats "
        "steps zero",
        "08b9c07a2f5a6dc6",
    ),
    "diag": (
        "area as_published batch bundle guidance kinds mask_folder masks padding precision prompts steps strength",
        "52e03c2e5f82f271",
    ),
    "inout": ("ddpm ddpm_share memseg", "e96c72a846ad15b8"),
    "memseg": ("foreground grid opacity source texture_folder texture_share", "158f9fd4b5b8678a"),
    "none": ("", "44136fa355b3678a"),
    "stablesdg": (
        "alpha aspect batch bundle clip_skip gradient_checkpointing guidance init_word lora_lr lora_steps min_snr "
        "precision prompt quality_search rank rank_alpha stages start steps strength token token_lr token_steps "
        "train_token_in_stage_two",
        "9fc3046a722f42f7",
    ),
}


def test_plugins_keep_their_names():
    assert plugin_names("datasets") >= DATASETS.keys()
    assert plugin_names("augmenters") >= AUGMENTERS.keys() | {"mixture"}


@pytest.mark.parametrize(
    ("kind", "name"), [("datasets", n) for n in DATASETS] + [("augmenters", n) for n in AUGMENTERS]
)
def test_defaults(kind, name):
    settings, frozen = {"datasets": DATASETS, "augmenters": AUGMENTERS}[kind][name]
    found = defaults(kind, name)
    assert digest({setting: found[setting] for setting in settings.split()})[:16] == frozen

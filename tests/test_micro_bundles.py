"""The scripts that make the two diffusion bundles: on a handful of pictures, for a handful of steps."""

import json

import bundle
import evaluate_bundles
import numpy as np
import pytest
import reading
import sheets
import tokenizer as micro_tokenizer
import torch
import train_unet
import vae as micro_vae
from bundle import SD, SDXL
from corpus.pictures import DEFECT_WORDS, captions, make, plan
from diffusers import StableDiffusionPipeline, StableDiffusionXLInpaintPipeline
from safetensors.torch import load_file
from stock import CAPTIONS, VAGUE, Stock, region
from transformers import CLIPTokenizer

TINY = ["--pictures", "24", "--batch", "4", "--threads", "1", "--workers", "1", "--checkpoint-every", "0"]

READING = {"items": 40, "steps": 2, "batch": 8, "lr": 2e-3}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The scripts' number of threads is theirs alone; a sheet of the real size takes longer than the training."""
    monkeypatch.setattr(train_unet, "TOKENIZER_ITEMS", 200)
    monkeypatch.setattr(train_unet, "READING", READING)
    monkeypatch.setattr(train_unet, "bundle_sheet", lambda folder: sheets.tiled(np.zeros((2, 8, 8, 3), np.uint8), 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    micro_vae.save(micro_vae.build((8, 16)), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = [text for index in range(300) for text in captions(plan(0, index), 2)]
    return micro_tokenizer.write(tmp_path_factory.mktemp("tokenizer"), texts)


@pytest.fixture(scope="module")
def trained_sd(tmp_path_factory, vae_folder):
    """A folder with a `micro-sd` of three steps, made without an interruption."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_unet, "TOKENIZER_ITEMS", 200)
        patch.setattr(train_unet, "READING", READING)
        patch.setattr(train_unet, "bundle_sheet", lambda _: sheets.tiled(np.zeros((2, 8, 8, 3), np.uint8), 2))
        train(folder, SD, "--vae", str(vae_folder))
    return folder


def train(folder, name, *more):
    places = ["--out", str(folder), "--checkpoint", str(folder / f"{name}.safetensors")]
    train_unet.main([name, *TINY, "--steps", "3", *places, *more])


def weights(folder, part="unet"):
    return (folder / part / "diffusion_pytorch_model.safetensors").read_bytes()


# Tokenizer


@pytest.mark.parametrize("word", ["white", "scratches", "cracked", "background", "metal", "steel", "defect", "shadow"])
def test_words_about_surfaces_are_one_token(tokenizer, word):
    assert len(tokenizer(word).input_ids) == 3  # with start and end


def test_any_text_is_read_and_comes_back(tokenizer):
    for text in ("skt background cracked", "zqx 123 é!", "漢字", ""):
        ids = tokenizer(text).input_ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_the_older_files_say_the_same(tokenizer, tmp_path):
    micro_tokenizer.write_vocabulary(tokenizer, tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("White marks on the wall, zqx 123", "copper metal scratches"):
        assert again(text).input_ids == tokenizer(text).input_ids


# What is trained on


def test_the_region_holds_the_defect_and_follows_from_the_item():
    corpus = make(60, seed=0, workers=1)
    for item, mask in zip(corpus.items, corpus.masks, strict=True):
        painted = region(item, mask)
        assert painted.shape == mask.shape and painted.any()
        assert not (mask & ~painted).any()
        assert np.array_equal(painted, region(item, mask))
    shares = [region(item, mask).mean() for item, mask in zip(corpus.items, corpus.masks, strict=True)]
    assert 0.05 < np.median(shares) < 0.6


def test_the_stock_is_what_diffusers_would_feed(vae_folder, tokenizer, tmp_path):
    keep = tmp_path / "stock.safetensors"
    stock = Stock.make(vae_folder, tokenizer, 6, 0, "cpu", 1, keep)
    corpus = make(6, seed=0, workers=1)
    vae = micro_vae.load(vae_folder)
    pictures = torch.from_numpy(corpus.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = torch.from_numpy(sheets.regions(corpus))[:, None].float()
    with torch.inference_mode():
        masked = vae.encode(pictures * (masks < 0.5)).latent_dist.mode()
    assert torch.allclose(stock.masked.float(), masked, atol=2e-2)
    assert torch.equal(stock.masks.float(), torch.nn.functional.interpolate(masks, size=(32, 32)))
    assert stock.tokens.shape == (6, CAPTIONS + VAGUE, 77)
    told = tokenizer.decode(stock.tokens[2, 1].tolist(), skip_special_tokens=True)
    assert told.replace(" ", "") == captions(corpus.items[2], 2)[1].replace(" ", "")
    written = keep.stat().st_mtime_ns
    again = Stock.make(vae_folder, tokenizer, 6, 0, "cpu", 1, keep)
    assert torch.equal(again.latents, stock.latents) and keep.stat().st_mtime_ns == written
    assert len(Stock.make(vae_folder, tokenizer, 5, 0, "cpu", 1, keep)) == 5  # of other pictures: made anew


# Networks


def test_four_channels_are_the_nine_with_nothing_to_paint(tokenizer):
    nine = bundle.unet(SD)
    four = bundle.four_channels(nine, SD)
    latents, times, told = torch.randn(2, 4, 32, 32), torch.tensor([3, 700]), torch.randn(2, 77, bundle.TEXT_WIDTH)
    with torch.no_grad():
        whole = nine(torch.cat([latents, torch.zeros(2, 5, 32, 32)], 1), times, told).sample
        assert torch.allclose(four(latents, times, told).sample, whole, atol=1e-5)


def test_the_larger_u_net_begins_where_the_other_ended():
    nine = bundle.unet(SD)
    wide = bundle.widened(nine)
    for parameter in nine.add_embedding.norm2.parameters():
        torch.nn.init.zeros_(parameter)  # SDXL embeds the pooled text in its own way, which begins at zero
    seen, times, told = torch.randn(2, 9, 32, 32), torch.tensor([3, 700]), torch.randn(2, 77, bundle.TEXT_WIDTH)
    beside = torch.cat([told, torch.randn(2, 77, bundle.SECOND_WIDTH)], 2)
    added = {"text_embeds": torch.randn(2, bundle.SECOND_WIDTH), "time_ids": torch.rand(2, bundle.TIME_IDS)}
    with torch.no_grad():
        made = wide(seen, times, beside, added_cond_kwargs=added).sample
        assert torch.allclose(made, nine(seen, times, told).sample, atol=1e-5)


def test_a_saved_bundle_can_be_trained_on(trained_sd, tmp_path):
    before = StableDiffusionPipeline.from_pretrained(trained_sd / SD).unet
    nine = bundle.nine_channels(before, SD)
    latents, times, told = torch.randn(2, 4, 32, 32), torch.tensor([3, 700]), torch.randn(2, 77, bundle.TEXT_WIDTH)
    with torch.no_grad():
        grown = nine(torch.cat([latents, torch.randn(2, 5, 32, 32)], 1), times, told).sample
        assert torch.allclose(grown, before(latents, times, told).sample, atol=1e-5)
    train(tmp_path, SD, "--init", str(trained_sd / SD), "--seed", "1")
    about = json.loads((tmp_path / SD / "training.json").read_text())
    assert about["before"]["steps"] == 3 and about["init"] == micro_vae.digest(trained_sd / SD / "unet")
    after = StableDiffusionPipeline.from_pretrained(tmp_path / SD)
    drift = (after.unet.conv_out.weight - before.conv_out.weight).abs().max()
    assert 0 < drift < 0.01
    for file in (trained_sd / SD / "tokenizer").iterdir():
        assert file.read_bytes() == (tmp_path / SD / "tokenizer" / file.name).read_bytes()


# Trainings


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, trained_sd, vae_folder, capsys):
    options = (SD, "--vae", str(vae_folder))
    train(tmp_path, *options, "--session", "0")
    assert not (tmp_path / SD).exists() and "stopped after step 1" in capsys.readouterr().out
    train(tmp_path, *options, "--resume")
    for part in ("micro-sd/unet", "nine"):
        assert weights(tmp_path, part) == weights(trained_sd, part)
    text = "micro-sd/text_encoder/model.safetensors"
    assert (tmp_path / text).read_bytes() == (trained_sd / text).read_bytes()
    about = json.loads((tmp_path / SD / "training.json").read_text())
    assert about["steps"] == 3 and about["vae"] == micro_vae.digest(vae_folder)


def test_the_second_bundle_shares_what_is_equal_and_both_load(trained_sd, monkeypatch):
    monkeypatch.setattr(sheets, "STEPS", 2)
    monkeypatch.setattr(sheets, "SHEET_MATERIALS", ("wood",))
    train(trained_sd, SDXL, "--start", str(trained_sd))
    for part in ("vae", "text_encoder", "tokenizer"):
        for file in (trained_sd / SD / part).iterdir():
            assert file.read_bytes() == (trained_sd / SDXL / part / file.name).read_bytes(), file
    sd = StableDiffusionPipeline.from_pretrained(trained_sd / SD)
    xl = StableDiffusionXLInpaintPipeline.from_pretrained(trained_sd / SDXL)
    assert (sd.unet.config.in_channels, xl.unet.config.in_channels) == (4, 9)
    assert xl.unet.config.cross_attention_dim == bundle.TEXT_WIDTH + bundle.SECOND_WIDTH
    assert sd.scheduler.config.prediction_type == xl.scheduler.config.prediction_type == "v_prediction"
    moved = xl.unet.state_dict()["add_embedding.linear_2.weight"]
    assert moved.abs().max() > 0  # it began at zero: the size conditioning is trained
    for name in (SD, SDXL):
        assert sheets.bundle_sheet(trained_sd / name).size[0] > 500


def test_either_bundle_goes_on_from_what_was_saved(trained_sd, vae_folder, tmp_path):
    """The inpainting one, too: its U-Net is trained, its second encoder stays as it learned to read."""
    train(tmp_path, SDXL, "--start", str(trained_sd))
    first = tmp_path / SDXL
    train(tmp_path / "more", SDXL, "--start", str(trained_sd), "--init", str(first), "--inpainting", "1")
    again = tmp_path / "more" / SDXL
    text, unet = "text_encoder_2/model.safetensors", "unet/diffusion_pytorch_model.safetensors"
    assert (again / text).read_bytes() == (first / text).read_bytes()
    assert (again / unet).read_bytes() != (first / unet).read_bytes()
    about = json.loads((again / "training.json").read_text())
    assert about["inpainting"] == 1 and about["before"]["reading"] == READING and "reading" not in about
    args = train_unet.arguments([SDXL, "--start", str(trained_sd), "--init", str(first), "--out", str(tmp_path / "no")])
    trainer = train_unet.Trainer(args, CLIPTokenizer.from_pretrained(first / "tokenizer"))
    saved = load_file(first / unet)
    assert all(torch.equal(tensor.half(), saved[name]) for name, tensor in trainer.unet.state_dict().items())


def test_what_is_missing_is_said(tmp_path, capsys):
    for options in ([SDXL], [SD]):
        with pytest.raises(SystemExit):
            train_unet.arguments([*options, "--out", str(tmp_path)])
    assert "--start" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train_unet.arguments([SD, "--vae", "x", "--inpainting", "2", "--out", str(tmp_path)])
    assert "from 0 to 1" in capsys.readouterr().err


# Evaluation


def test_a_prompt_names_its_material():
    from corpus.pictures import Item

    for index in range(50):
        assert "granite" in evaluate_bundles.named(Item(0, index, "granite", "", "crack"))


def test_inpainting_is_judged_inside_against_outside(monkeypatch):
    """With a painter that changes 20 levels inside and 2 outside."""

    def paint(_, corpus, prompts, masks, seed):
        return np.clip(corpus.images.astype(int) // 2 + np.where(masks, 20, 2)[..., None], 0, 255).astype(np.uint8)

    halved = evaluate_bundles.without_defects
    monkeypatch.setattr(sheets, "load", lambda *_: None)
    monkeypatch.setattr(sheets, "inpainted", paint)
    monkeypatch.setattr(evaluate_bundles, "judged", lambda *_: {"defect": 1.0, "material": 1.0, "by_defect": {}})

    def dark(corpus):
        good = halved(corpus)
        good.images[:] = 0
        return good

    monkeypatch.setattr(evaluate_bundles, "without_defects", dark)
    found = evaluate_bundles.inpainting(None, None, 8, "cpu", 1)
    for part in found.values():
        assert part["inside / outside"] == pytest.approx(10)
        assert part["pictures"] <= 8


def test_text_to_image_reports_the_worst_word(monkeypatch):
    shown = []

    def paint(_, prompts, seed):
        shown.extend(prompts)
        return np.zeros((len(prompts), 64, 64, 3), np.uint8)

    words = {word or "good": 0.9 for word in DEFECT_WORDS} | {"crack": 0.2, "good": 0.0}
    monkeypatch.setattr(sheets, "load", lambda *_: None)
    monkeypatch.setattr(sheets, "painted", paint)
    monkeypatch.setattr(evaluate_bundles, "judged", lambda *_: {"by_defect": words, "material": 1.0, "defect": 0.8})
    found = evaluate_bundles.text_to_image(None, None, 3, "cpu")
    assert len(shown) == 3 * len(DEFECT_WORDS)
    assert (found["worst word"], found["worst"]) == ("crack", 0.2)
    assert found["defect, mean"] == pytest.approx((0.9 * 8 + 0.2) / 9)  # without "good"


# Reading


def test_a_text_encoder_learns_to_read_in_a_few_steps(tokenizer):
    torch.manual_seed(0)
    encoder = bundle.text_encoder(tokenizer)
    settings = {"items": 200, "steps": 50, "batch": 32, "lr": 5e-3}
    found = reading.teach(reading.last_layers(encoder), encoder, tokenizer, 0, settings)["right"]
    assert found["defect"] > 0.5 and found["material"] > 0.5  # by chance a tenth and less


def test_captions_are_asked_for_what_they_name():
    items = [item for item in (plan(3, index) for index in range(60)) if item.defect]
    texts, answers = reading.questions(items)
    assert len(texts) == len(answers) == len(items) * (reading.CAPTIONS + reading.VAGUE)
    for text, (material, colour, defect) in zip(texts, answers.tolist(), strict=True):
        if material != reading.UNSAID:
            names = reading.MATERIALS[reading.MATERIAL_WORDS[material]].names
            assert any(name in text for name in (reading.MATERIAL_WORDS[material], *names))
        assert reading.COLOUR_WORDS[colour] in text
        if defect == reading.UNSAID:
            assert "defect" in text or "damage" in text
    assert (answers == reading.UNSAID).any(0).tolist() == [True, False, True]


def test_the_text_encoder_stays_as_it_learned_to_read(trained_sd, tokenizer, tmp_path, vae_folder):
    """Two steps more of the U-Net leave it as it is; a new one is another."""
    more = ["--init", str(trained_sd / SD)]
    train(tmp_path, SD, *more)
    text = "text_encoder/model.safetensors"
    assert (tmp_path / SD / text).read_bytes() == (trained_sd / SD / text).read_bytes()
    assert "reading" not in json.loads((tmp_path / SD / "training.json").read_text())
    train(tmp_path / "new", SD, *more, "--new-text", "--seed", "1")
    assert (tmp_path / "new" / SD / text).read_bytes() != (trained_sd / SD / text).read_bytes()
    assert json.loads((tmp_path / "new" / SD / "training.json").read_text())["reading"] == READING


def test_times_are_as_often_in_each_band_as_it_says():
    places = train_unet.banded(torch.arange(10_000) / 10_000)
    for share, start, end in train_unet.BANDS:
        inside = (places >= start) & (places < end)
        assert inside.float().mean().item() == pytest.approx(share, abs=1e-3)
        assert places[inside].mean().item() == pytest.approx((start + end) / 2, abs=1e-3)
    assert sum(share for share, _, _ in train_unet.BANDS) == pytest.approx(1)
    assert places.max() < 1


def test_what_is_hard_to_draw_comes_up_more_often():
    rows = torch.arange(2000)
    found = train_unet.words_of(train_unet.focused(rows, 2000, torch.Generator().manual_seed(0)))
    usual = sum(word in train_unet.HARD for word in train_unet.words_of(rows)) / 2000
    share = sum(word in train_unet.HARD for word in found) / 2000
    assert share == pytest.approx(usual + train_unet.HARD_SHARE * (1 - usual), abs=0.03)
    assert torch.equal(train_unet.focused(rows[:1], 1, torch.Generator()), rows[:1])  # no such picture


def test_an_error_counts_more_on_defects_and_where_inpainting_is_given_all():
    defects, given = torch.tensor([[1.0, 0, 0]]).view(1, 1, 1, 3), torch.tensor([[0.0, 0, 1]]).view(1, 1, 1, 3)
    for name, outside in train_unet.OUTSIDE_WEIGHT.items():
        for word in ("scratch", "hole"):
            found = train_unet.weights(name, [word], defects, given).flatten().tolist()
            assert found == [train_unet.defect_weight(name, word), 1, outside]


def test_what_errors_have_in_common_where_all_is_given_is_their_tone():
    given = torch.tensor([[1.0, 1, 0, 0]]).view(1, 1, 1, 4).expand(2, -1, -1, -1).clone()
    given[1] = 0  # a picture that is no inpainting
    error = torch.tensor([[3.0, 1, 9, 9], [5, 5, 5, 5]]).view(2, 1, 1, 4)
    assert train_unet.tone(error, given).item() == pytest.approx(2**2 * 0.5 / 2)
    error[0, ..., 1] = -3.0  # what cancels out is no tone
    assert train_unet.tone(error, given).item() == 0
    assert train_unet.TONE_WEIGHT[SD] == 0


def test_the_stock_knows_where_defects_are(vae_folder, tokenizer):
    stock = Stock.make(vae_folder, tokenizer, 6, 0, "cpu", 1)
    masks = torch.from_numpy(make(6, seed=0, workers=1).masks)
    for small, mask in zip(stock.defects[:, 0], masks, strict=True):
        wanted = mask.view(32, 2, 32, 2).any(3).any(1)
        assert torch.equal(small, wanted)

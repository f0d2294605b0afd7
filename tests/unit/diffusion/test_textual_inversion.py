"""Two-stage adaptation: which weights are trained, the gradient, interruptions, and files that diffusers reads."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from augbench.core.errors import UserError
from augbench.diffusion import dreambooth, lora, textual_inversion
from augbench.diffusion.dreambooth import Examples, encode
from augbench.diffusion.lora import MODELS, AttentionShape
from augbench.diffusion.pipelines import find, load
from augbench.diffusion.sampling import check_prompts
from augbench.diffusion.text_encoding import encode_tokens, tokens
from augbench.diffusion.textual_inversion import LearnedToken, Stage, StageRecipe, run_stages

BUNDLE = find("micro-sd")
TOKEN, PROMPT = "<unknown>", "A photo of <unknown>"
SMALL = AttentionShape(rank=4, alpha=4.0)

pytestmark = pytest.mark.usefixtures("one_thread")


def with_token(like="defect"):
    pipeline = load(BUNDLE)
    return pipeline, LearnedToken(pipeline, TOKEN, like)


@pytest.fixture(scope="module")
def examples():
    """Three images of a dark line on a bright ground."""
    images = [np.full((64, 64, 3), 200, np.uint8) for _ in range(3)]
    for i, image in enumerate(images):
        image[20 + 8 * i : 24 + 8 * i] = 30
    return encode(load(BUNDLE), (64, 64), images)


def stage(examples, seed=0, **changes):
    pipeline, token = with_token()
    recipe = StageRecipe(**{"steps": 3, "learns_word": True, "batch": 2, "lr": 1e-2} | changes)
    return Stage(pipeline, token, recipe, PROMPT, examples, seed)


def weights_of(pipeline):
    parts = {part: getattr(pipeline, part).named_parameters() for part in (*MODELS, "vae")}
    return {f"{part}.{name}": tensor.detach().clone() for part, named in parts.items() for name, tensor in named}


# The token


def test_a_new_token_is_initialised_as_a_word():
    original, (pipeline, token) = load(BUNDLE), with_token()
    ids = pipeline.tokenizer(PROMPT).input_ids
    assert token.id == len(pipeline.tokenizer) - 1 == len(original.tokenizer)
    assert ids.count(token.id) == 1 and len(ids) == len(pipeline.tokenizer("A photo of defect").input_ids)
    before, after = (p.text_encoder.get_input_embeddings().weight for p in (original, pipeline))
    assert len(after) == len(before) + 1 and torch.equal(after[:-1], before)
    both = ((pipeline, PROMPT), (original, "A photo of defect"), (pipeline, "A photo of defect"))
    first, *others = (encode_tokens(p.text_encoder, tokens(p, [text]), 1) for p, text in both)
    assert all(torch.equal(first, other) for other in others)


def test_it_is_initialised_with_the_mean_of_several_tokens():
    pipeline, token = with_token("wood with a crack")
    known = pipeline.tokenizer("wood with a crack", add_special_tokens=False).input_ids
    assert len(known) > 1
    assert torch.allclose(token.vector, pipeline.text_encoder.get_input_embeddings().weight[known].mean(0))


def test_prompt_length_counts_the_new_token_once():
    pipeline, _ = with_token()
    limit = pipeline.text_encoder.config.max_position_embeddings
    check_prompts(pipeline, BUNDLE, [" ".join([TOKEN] * (limit - 2))])
    with pytest.raises(UserError, match="tokens long"):
        check_prompts(pipeline, BUNDLE, [" ".join([TOKEN] * (limit - 1))])


def test_known_tokens_and_empty_words_are_refused():
    pipeline, _ = with_token()
    with pytest.raises(UserError, match="choose another token"):
        LearnedToken(pipeline, TOKEN, "defect")
    with pytest.raises(UserError, match="give a word"):
        LearnedToken(pipeline, "<other>", " ")


def test_a_saved_token_is_loaded_here_and_by_diffusers(tmp_path):
    _, token = with_token()
    with torch.no_grad():
        token.vector += 0.5
    token.save(tmp_path)
    pipeline, again = with_token("wood")
    again.load(tmp_path)
    assert torch.equal(again.vector, token.vector)
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[again.id], token.vector)
    foreign = load(BUNDLE)
    foreign.load_textual_inversion(str(tmp_path / textual_inversion.EMBEDDING), token=TOKEN)
    found = foreign.text_encoder.get_input_embeddings().weight[foreign.tokenizer.convert_tokens_to_ids(TOKEN)]
    assert torch.equal(found, token.vector)


def test_a_damaged_token_is_refused(tmp_path):
    _, token = with_token()
    for content in ({"<other>": torch.zeros(4)}, {TOKEN: torch.zeros(3)}):
        save_file(content, tmp_path / textual_inversion.EMBEDDING)
        with pytest.raises(UserError, match="does not fit the pipeline"):
            token.load(tmp_path)
    (tmp_path / textual_inversion.EMBEDDING).write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        token.load(tmp_path)


# Which weights are trained


def test_stage_one_changes_the_token_alone(examples):
    made = stage(examples)
    before, begin = weights_of(made.pipeline), made.token.vector.detach().clone()
    record = made.run()
    table = next(name for name in before if name.endswith("token_embedding.weight"))
    after = weights_of(made.pipeline)
    assert all(torch.equal(after[name], before[name]) for name in before if name != table)
    assert torch.equal(after[table][: made.token.id], before[table][: made.token.id])
    assert torch.equal(after[table][made.token.id], made.token.vector) and not torch.equal(made.token.vector, begin)
    assert record["trained_parameters"] == len(begin) and record["instances"] == 3 and len(record["loss"]) == 3
    assert not [name for name in after if lora.ADAPTER in name]


def test_the_gradient_is_that_of_the_row_in_the_table(examples):
    made = stage(examples, clip_skip=2)
    made.loss(0).backward()
    made.token.write()  # now the embedding comes from the table
    made.token.table.weight.requires_grad_(True)
    made.loss(0).backward()
    row = made.token.table.weight.grad[made.token.id]
    assert row.abs().max() > 0 and torch.allclose(made.token.vector.grad, row, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("learns_word", [False, True])
def test_stage_two_trains_attention_and_optionally_the_token(examples, learns_word):
    made = stage(examples, shape=SMALL, learns_word=learns_word)
    before, begin = weights_of(made.pipeline), made.token.vector.detach().clone()
    made.run()
    after = weights_of(made.pipeline)
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    matrices = {name for name in before if f".{lora.ADAPTER}." in name}
    assert all(".attn" in name or "self_attn" in name for name in matrices)
    tables = {name for name in changed if name.endswith("token_embedding.weight")}
    assert changed - tables == matrices
    assert torch.equal(made.token.vector, begin) != learns_word and bool(tables) == learns_word
    wanted = sum(before[name].numel() for name in matrices) + (len(begin) if learns_word else 0)
    assert sum(parameter.numel() for parameter in made.parameters) == wanted


def test_both_stages_reduce_the_loss(examples, tmp_path):
    pipeline, token = with_token()
    evaluated = Stage(pipeline, token, StageRecipe(4, True, batch=4), PROMPT, examples, 1)

    def loss():
        with torch.no_grad():
            return np.mean([evaluated.loss(step).item() for step in range(4)])

    before, progress = loss(), []
    recipes = [StageRecipe(8, True, batch=4, lr=1e-2), StageRecipe(8, False, SMALL, batch=4, lr=5e-3)]
    learned = run_stages(pipeline, token, recipes, PROMPT, examples, 0, tmp_path, lambda *args: progress.append(args))
    assert loss() < before
    assert [record["recipe"]["learns_word"] for record in learned] == [True, False]
    assert [step for step, *_ in progress] == list(range(1, 17)) and {total for _, total, _ in progress} == {16}


def test_batches_are_full_and_cycle_through_all_images():
    blank = Examples(torch.zeros(5, 4, 2, 2), torch.zeros(5, 4, 2, 2))
    made = stage(blank, batch=4, steps=5)
    rows = [made.rows(step) for step in range(5)]
    assert all(set(kinds) == {0} and len(which) == 4 for kinds, which in rows)
    order = np.concatenate([which for _, which in rows])
    assert all(sorted(order[5 * turn : 5 * turn + 5]) == [0, 1, 2, 3, 4] for turn in range(4))
    assert len({tuple(order[5 * turn : 5 * turn + 5]) for turn in range(4)}) > 1
    assert [made.rate(step) for step in (0, 4)] == [made.recipe.lr] * 2


def test_memory_and_precision_options_hardly_change_the_loss(examples):
    options = ({}, {"gradient_checkpointing": True}, {"precision": "bf16"}, {"min_snr": 5.0})
    plain, saving, half, weighted = (stage(examples, **changes).step(0) for changes in options)
    assert saving == pytest.approx(plain, rel=1e-5) and half == pytest.approx(plain, rel=0.1)
    assert 0 < weighted != plain


# Interruptions


@pytest.mark.parametrize("where", [2, 5])  # of 3 steps each: in the first stage, in the second
def test_an_interrupted_training_has_the_same_result(examples, tmp_path, monkeypatch, where):
    def stages(scratch, report_progress):
        pipeline, token = with_token()
        same = {"steps": 3, "batch": 2, "lr": 1e-2}
        recipes = [StageRecipe(learns_word=True, **same), StageRecipe(learns_word=True, shape=SMALL, **same)]
        learned = run_stages(pipeline, token, recipes, PROMPT, examples, 0, scratch, report_progress)
        out = tmp_path / f"out-{scratch.name}"
        token.save(out)
        lora.save(pipeline, out)
        return learned, {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def cut(step, total, loss):
        if step == where:
            raise RuntimeError("cut")

    whole = stages(tmp_path / "whole", lambda *_: None)
    monkeypatch.setattr(dreambooth, "FLUSH", -1.0)
    with pytest.raises(RuntimeError, match="cut"):
        stages(tmp_path / "cut", cut)
    rest = []
    assert stages(tmp_path / "cut", lambda step, *_: rest.append(step)) == whole
    assert rest == list(range(where, 7))  # that step was lost with its checkpoint, a stage that was done was not
    assert stages(tmp_path / "cut", cut) == whole  # nothing is left to do
    assert len(load_file(tmp_path / "out-cut" / "unet" / lora.WEIGHTS)) > 0


def test_a_checkpoint_holds_the_loss_scale(examples, tmp_path):
    """In fp16 the loss scale depends on earlier steps; here the scaler is tested on a CPU."""
    first, second = (stage(examples) for _ in range(2))
    for made in (first, second):
        made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(2):
        first.step(step)
    dreambooth.Checkpoint(tmp_path / "stage.safetensors", first).save(2)
    assert dreambooth.Checkpoint(tmp_path / "stage.safetensors", second).load() == 2
    assert second.scaler.state_dict() == first.scaler.state_dict() and first.scaler.get_scale() == 2.0**11
    assert first.step(2) == second.step(2)

"""Encoding prompts with clip skip."""

import pytest
import torch

from augbench.diffusion.pipelines import find, load
from augbench.diffusion.text_encoding import encode_tokens, tokens


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_unused_layers_are_not_computed(clip_skip):
    pipeline = load(find("micro-sd"))
    encoder, ids = pipeline.text_encoder, tokens(pipeline, ["wood with a crack", "metal"])
    ran = []
    for number, layer in enumerate(encoder.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    names = list(encoder.state_dict())
    with torch.no_grad():
        found = encode_tokens(encoder, ids, clip_skip)
        assert ran == list(range(len(encoder.encoder.layers) + 1 - clip_skip))
        states = encoder(ids, output_hidden_states=True)
    assert list(encoder.state_dict()) == names
    if clip_skip == 1:
        assert torch.equal(found, states[0])
    else:
        assert torch.equal(found, encoder.final_layer_norm(states.hidden_states[-clip_skip]))

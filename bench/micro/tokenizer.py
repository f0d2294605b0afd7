"""The tokenizer of the micro bundles: CLIP's byte-level BPE, with merges learned from the captions of the corpus.

The words of the corpus, and those that people are likely to write about surfaces, become one token each; anything else
falls into pieces, down to single bytes, so that no text is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

LENGTH = 77  # tokens of a prompt, as in Stable Diffusion
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"  # of a token that ends a word
MERGES = 1500
# CLIP's words: contractions, letters, single digits, signs
WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
MORE = (
    "a an the of on in at with without and or no for to from by near small large big thin thick long short deep "
    "light dark bright smooth plain rough shiny dirty clean old new broken good bad perfect flawless normal "
    "defective damaged damage defect defects anomaly anomalous flaw flaws fault faulty mark marks line lines pit "
    "pitted pits blister bubble corrosion corroded contamination contaminated oil water paint glue burn burnt "
    "bent fray fracture blowhole uneven patches patch inclusion scale rolled crazing break cut tear worn wear "
    "black red blue green white yellow orange brown gray grey beige silver gold golden pink purple photo "
    "photograph picture image close up macro top view industrial inspection factory product part object machine "
    "production quality sharp focus blurry high low resolution detailed texture surface background material metal "
    "steel iron aluminium aluminum glass ceramic magnetic commutator electrical plate sheet strip hot cold "
    "asphalt road floor pavement bottle cable capsule grid hazelnut nut screw pill toothbrush transistor zipper "
    "shadow"
)
"""Words that no caption of the corpus needs; the models see some of them as words without a meaning."""


def learned_merges(texts: Iterable[str], count: int = MERGES) -> list[tuple[str, str]]:
    """The merges of byte-level BPE over these texts, most frequent first."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    room = 2 * len(pre_tokenizers.ByteLevel.alphabet()) + count
    trainer = trainers.BpeTrainer(vocab_size=room, end_of_word_suffix=SUFFIX, show_progress=False, min_frequency=2)
    learner.train_from_iterator(texts, trainer)
    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]


def vocabulary(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Tokens in CLIP's order: bytes, bytes that end a word, merges, start, end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(sign + SUFFIX for sign in alphabet), *(a + b for a, b in merges)]
    return {token: i for i, token in enumerate([*dict.fromkeys(tokens), START, END])}


def write(folder: Path, texts: Iterable[str]) -> CLIPTokenizer:
    """Learn, and write the files that `CLIPTokenizer.from_pretrained` reads."""
    merges = learned_merges([*texts, *(f"{word} {word}" for word in MORE.split())])
    folder.mkdir(parents=True, exist_ok=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True, **special}
    _write_classic(folder, vocabulary(merges), merges)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def write_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """The tokenizer's vocabulary and merges in the files of the original CLIP."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    _write_classic(folder, tokenizer.get_vocab(), model["merges"])


def _write_classic(folder: Path, vocab: dict[str, int], merges: Iterable[Sequence[str]]) -> None:
    ordered = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
    (folder / "vocab.json").write_text(json.dumps(ordered, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")

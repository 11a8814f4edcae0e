"""Models from scratch: their sizes, and a tokenizer learned from the training references."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from captune.core.errors import UsageError, did_you_mean
from captune.models.layers.vision_encoder import check_side

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Size:
    """Sides of image and patch in pixels; (width, layers, heads) of both parts; dropout of the text part."""

    side: int
    patch: int
    vision: Shape
    text: Shape
    dropout: float


def chosen_size(family: str, sizes: Mapping[str, Size], size: str, image_size: int | None) -> Size:
    """One of `sizes`, perhaps for another image; raises `UsageError` for what is not there or does not fit."""
    if size not in sizes:
        raise UsageError(f"There is no {family} size '{size}'.", did_you_mean(size, sizes))
    found = sizes[size]
    found = replace(found, side=image_size or found.side)
    check_side(found.side, found.patch)
    return found


def layers(shape: Shape) -> dict[str, Any]:
    """A shape by the names of most `transformers` configurations."""
    width, count, heads = shape
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": count,
        "num_attention_heads": heads,
    }


SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# BLIP's start token of the decoder and its mark of the multimodal encoder, after the vocabulary as in the original.
BEHIND = ("[DEC]", "[ENC]")
SPACE = "▁"
# What merges stay within: a word with the space before it, "'s", or one punctuation mark.
WORD = rf"{SPACE}?(?:'\p{{L}}+|\p{{P}}|[^\p{{P}}{SPACE}]+)|{SPACE}"


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-pair encoding of at most `vocab_size` tokens, as a `transformers.PreTrainedTokenizerFast`.

    Decoding gives back what was encoded, in any language: letters with their accents, tones and vowel signs (NFC),
    capital letters, and spaces only where the texts have them; runs of white space become one space. Letters that
    no text has are `[UNK]`. All letters are tokens even where there are more than `vocab_size`. The same texts
    give the same tokenizer.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
    learner.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(WORD), "isolated"),
        ]
    )
    learner.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    texts = list(texts)
    letters = {letter for text in texts for letter in learner.normalizer.normalize_str(text)} - {" "}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(BEHIND),
        min_frequency=2,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(letters),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    start, end = SPECIAL["cls_token"], SPECIAL["sep_token"]
    learner.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B {end}",
        special_tokens=[(token, learner.token_to_id(token)) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=learner, **SPECIAL, extra_special_tokens=list(BEHIND), clean_up_tokenization_spaces=False
    )

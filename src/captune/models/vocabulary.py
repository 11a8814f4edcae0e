"""A tokenizer for a model from scratch, learned from its training references."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# BLIP's start token of the decoder and its mark of the multimodal encoder, behind the words as in the original.
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

"""A tokenizer for a model from scratch, learned from its training references."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# BLIP's start token of the decoder and its mark of the multimodal encoder, behind the words as in the original.
BEHIND = ("[DEC]", "[ENC]")


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A WordPiece tokenizer (lower case) of at most `vocab_size` tokens, as a `transformers.BertTokenizer`.

    The same texts give the same tokenizer.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer

    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = list(texts)
    # Pieces that are equally frequent are joined in the order of their ids, and the learner numbers letters
    # inside words by chance. Named beforehand, they have one order, and the same texts give the same tokenizer.
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)} - {" "})
    first = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size - len(BEHIND), min_frequency=2, special_tokens=first, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    ids = learner.get_vocab()
    for token in BEHIND:
        ids[token] = len(ids)
    return BertTokenizer(vocab=ids, do_lower_case=True, extra_special_tokens=list(BEHIND))

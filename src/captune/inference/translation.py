"""Captions in another language: a translation model after the captioner."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from typing import Any, TypeVar

import torch

from captune.core.errors import CaptuneError, UsageError, did_you_mean, missing_extra
from captune.core.model_names import local_folder
from captune.core.records import Caption
from captune.models.loading.loader import load_pretrained
from captune.models.loading.pretrained import pretrained

Key = TypeVar("Key")
# The search is the same for every model and caption.
BEAMS = 4
MAX_NEW_TOKENS = 128
MANY = "facebook/m2m100_418M"


@dataclass(frozen=True)
class Translator:
    """A translation model that turns English into `language`."""

    name: str
    language: str
    model: Any
    tokenizer: Any
    prefix: str
    first_token: int | None

    @torch.inference_mode()
    def translate(self, texts: Sequence[str]) -> list[str]:
        """The texts in the other language, in order; each as it would be alone. An empty one stays empty."""
        unique = [text for text in dict.fromkeys(texts) if text.strip()]
        if not unique:
            return list(texts)
        tokens = self.tokenizer([self.prefix + text for text in unique], return_tensors="pt", padding=True)
        first = {} if self.first_token is None else {"forced_bos_token_id": self.first_token}
        written = self.model.generate(
            input_ids=tokens["input_ids"].to(self.model.device),
            attention_mask=tokens["attention_mask"].to(self.model.device),
            num_beams=BEAMS,
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            **first,
        )
        outputs = [text.strip() for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]
        translated = dict(zip(unique, outputs, strict=True))
        return [translated.get(text, text) for text in texts]

    def into(self, language: str) -> Translator:
        """The same model for another language; raises `UsageError` where it has not learned it."""
        prefix, first = _direction(self.name, self.model.config.model_type, self.tokenizer, language)
        return replace(self, language=language, prefix=prefix, first_token=first)


def default_translator(language: str) -> str:
    """The Hub's model for one language, as the University of Helsinki names them."""
    return f"Helsinki-NLP/opus-mt-en-{language}"


def load_translator(name: str, language: str, device: str) -> Translator:
    """Load a Marian, M2M100 or T5 (MADLAD-400) model that turns English into `language`, in fp32.

    Raises `CaptuneError` where it is not there, cannot be fetched, is broken, of another kind or not free
    to use, and `UsageError` where it does not know the language.
    """
    if find_spec("sentencepiece") is None:
        raise missing_extra("sentencepiece", "translate", "Translating")
    if "nllb" in name.lower():
        raise _not_free(name)
    try:
        model, tokenizer = load_pretrained(_load, name)
    except CaptuneError as error:
        if local_folder(name) is not None or isinstance(error, UsageError) or error.__cause__ is None:
            raise
        raise CaptuneError(
            error.message,
            f"With network: hf download {name}  (HF_HUB_OFFLINE must not be 1). Where there is no model for "
            f"'{language}' alone: --translator {MANY} knows 100 languages.",
        ) from error
    model.eval().to(device)
    return Translator(name, language, model, tokenizer, "", None).into(language)


def translated(
    stream: Iterable[tuple[Key, list[Caption] | CaptuneError]], translator: Translator, batch_size: int
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    """A stream of captions, translated batch by batch; the confidence stays the captioner's."""
    rows = iter(stream)
    while batch := list(islice(rows, batch_size)):
        originals = [caption.text for _, result in batch if not isinstance(result, CaptuneError) for caption in result]
        texts = iter(translator.translate(originals))
        for key, result in batch:
            if isinstance(result, CaptuneError):
                yield key, result
            else:
                yield key, [replace(caption, text=next(texts), original=caption.text) for caption in result]


def _load(source: Any, **hub: Any) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    config = pretrained(AutoConfig, source, **hub)
    if config.model_type not in ("marian", "m2m_100", "t5"):
        raise CaptuneError(
            f"{source} is a model of the kind '{config.model_type}', which does not translate captions here.",
            f"Marian, M2M100 and T5 (MADLAD-400) do: --translator {MANY}.",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        tokenizer = pretrained(AutoTokenizer, source, **hub)
    if "nllb" in type(tokenizer).__name__.lower():
        raise _not_free(str(source))
    return pretrained(AutoModelForSeq2SeqLM, source, dtype=torch.float32, **hub), tokenizer


def _direction(name: str, kind: str, tokenizer: Any, language: str) -> tuple[str, int | None]:
    """What goes before a text, and the token a translation begins with, for one language."""
    if kind == "m2m_100":
        known = tokenizer.lang_code_to_id
        _check(name, language, known)
        tokenizer.src_lang = "en"
        return "", known[language]
    if kind == "t5":
        marked = (re.fullmatch(r"<2(.+)>", piece) for piece in tokenizer.get_vocab())
        _check(name, language, [match[1] for match in marked if match])
        return f"<2{language}> ", None
    codes = [code.strip("<>") for code in tokenizer.supported_language_codes]
    if codes:
        _check(name, language, codes)
        return f">>{language}<< ", None
    only = tokenizer.target_lang
    if only and len(only) == len(language):
        _check(name, language, [only])
    return "", None


def _check(name: str, language: str, known: Iterable[str]) -> None:
    if language not in known:
        raise UsageError(
            f"The translator {name} does not know the language '{language}'.", did_you_mean(language, known)
        )


def _not_free(name: str) -> CaptuneError:
    return CaptuneError(
        f"{name} is an NLLB model: its licence (CC-BY-NC-4.0) allows no commercial use.",
        f"Leave out --translator, or give one with a free licence: {MANY} (MIT), google/madlad400-3b-mt (Apache-2.0).",
    )

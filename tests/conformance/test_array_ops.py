"""torch and numpy do the same array operations: the search over either writes the same tokens on random logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from captune.core.options import GenerationOptions
from captune.decoding import search
from captune.decoding.generate import normalized
from captune.decoding.numpy_ops import NumpyOps
from captune.decoding.ops import Array, ArrayOps
from captune.decoding.rows import Generated
from captune.decoding.torch_ops import TorchOps

VOCABULARY, END, IMAGES = 50, 2, 40
SAMPLED = {"sample": True, "num_beams": 1}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "greedy, repetition": {"num_beams": 1, "repetition_penalty": 1.4},
    "greedy, n-grams": {"num_beams": 1, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
    "greedy, no token twice": {"num_beams": 1, "no_repeat_ngram_size": 1},
    "2 beams": {"num_beams": 2},
    "5 beams, short ones win": {"num_beams": 5, "length_penalty": -1.0},
    "4 captions, first to end": {"num_beams": 4, "num_captions": 4, "early_stopping": "on"},
    "4 beams, never too early": {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.5},
    "3 beams, penalties": {
        "num_beams": 3,
        "no_repeat_ngram_size": 3,
        "repetition_penalty": 0.8,
        "min_new_tokens": 3,
        "length_penalty": 0.5,
    },
    "sampled": {**SAMPLED, "num_captions": 3, "top_k": 0},
    "sampled, top k": {**SAMPLED, "top_k": 4, "temperature": 0.7},
    "sampled, top p": {**SAMPLED, "num_captions": 2, "top_k": 0, "top_p": 0.6, "repetition_penalty": 1.2},
    "variations": {"variations": 3},
    "beams, sampled": {"sample": True, "num_beams": 3, "num_captions": 2, "top_k": 9, "top_p": 0.9},
}


class TableDecoder:
    """Logits by image, token, position and number of tokens that a row attends to: a wrong cache shows in them."""

    def __init__(self, ops: ArrayOps) -> None:
        rng = np.random.default_rng(0)
        self.ops, self.table = ops, 3 * rng.standard_normal((97, VOCABULARY), np.float32)
        self.table[:, END] += 3
        self.history: Array = None

    def prefill(self, prompts: Array, rows: int, max_new_tokens: int) -> Array:
        self.history = np.zeros((len(prompts), 0), np.int64)
        return self._logits(prompts.tolist(), prompts.shape[1], [[0]] * len(prompts))[:, -1:]

    def step(self, tokens: Array, position: int, visible: Array | None) -> Array:
        written = np.array(tokens.tolist())
        self.history = np.concatenate([self.history, written], 1)
        seen = np.ones((*written.shape, self.history.shape[1])) if visible is None else np.array(visible.tolist())
        attended = (seen * self.history[:, None]).sum(-1).astype(int)
        return self._logits(written.tolist(), position, attended.tolist())

    def _logits(self, tokens: list[list[int]], position: int, attended: list[list[int]]) -> Array:
        key = np.array(tokens) * 31 + position * 7 + np.array(attended) * 13 + np.arange(len(tokens))[:, None]
        return self.ops.array(self.table[key % len(self.table)])


class SharedDraws(TorchOps):
    """torch's operations, with numpy's draws: the generators of the two cannot agree."""

    def __init__(self, seed: int) -> None:
        super().__init__(torch.device("cpu"))
        object.__setattr__(self, "numpy", NumpyOps(np.random.default_rng(seed)))

    def multinomial(self, scores: torch.Tensor, k: int) -> torch.Tensor:
        return torch.from_numpy(self.numpy.multinomial(scores.numpy(), k))  # type: ignore[attr-defined]


def searched(ops: ArrayOps, options: dict[str, Any]) -> Generated:
    prompts = ops.array([[1, n % 9 + 3] for n in range(IMAGES)])
    return search(
        TableDecoder(ops), ops, prompts, normalized(GenerationOptions(**{"max_new_tokens": 12, **options})), END
    )


@pytest.mark.parametrize("name", SEARCHES)
def test_the_search_finds_the_same_captions(name: str) -> None:
    by_torch, by_numpy = (
        list(searched(ops, SEARCHES[name]).captions()) for ops in (SharedDraws(5), NumpyOps(np.random.default_rng(5)))
    )
    for image, other in zip(by_torch, by_numpy, strict=True):
        assert [tokens for tokens, _ in image] == [tokens for tokens, _ in other]
        for (_, values), (_, others) in zip(image, other, strict=True):
            assert values == pytest.approx(others, rel=1e-3)
    assert len({tuple(tokens) for image in by_numpy for tokens, _ in image}) > 5
    assert len({len(tokens) for image in by_numpy for tokens, _ in image}) > 2


SCORES = 3 * np.random.default_rng(0).standard_normal((4, 3, VOCABULARY), np.float32)
INDEX = np.random.default_rng(1).integers(0, VOCABULARY, (4, 3, 7))
ZEROS = np.zeros(INDEX.shape, np.float32)
OPERATIONS: dict[str, Callable[[ArrayOps], Any]] = {
    "array": lambda ops: ops.array([[0.1, 2.5]]),
    "full": lambda ops: ops.xp.concat([ops.full((2, 0), 1.5), ops.full((2, 3), float("-inf"))], 1),
    "broadcast": lambda ops: ops.xp.broadcast_to(ops.array(SCORES)[:, :1], SCORES.shape),
    "where": lambda ops: ops.xp.where(ops.array(SCORES) < 0, float("-inf"), ops.array(SCORES)),
    "gather": lambda ops: ops.gather(ops.array(SCORES), ops.array(INDEX), 2),
    "gather, broadcast": lambda ops: ops.gather(ops.array(SCORES), ops.array(INDEX[:, :, :1] % 3), 1),
    "scatter": lambda ops: ops.scatter(ops.array(SCORES), ops.array(INDEX), ops.array(ZEROS)),
    "forbid": lambda ops: ops.forbid(ops.array(SCORES), ops.array(INDEX), ops.array(INDEX % 2 == 0)),
    "topk": lambda ops: ops.topk(ops.array(SCORES), 5)[0],
    "topk, index": lambda ops: ops.topk(ops.array(SCORES), VOCABULARY)[1],
    "argsort": lambda ops: ops.xp.argsort(ops.array(SCORES), -1),
    "softmax": lambda ops: ops.softmax(ops.array(SCORES)),
    "log_softmax": lambda ops: ops.log_softmax(ops.array(SCORES)),
    "logsumexp": lambda ops: ops.logsumexp(ops.array(SCORES)),
    "multinomial, certain": lambda ops: ops.multinomial(1e6 * ops.array(SCORES), 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_has_the_same_result(name: str) -> None:
    by_torch, by_numpy = OPERATIONS[name](TorchOps(torch.device("cpu"))), OPERATIONS[name](NumpyOps())
    assert by_torch.numpy().dtype == by_numpy.dtype
    np.testing.assert_allclose(by_torch.numpy(), by_numpy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ops", [TorchOps(torch.device("cpu")), NumpyOps()], ids=["torch", "numpy"])
def test_an_operation_leaves_its_arguments_as_they_are(ops: ArrayOps) -> None:
    scores, index = ops.array(SCORES), ops.array(INDEX)
    ops.scatter(scores, index, ops.array(ZEROS))
    ops.forbid(scores, index, index > 3)
    ops.topk(scores, 3)
    ops.multinomial(scores, 2)
    assert (scores == ops.array(SCORES)).all()

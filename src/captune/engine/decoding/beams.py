"""Beam search with the results of `transformers`' own, over rows that are never moved."""

from __future__ import annotations

import torch
from torch import Tensor

from captune.core.options import EarlyStopping
from captune.engine.decoding.penalties import Penalties
from captune.engine.decoding.rows import Rows
from captune.engine.decoding.sampling import Chance, Written

# Far below any sum of log-probabilities, but finite: differences of it stay numbers.
NEVER = -1.0e9


def search(
    rows: Rows,
    prompts: Tensor,
    penalties: Penalties,
    *,
    most: int,
    end: int,
    wanted: int,
    length_penalty: float,
    early_stopping: EarlyStopping,
    chance: Chance | None = None,
) -> Written:
    """The best `wanted` captions of each picture among `rows.each` beams of at most `most` tokens.

    Captions compete by log-probability / length ** `length_penalty`. A picture is done when
    no running beam could still win by its score so far (`early_stopping` off), by the best it
    could reach (never), or as soon as as many captions have ended as there are beams (on).
    With `chance`, continuations are drawn instead of taken in order.
    """
    pictures, beams, device = len(prompts), rows.each, prompts.device
    running = _Beams.empty(prompts, beams, most, end)
    running.score[:, 1:] = NEVER  # all beams begin alike: the first alone goes on
    ended = _Beams.empty(prompts, beams, most, end)
    ended.score.fill_(NEVER)
    has_ended = torch.zeros(pictures, beams, dtype=torch.bool, device=device)
    open_ = torch.ones(pictures, 1, dtype=torch.bool, device=device)
    hasty = early_stopping == "on"
    leading = torch.arange(2 * beams, device=device) < beams
    for new in range(most):
        log_probs = rows.logits.expand(-1, beams, -1).log_softmax(-1)
        said = running.tokens[:, :, : prompts.shape[1] + new]
        scores = penalties(log_probs, said, new)
        if chance is not None:
            scores = chance.narrowed(scores)
        totals = (scores + running.score[:, :, None]).flatten(1)
        # Twice as many as there are beams: half of them may end here.
        score, place = _likeliest(totals, 2 * beams, chance is not None)
        parent, token = place // log_probs.shape[-1], place % log_probs.shape[-1]
        next_ = running.taken(parent)
        next_.add(token, prompts.shape[1] + new, score, log_probs.flatten(1).gather(1, place))
        ends = (token == end) | (new + 1 == most)

        going = next_.chosen(score + ends * NEVER, beams)
        chosen_parent = parent.gather(1, going[1])
        running = going[0]

        stops = ends & leading
        fitness = score / (new + 1) ** length_penalty
        full = has_ended.all(1, keepdim=True) & hasty
        next_.score = fitness + (full | ~open_ | ~stops) * NEVER
        ended, best = (both := ended.beside(next_)).chosen(both.score, beams)
        has_ended = torch.cat([has_ended, stops], 1).gather(1, best)

        longest = most if early_stopping == "never" and length_penalty > 0 else new + 1
        open_ = open_ & _can_improve(running.score[:, :1] / longest**length_penalty, ended.score, has_ended)
        if bool(ends.all() | ~open_.any() | (has_ended.all() & hasty)):
            break
        rows.advance(running.tokens[:, :, prompts.shape[1] + new], chosen_parent)
    tokens = ended.tokens[:, :wanted, prompts.shape[1] :]
    return Written(tokens, ended.length[:, :wanted], ended.log_prob[:, :wanted])


def _can_improve(reachable: Tensor, scores: Tensor, has_ended: Tensor) -> Tensor:
    """Whether a score (pictures, 1) that may still come is above one of the captions that have ended (pictures, n)."""
    worst = torch.where(has_ended, scores.amin(1, keepdim=True), NEVER)
    return (reachable > worst).any(1, keepdim=True)


def _likeliest(totals: Tensor, count: int, by_chance: bool) -> tuple[Tensor, Tensor]:
    """Values and places of `count` continuations of each picture."""
    if by_chance:
        place = torch.multinomial(totals.softmax(-1), count)
        return totals.gather(1, place), place
    return totals.topk(count)


class _Beams:
    """Captions of each picture with their scores: tokens (pictures, n, prompt + most), the rest (pictures, n)."""

    def __init__(self, tokens: Tensor, score: Tensor, log_prob: Tensor, length: Tensor) -> None:
        self.tokens, self.score, self.log_prob, self.length = tokens, score, log_prob, length

    @classmethod
    def empty(cls, prompts: Tensor, count: int, most: int, end: int) -> _Beams:
        """`count` captions that are only a prompt."""
        tail = prompts.new_full((len(prompts), count, most), end)
        score = torch.zeros(len(prompts), count, device=prompts.device)
        tokens = torch.cat([prompts[:, None].expand(-1, count, -1), tail], 2)
        return cls(tokens, score, score.clone(), torch.zeros_like(score, dtype=torch.long))

    def taken(self, place: Tensor) -> _Beams:
        """Those at `place` (pictures, n)."""
        wide = place[:, :, None].expand(-1, -1, self.tokens.shape[2])
        return _Beams(self.tokens.gather(1, wide), *(x.gather(1, place) for x in self._numbers()))

    def add(self, token: Tensor, place: int, score: Tensor, log_prob: Tensor) -> None:
        """Write a token of each caption at `place`; `score` is new, `log_prob` is the token's."""
        self.tokens[:, :, place] = token
        self.score, self.log_prob, self.length = score, self.log_prob + log_prob, self.length + 1

    def chosen(self, by: Tensor, count: int) -> tuple[_Beams, Tensor]:
        """The best `count` by a score (pictures, n), which becomes theirs, and where they were."""
        best, place = by.topk(count)
        found = self.taken(place)
        found.score = best
        return found, place

    def beside(self, other: _Beams) -> _Beams:
        pairs = zip(self._numbers(), other._numbers(), strict=True)
        return _Beams(torch.cat([self.tokens, other.tokens], 1), *(torch.cat(pair, 1) for pair in pairs))

    def _numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.score, self.log_prob, self.length

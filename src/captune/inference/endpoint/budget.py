"""What asking a server may cost: requests, tokens, money; and how fast it is asked."""

import asyncio
import time
from dataclasses import dataclass, field

from captune.core.errors import CaptuneError, UsageError
from captune.core.options.endpoint import EndpointOptions

MILLION = 1_000_000


class BudgetSpentError(CaptuneError):
    """The next request could cost more than is left."""


@dataclass
class Usage:
    """What was asked for and came: requests sent, and tokens as the server counts them."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def cost(self, options: EndpointOptions) -> float:
        """In the money of the prices."""
        spent = self.input_tokens * options.price_input + self.output_tokens * options.price_output
        return spent / MILLION


@dataclass
class Budget:
    """Whether a request may be sent; what those in flight may still cost is reserved for them.

    A request takes at most `max_new_tokens` tokens out, and is expected to take as many in as the largest so far.
    """

    options: EndpointOptions
    used: Usage = field(default_factory=Usage)
    _reserved: Usage = field(default_factory=Usage)
    _largest_input: int = 0
    _sent: float = 0.0

    def __post_init__(self) -> None:
        if self.options.max_cost and not (self.options.price_input or self.options.price_output):
            raise UsageError("--max-cost needs prices.", "Give --price-input and --price-output, of a million tokens.")

    async def reserve(self, max_new_tokens: int) -> Usage:
        """Wait for the rate, and reserve what a request may cost; raises `BudgetSpentError` where it is too much."""
        if self.options.requests_per_minute:
            pause = 60 / self.options.requests_per_minute
            at = max(time.monotonic(), self._sent + pause)
            self._sent = at
            await asyncio.sleep(at - time.monotonic())
        request = Usage(1, self._largest_input, max_new_tokens)
        self._check(request)
        self.used.requests += 1
        self._reserved.input_tokens += request.input_tokens
        self._reserved.output_tokens += request.output_tokens
        return request

    def _check(self, request: Usage) -> None:
        options, used, reserved = self.options, self.used, self._reserved
        after = Usage(
            used.requests + request.requests,
            used.input_tokens + reserved.input_tokens + request.input_tokens,
            used.output_tokens + reserved.output_tokens + request.output_tokens,
        )
        limits = (
            ("--max-requests", options.max_requests, after.requests, f"{used.requests:,} requests were sent"),
            ("--max-tokens-total", options.max_tokens_total, after.tokens, f"{used.tokens:,} tokens were used"),
            ("--max-cost", options.max_cost, after.cost(options), f"{used.cost(options):.4f} was spent"),
        )
        for flag, most, would_be, so_far in limits:
            if most and would_be > most:
                raise BudgetSpentError(
                    f"The budget is spent: {so_far}, and the next request may exceed {flag} {most:g}.",
                    f"What came is kept; the same command with a higher {flag} goes on.",
                )

    def settle(self, request: Usage, input_tokens: int, output_tokens: int) -> None:
        """Count what a request took, and reserve nothing for it any more; nothing was taken by one that failed."""
        self._reserved.input_tokens -= request.input_tokens
        self._reserved.output_tokens -= request.output_tokens
        self.used.input_tokens += input_tokens
        self.used.output_tokens += output_tokens
        self._largest_input = max(self._largest_input, input_tokens)

"""Closes an admitted request into exactly one record, whatever became of it."""

from __future__ import annotations

import msgspec

from app.core.records import Attempt, Bound, Entry, Opening, Outcome, Record, attempt_id_of
from app.core.usage import NOTHING_USED, Usage
from app.metering.bounds import cheapest, dearest_parts, turns_of
from app.metering.estimates import (
    BYTES_PER_TOKEN,
    COLD_BYTES_PER_TOKEN,
    LOWER_BYTES_PER_TOKEN,
    Ask,
    Estimates,
)
from app.metering.pricing import PriceBook
from app.metering.rates import Price
from app.metering.tokens import Reading

UNSEEN_TOKENS = 256
"""What a cancelled model may have produced beyond what had arrived."""

REASONING_TOKENS = 2048
REASONING_SHARE = 4
"""Hidden reasoning of a whole answer that told no usage: so many tokens, and so many for each one seen."""

IMAGE_TOKENS_LIKELY = 2500
"""Of one image, with most models: a few have tokens of a tenth of the price and twenty times as many."""

CALL_TOKENS_LIKELY = 8000
"""What a tool's call puts before the model; OpenAI bills a search with its small models as a block of so many."""

OPAQUE = frozenset(("audio", "images", "videos", "threads"))
"""Families whose streams may bring nothing that is counted as text: of pictures and sound it is not known how many
tokens they are.
"""

REASONING_PREFIXES = (
    *("o1", "o3", "o4", "gpt-5", "gpt-6", "codex", "computer-use"),
    *("claude", "gemini", "grok", "sim-reasoning"),
)
"""Models that may think without showing it. Open models that reason show it, as text that is counted."""


class Meter:
    """The tally of one request. ``close`` is called once; it decides and computes, and does no I/O."""

    __slots__ = (
        "_estimates",
        "_prices",
        "_reasons",
        "ask",
        "attempt",
        "body_seen",
        "closed",
        "first_byte_ms",
        "opening",
        "reading",
        "status",
        "voids",
    )

    def __init__(
        self, opening: Opening, ask: Ask, *, prices: PriceBook, estimates: Estimates, reasons: bool = False
    ) -> None:
        """``reasons``: the request asks for reasoning, whose tokens are billed and not seen."""
        self.opening = opening
        self.attempt: Attempt = opening.attempt
        self.ask = ask
        self.reading = self._new_reading()
        self.status: int | None = None
        self.first_byte_ms: int | None = None
        self.body_seen = False
        self.voids: list[Entry] = []
        self.closed = False
        self._prices = prices
        self._estimates = estimates
        self._reasons = reasons

    def __repr__(self) -> str:
        return f"Meter(attempt_id={self.attempt_id!r}, closed={self.closed})"

    @property
    def attempt_id(self) -> str:
        """The id that the current attempt carries upstream."""
        return attempt_id_of(self.opening.request_id, self.attempt.number)

    def _new_reading(self) -> Reading:
        return Reading(outputless=self.opening.endpoint == "embeddings", answers=self.ask.many)

    def retry(self, attempt: Attempt) -> None:
        """The current attempt is known to be unbilled; ``attempt`` follows it."""
        self.voids.append(self._void())
        self.attempt = attempt
        self.reading = self._new_reading()

    def price(self) -> Price | None:
        """The price by what the answer says of its model and tier, as far as it has."""
        return self._price_at(self.reading.service_tier)

    def _price_at(self, tier: str | None) -> Price | None:
        opening, attempt = self.opening, self.attempt
        return self._prices.price(
            attempt.upstream, attempt.model, tier, opening.admitted_at_ms, served=self.reading.model
        )

    def close(
        self,
        ended_at_ms: int,
        outcome: Outcome,
        *,
        void: bool = False,
        error_code: str | None = None,
        own_us: int | None = None,
        awaited: bool = False,
    ) -> Record:
        """The record. ``void``: the last attempt is known to be unbilled. ``own_us``: what the gateway itself took.
        ``awaited``: what it used is to be asked for.
        """
        self.closed = True
        opening, reading, attempt = self.opening, self.reading, self.attempt
        last = self._void() if void else self._primary()
        if last.kind == "charge" and not reading.suspect:
            self._estimates.learn(opening.key_id, attempt.model, self.ask, last.usage)
        return Record(
            request_id=opening.request_id,
            admitted_at_ms=opening.admitted_at_ms,
            quarter_ms=opening.quarter_ms,
            ended_at_ms=ended_at_ms,
            team_id=opening.team_id,
            key_id=opening.key_id,
            secret_id=opening.secret_id,
            endpoint=opening.endpoint,
            stream=opening.stream,
            model_requested=opening.model_requested,
            upstream=attempt.upstream,
            model=attempt.model,
            outcome=outcome,
            entries=(*self.voids, last),
            attempts=attempt.number,
            first_byte_at_ms=self.first_byte_ms,
            response_id=reading.response_id,
            end_user=opening.end_user,
            tags=opening.tags,
            model_served=reading.model,
            service_tier=reading.service_tier,
            status=self.status,
            error_code=error_code or reading.error_code,
            cache=opening.cache,
            tool_usage=reading.tool_usage,
            usage_raw=reading.usage_raw,
            suspect=reading.suspect,
            budgets=opening.budgets,
            decision=opening.decision,
            own_us=own_us,
            awaited=awaited,
        )

    def _void(self) -> Entry:
        return Entry(attempt_id=self.attempt_id, kind="void", upstream=self.attempt.upstream, model=self.attempt.model)

    def _primary(self) -> Entry:
        usage = self.reading.usage
        if usage is not None and self._usage_is_final():
            price = self.price()
            cost = None if price is None else price.cost_nanousd(usage)
            if cost is None and self._holds_money:
                return self._unpriced_under_budget(usage)
            return Entry(
                attempt_id=self.attempt_id,
                kind="charge",
                upstream=self.attempt.upstream,
                model=self.attempt.model,
                usage=usage,
                cost_nanousd=cost,
                price_source=None if price is None else price.source,
                price_version=None if price is None else price.version,
                service_tier=self.reading.service_tier,
            )
        return self._estimate()

    def _unpriced_under_budget(self, usage: Usage) -> Entry:
        """The answer named a tier or units that have no price: for a budget of money it costs what was held for
        it, since nothing would never fill the budget.
        """
        bound = self.attempt.bound
        return Entry(
            attempt_id=self.attempt_id,
            kind="estimate",
            upstream=self.attempt.upstream,
            model=self.attempt.model,
            usage=usage,
            cost_nanousd=bound.cost_upper_nanousd,
            cost_lower_nanousd=bound.cost_lower_nanousd,
            cost_upper_nanousd=bound.cost_upper_nanousd,
            price_source=bound.price_source,
            price_version=bound.price_version,
            service_tier=self.reading.service_tier,
        )

    def _estimate(self) -> Entry:
        """What may have been used of an attempt that did not say: the least, the likely and the most of it.

        Until the answer names a tier that was used it is priced at the one that the bound was priced at.
        """
        reading, bound = self.reading, self.attempt.bound
        tier = bound.service_tier if reading.service_tier in {None, "auto"} else reading.service_tier
        price = self._price_at(tier)
        lower, likely = self._seen(bound)
        cost = lower_cost = upper_cost = None
        if price is not None:
            parts = dearest_parts(price, self._without_tools, likely.input_tokens, likely.output_tokens, 0)
            likely = likely if parts is None else likely.at_least(parts)
            cost = price.cost_nanousd(likely)
            if cost is not None:
                least = lower.at_least(cheapest(price, lower.input_tokens))
                lower_cost = min(price.cost_nanousd(least) or 0, cost)
                # The bound was priced at admission; the answer may have named a dearer tier since.
                upper = bound.usage_upper.at_least(likely)
                upper_cost = max(price.cost_nanousd(upper) or 0, bound.cost_upper_nanousd or 0, cost)
        if cost is None and self._holds_money:
            return self._unpriced_under_budget(likely)
        return Entry(
            attempt_id=self.attempt_id,
            kind="estimate",
            upstream=self.attempt.upstream,
            model=self.attempt.model,
            usage=likely,
            cost_nanousd=cost,
            cost_lower_nanousd=lower_cost,
            cost_upper_nanousd=upper_cost,
            price_source=None if price is None else price.source,
            price_version=None if price is None else price.version,
            service_tier=tier,
        )

    @property
    def _holds_money(self) -> bool:
        """Whether a budget of money holds the bound of this attempt."""
        return bool(self.opening.budgets) and self.attempt.bound.cost_upper_nanousd is not None

    @property
    def _without_tools(self) -> Ask:
        """The request without the provider's tools: what they may do is in the bound, what they did was seen."""
        ask = self.ask
        if not ask.extent.tools:
            return ask
        return msgspec.structs.replace(ask, extent=msgspec.structs.replace(ask.extent, tools=()))

    def _seen(self, bound: Bound) -> tuple[Usage, Usage]:
        """The least that was used, and what is charged: not below what was used, as far as that can be known.

        Where nothing, or not everything, can have been seen of an answer that did not come to its end (none
        yet, or hidden reasoning), that is the bound; under a budget of money also where the answer did, since
        the allowance for hidden reasoning is no proof.
        """
        reading, bound_output = self.reading, bound.output_tokens_upper
        told = reading.usage or NOTHING_USED
        lower = msgspec.structs.replace(
            reading.calls,
            input_tokens=max(bound.input_tokens_lower, told.input_tokens),
            output_tokens=max(min(reading.text_bytes // LOWER_BYTES_PER_TOKEN, bound_output), told.output_tokens),
        )
        seen = -(-reading.output_bytes // COLD_BYTES_PER_TOKEN)
        if not self.body_seen or (self.opening.endpoint in OPAQUE and not seen):
            output = bound_output
        elif not self._may_reason():
            output = seen if self._is_whole() else seen + UNSEEN_TOKENS
        elif self._is_whole() and not self._holds_money:
            output = seen + REASONING_TOKENS + REASONING_SHARE * seen
        else:
            output = bound_output
        likely = msgspec.structs.replace(
            reading.calls_begun,
            input_tokens=max(self._likely_input(bound), lower.input_tokens),
            output_tokens=max(min(output, bound_output), lower.output_tokens),
        )
        return lower, likely

    def _likely_input(self, bound: Bound) -> int:
        ask = self.ask
        if ask.follows_stored or ask.extent.unseen:
            likely = bound.input_tokens_upper // turns_of(ask)
        else:
            learnt = self._estimates.input_tokens_high(self.opening.key_id, self.attempt.model, ask.body_bytes)
            # A tenth over the densest lately, since an estimate must not be below the truth.
            likely = learnt + learnt // 10 + BYTES_PER_TOKEN + ask.extent.images * IMAGE_TOKENS_LIKELY
        if ask.extent.tools:
            begun = self.reading.calls_begun
            calls = begun.web_searches + begun.file_searches + begun.code_sessions + begun.image_calls
            # After each call the model reads all there was and what the call gave.
            likely = (calls + 1) * likely + CALL_TOKENS_LIKELY * calls * (calls + 1) // 2
        return likely if bound.unbounded else min(likely, bound.input_tokens_upper)

    def at_least(self) -> tuple[int, int]:
        """What has been seen of a running call: output tokens, and what it has cost by now, in nano-dollars."""
        lower, _ = self._seen(self.attempt.bound)
        price = self.price()
        cost = None if price is None else price.cost_nanousd(lower.at_least(cheapest(price, lower.input_tokens)))
        return lower.output_tokens, cost or 0

    @property
    def output_tokens_so_far(self) -> int:
        """What has been told, else what the text seen so far is likely to be: for people who watch."""
        reading = self.reading
        if reading.usage is not None and reading.usage.output_tokens:
            return reading.usage.output_tokens
        return -(-reading.text_bytes // BYTES_PER_TOKEN)

    def limit_tokens(self, reserved: int) -> int:
        """What the request counts for token limits: exactly what it used, else no less than was seen of it.

        An estimate of what nobody saw belongs on the bill; in a limit it would lock a key out for nothing.
        """
        reading = self.reading
        if reading.usage is not None:
            return reading.usage.tokens
        seen = -(-reading.output_bytes // COLD_BYTES_PER_TOKEN)
        return max(reserved, self._likely_input(self.attempt.bound) + seen)

    def _usage_is_final(self) -> bool:
        """Whether the usage was told at the end: what was told on the way there is not the last word."""
        reading = self.reading
        return reading.finished or reading.done or reading.usage_at_end

    def _is_whole(self) -> bool:
        """Whether the answer came to the end that the model gave it: one that failed did not."""
        reading = self.reading
        if reading.terminal is not None:
            return reading.terminal in {"completed", "incomplete"}
        return reading.finished or reading.done

    def _may_reason(self) -> bool:
        model = (self.reading.model or self.attempt.model).rsplit("/", 1)[-1].removeprefix("ft:")
        return self._reasons or self.reading.reasoning_seen or model.startswith(REASONING_PREFIXES)

"""Whether a request may be sent: what it can cost, which limits bind it, and what they say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from app.accounting.accounts import Accounts
from app.catalog import Route
from app.core.calendar import window_of
from app.core.clock import quarter_of
from app.core.errors import (
    GatewayError,
    InvalidRequest,
    LimitsUnavailable,
    UnpricedModel,
    quoted,
)
from app.core.exchange import Exchange
from app.core.identity import Principal
from app.core.peek import Peek
from app.core.records import Attempt, Bound, BudgetWindow, CacheResult, Opening
from app.ledger.lines import OpenLine, encode_payload, with_decision
from app.limits.headers import refusal_error
from app.limits.limiter import UPSTREAM_TAG, Claim, Grant, Limit, MoneyWindow, Outcome, Refusal
from app.limits.policy import Policy
from app.metering.bounds import bound_of
from app.metering.estimates import Ask, Estimates, certain_tokens
from app.metering.pricing import PriceBook
from app.store.posting import RANK_EXACT
from app.telemetry.metrics import Metrics

NO_ATTEMPT = 0
"""The number of an attempt that was not made: the answer was there."""
NO_COST = Bound(cost_lower_nanousd=0, cost_upper_nanousd=0)

LIMITS_TOLD_MAX = 20
"""A decision has to fit into 2 KiB."""


class Admitted(msgspec.Struct):
    """A request that may be sent: what was reserved for it, and what is written down before it is.

    ``payload`` is what is written to the journal: the opening, which says in its decision what the limits said.
    """

    opening: Opening
    payload: bytes
    grant: Grant
    upstream_grant: Grant | None


class Question(msgspec.Struct, frozen=True):
    """What is asked of the limits: who, what, how large, and where it may go (``route`` first).

    ``cache`` is what the cache did, and ``cache_reason`` why.
    """

    exchange: Exchange
    principal: Principal
    ask: Peek
    size: Ask
    route: Route
    bounds: Mapping[Route, Bound]
    tags: dict[str, str]
    cache: CacheResult
    cache_reason: str


class SavedQuestion(msgspec.Struct, frozen=True):
    """The same for a request that needs no call: ``upstream`` and ``model`` are where its answer is from, and
    ``tokens`` what it is taken to use, where policy counts that; ``size`` says how large it is where that is not known
    yet.
    """

    exchange: Exchange
    principal: Principal
    ask: Peek
    upstream: str
    model: str
    tokens: int
    size: Ask | None
    tags: dict[str, str]
    cache: CacheResult
    cache_reason: str


class Admission:
    """The gate. ``blocks_unpriced``: models without a price are refused; ``keeps_unlimited``: what nothing
    limits is held in the hot state as well, for the sake of its record; ``counts_saved_tokens``: what the cache
    answers counts for limits of tokens, too.
    """

    def __init__(
        self,
        accounts: Accounts,
        policy: Policy,
        upstream_limits: Mapping[str, tuple[Limit, ...]],
        prices: PriceBook,
        estimates: Estimates,
        metrics: Metrics,
        *,
        blocks_unpriced: bool,
        keeps_unlimited: bool,
        counts_saved_tokens: bool,
    ) -> None:
        self._accounts = accounts
        self._policy = policy
        self._upstream_limits = upstream_limits
        self._prices = prices
        self._estimates = estimates
        self._metrics = metrics
        self._blocks_unpriced = blocks_unpriced
        self._keeps_unlimited = keeps_unlimited
        self._counts_saved_tokens = counts_saved_tokens
        self._saved_kinds = frozenset(("requests", "concurrency", *(("tokens",) if counts_saved_tokens else ())))

    def __repr__(self) -> str:
        return f"Admission({self._accounts!r}, {self._policy!r})"

    def bound(self, exchange: Exchange, ask: Peek, size: Ask, route: Route) -> Bound:
        """What one attempt on ``route`` can use and cost. Raises UnpricedModel, where that is to be refused."""
        price, others, output_max, context = self._prices.rates_of(
            route.upstream, route.model, ask.service_tier, exchange.received_ms
        )
        if price is None and self._blocks_unpriced:
            raise UnpricedModel(f"The model {quoted(ask.model)!r} has no price.", param="model")
        return bound_of(size, price, output_max, context, others=others)

    def holds_money(self, principal: Principal) -> Limit | None:
        """A budget of money that binds whatever the key does; None where there is none."""
        bound = self._policy.bind(principal, "", {})
        return next((limit for limit in bound if limit.kind == "money" and limit.mode == "enforce"), None)

    def check_unbilled(self, principal: Principal) -> None:
        """What costs at the provider and is on no bill here passes no budget. Raises UnpricedModel."""
        budget = self.holds_money(principal)
        if budget is not None:
            raise UnpricedModel(f"What this costs is on no bill here, and {_whose(budget)} has a budget of money.")

    async def admit(self, question: Question) -> Admitted:
        """Raises RateLimited, InsufficientQuota, UnpricedModel, InvalidRequest, LimitsUnavailable."""
        principal, route = question.principal, question.route
        limits = self._policy.bind(principal, question.ask.model, question.tags)
        upstream_limits = self._upstream_limits.get(route.upstream, ())
        tokens = 0
        if limits or upstream_limits:
            tokens = self._tokens_of((*limits, *upstream_limits), principal.key_id, question.size, route)
        try:
            money = self._money(question, limits)
            upstream_grant = None
            if upstream_limits:
                upstream_grant = await self._reserve_upstream(question, upstream_limits, tokens)
            try:
                grant, opening = await self._reserve(_opening(question), limits, tokens, money)
            except BaseException:
                if upstream_grant is not None:
                    self._accounts.void(upstream_grant.claim)
                raise
        except GatewayError as error:
            error.explanation = {"upstream": route.upstream, **error.explanation}
            raise
        decision = _decision(question.cache_reason, grant, upstream_grant, money)
        # Whoever replays the journal of a process that died can say it, too.
        opening = msgspec.structs.replace(opening, decision=decision)
        return Admitted(opening, with_decision(grant.claim.opening, decision), grant, upstream_grant)

    async def admit_saved(self, question: SavedQuestion) -> Admitted:
        """A request that is answered from the cache, or by a call that is in flight. Raises RateLimited,
        LimitsUnavailable; a request larger than a limit of tokens is InsufficientQuota.
        """
        exchange, principal = question.exchange, question.principal
        bound = self._policy.bind(principal, question.ask.model, question.tags)
        limits = tuple(limit for limit in bound if limit.kind in self._saved_kinds)
        tokens = question.tokens
        if question.size is not None and self._counts_saved_tokens:
            tokens = self._estimates.reserved_tokens(principal.key_id, question.model, question.size)
        if not limits:
            grant = Grant(Claim(exchange.request_id, principal.team_id, ()), exchange.received_ms, is_held=False)
            return Admitted(_saved_opening(question, {"cache": question.cache_reason}), b"", grant, None)
        grant, opening = await self._reserve(_saved_opening(question, {}), limits, tokens, (0, 0))
        opening = msgspec.structs.replace(opening, decision=_decision(question.cache_reason, grant, None, (0, 0)))
        return Admitted(opening, b"", grant, None)

    async def may_repeat(self, attempt_id: str, route: Route) -> bool:
        """Whether the limits that protect the upstream have room for one more call of a request that it has had."""
        limits = tuple(each for each in self._upstream_limits.get(route.upstream, ()) if each.kind == "requests")
        grant = await self._grant_of(Claim(attempt_id, f"{UPSTREAM_TAG}{route.upstream}", limits)) if limits else None
        if grant is not None:
            # It is counted; its tokens and its lease are those of the request.
            self._accounts.settle(grant.claim, Outcome(RANK_EXACT, 0, 0))
        return not limits or grant is not None

    async def may_move(self, admitted: Admitted, size: Ask, attempt_id: str, route: Route) -> bool:
        """Whether another upstream's limits have room for the request; then it holds of them what it held of those
        of the upstream before, where only the call counts that was made.
        """
        limits = self._upstream_limits.get(route.upstream, ())
        grant = None
        if limits:
            tokens = self._tokens_of(limits, admitted.opening.key_id, size, route)
            grant = await self._grant_of(Claim(attempt_id, f"{UPSTREAM_TAG}{route.upstream}", limits, tokens))
            if grant is None:
                return False
        before, admitted.upstream_grant = admitted.upstream_grant, grant
        if before is not None:
            self._accounts.settle(before.claim, Outcome(RANK_EXACT, 0, 0))
        return True

    async def _grant_of(self, claim: Claim) -> Grant | None:
        try:
            decided = await self._accounts.admit(claim, lambda _at_ms: claim)
        except LimitsUnavailable:
            return None
        if isinstance(decided, Refusal):
            return None
        self._observe(decided)
        return decided

    def _tokens_of(self, limits: Sequence[Limit], key_id: str, size: Ask, route: Route) -> int:
        tokens = self._estimates.reserved_tokens(key_id, route.model, size)
        for limit in limits:
            if limit.kind == "tokens" and tokens > limit.maximum and limit.mode == "enforce":
                # A guess alone must not say that waiting will never help.
                tokens = max(limit.maximum, certain_tokens(size))
        return tokens

    def give_back(self, admitted: Admitted) -> None:
        """Nothing was sent, and nothing is written down."""
        self._accounts.void(admitted.grant.claim)
        if admitted.upstream_grant is not None:
            self._accounts.void(admitted.upstream_grant.claim)

    # -- money ----------------------------------------------------------------------------------

    def _money(self, question: Question, limits: Sequence[Limit]) -> tuple[int, int]:
        """What the request can cost at most and is likely to: (0, 0) where no budget binds it."""
        budgets = [limit for limit in limits if limit.kind == "money"]
        if not budgets:
            return 0, 0
        enforced = [limit for limit in budgets if limit.mode == "enforce"]
        bounds = question.bounds.values()
        uppers = [bound.cost_upper_nanousd for bound in bounds]
        if None in uppers:
            if enforced:
                raise UnpricedModel(
                    f"The model {quoted(question.ask.model)!r}, or a tool of the request, has no price, and"
                    f" {_whose(enforced[0])} has a budget of money.",
                    param="model",
                )
            return 0, 0
        unbounded = next((bound.unbounded for bound in bounds if bound.unbounded is not None), None)
        if unbounded is not None and any(limit.bound == "maximum" for limit in enforced):
            raise InvalidRequest(
                f"Nothing bounds what this request can cost ({unbounded}), and {_whose(enforced[0])} has a budget"
                " of money. Set max_tool_calls.",
            )
        upper = max(cost for cost in uppers if cost is not None)
        if all(limit.bound == "maximum" for limit in budgets):
            return upper, upper
        return upper, min(upper, self._likely(question, upper))

    def _likely(self, question: Question, upper: int) -> int:
        route, exchange, size = question.route, question.exchange, question.size
        price, *others = self._prices.possible_prices(
            route.upstream, route.model, question.ask.service_tier, exchange.received_ms
        )
        likely = self._estimates.likely_tokens(question.principal.key_id, route.model, size)
        context = self._prices.context_tokens(route.upstream, route.model)
        output_max = self._prices.output_tokens_max(route.model)
        bound = bound_of(size, price, output_max, context, policy="estimate", others=others, likely=likely)
        return upper if bound.cost_upper_nanousd is None else bound.cost_upper_nanousd

    # -- reservations ---------------------------------------------------------------------------

    async def _reserve_upstream(self, question: Question, limits: tuple[Limit, ...], tokens: int) -> Grant:
        claim = Claim(question.exchange.request_id, f"{UPSTREAM_TAG}{question.route.upstream}", limits, tokens)
        decided = await self._accounts.admit(claim, lambda _at_ms: claim)
        if isinstance(decided, Refusal):
            raise self._refused(question.exchange.received_ms, claim, decided)
        self._observe(decided)
        return decided

    async def _reserve(
        self, bare: Opening, limits: tuple[Limit, ...], tokens: int, money: tuple[int, int]
    ) -> tuple[Grant, Opening]:
        opening = bare

        def claim_at(at_ms: int) -> Claim:
            nonlocal opening
            windows = money_windows(limits, at_ms)
            opening = bare
            if windows:
                opening = msgspec.structs.replace(bare, budgets=tuple(window.budget for window in windows))
            return Claim(
                request_id=bare.request_id,
                tag=bare.team_id,
                limits=limits,
                tokens=tokens,
                bound_nanousd=money[0],
                likely_nanousd=money[1],
                money=windows,
                owner=self._accounts.process_id,
                opening=encode_payload(OpenLine(opening)),
            )

        claim = claim_at(bare.admitted_at_ms)
        if not limits and not self._keeps_unlimited:
            return Grant(claim, bare.admitted_at_ms, is_held=False), opening
        decided = await self._accounts.admit(claim, claim_at)
        if isinstance(decided, Refusal):
            raise self._refused(bare.admitted_at_ms, claim, decided)
        self._observe(decided)
        return decided, opening

    def _observe(self, grant: Grant) -> None:
        for limit in grant.observed:
            self._metrics.would_limit.labels(limit.scope, limit.name).inc()

    # -- refusals -------------------------------------------------------------------------------

    def _refused(self, received_ms: int, claim: Claim, refusal: Refusal) -> GatewayError:
        limit = refusal.limit
        name = "budget_held" if refusal.is_held else limit.name
        self._metrics.limited.labels(limit.scope, name).inc()
        # Those who wait for the same holds should not come back at the same moment.
        jitter_ms = random.randint(-1000, 3000) if refusal.is_held else 0  # noqa: S311 - jitter, not a secret
        error = refusal_error(refusal, received_ms, jitter_ms)
        error.explanation = {
            "limit": name,
            "scope": limit.scope,
            "scope_id": limit.scope_id,
            "maximum": limit.maximum,
            "needed": claim.amount_of(limit),
            "retry_after_ms": refusal.retry_after_ms,
            "reset_ms": next((one.reset_ms for one in refusal.standings if one.limit is limit), 0),
            "limits": [
                [one.limit.scope, one.limit.name, one.limit.maximum, one.remaining]
                for one in refusal.standings[:LIMITS_TOLD_MAX]
            ],
        }
        return error


def money_windows(limits: Sequence[Limit], at_ms: int) -> tuple[MoneyWindow, ...]:
    """The window of each budget among ``limits``, at a moment."""
    windows: list[MoneyWindow] = []
    for limit in limits:
        if limit.kind == "money":
            start_ms, end_ms = window_of(limit.window, limit.time_zone, at_ms)  # type: ignore[arg-type] # checked by Limit
            windows.append(MoneyWindow(BudgetWindow(limit.counter, start_ms), end_ms))
    return tuple(windows)


def _opening(question: Question) -> Opening:
    route = question.route
    return _opened(question, Attempt(1, route.upstream, route.model, question.bounds[route]), {})


def _saved_opening(question: SavedQuestion, decision: dict[str, object]) -> Opening:
    return _opened(question, Attempt(NO_ATTEMPT, question.upstream, question.model, NO_COST), decision)


def _opened(question: Question | SavedQuestion, attempt: Attempt, decision: dict[str, object]) -> Opening:
    exchange, principal, ask = question.exchange, question.principal, question.ask
    return Opening(
        request_id=exchange.request_id,
        admitted_at_ms=exchange.received_ms,
        quarter_ms=quarter_of(exchange.received_ms),
        team_id=principal.team_id,
        key_id=principal.key_id,
        secret_id=principal.secret_id,
        endpoint=exchange.endpoint.family,
        stream=ask.stream,
        model_requested=ask.model,
        attempt=attempt,
        end_user=ask.end_user,
        tags=question.tags,
        cache=question.cache,
        background=ask.background,
        decision=decision,
    )


def _decision(
    cache_reason: str, grant: Grant, upstream_grant: Grant | None, money: tuple[int, int]
) -> dict[str, object]:
    """What was checked, for whoever asks why: the cache, the limits, and what each had left afterwards."""
    standings = [*grant.standings, *(upstream_grant.standings if upstream_grant is not None else ())]
    decision: dict[str, object] = {"cache": cache_reason}
    if standings:
        decision["limits"] = [
            [standing.limit.scope, standing.limit.name, standing.limit.maximum, standing.remaining]
            for standing in standings[:LIMITS_TOLD_MAX]
        ]
    if money[0]:
        decision["reserved_nanousd"] = money[0]
    if grant.observed:
        decision["observed"] = [limit.name for limit in grant.observed]
    if not grant.is_held and grant.claim.limits:
        decision["store"] = "away"
    return decision


def _whose(limit: Limit) -> str:
    return f"{limit.scope.replace('_', ' ')} {limit.scope_id}"

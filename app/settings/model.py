"""The shape of the configuration file. Every limit carries its unit; an unknown key is an error."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from decimal import Decimal
from ipaddress import ip_network
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from app.core.calendar import zone_of
from app.core.identity import BoundPolicy, LimitKind, LimitMode, LimitPolicy, LimitRule, LimitWindow
from app.core.money import nanousd_from_usd
from app.core.rules import default_id, in_order
from app.settings.alerts import AlertSettings
from app.settings.cache import CacheSettings, OptionalModelCache
from app.settings.section import Bytes, Count, Duration, Number, Seconds, Section
from app.settings.sso import SSOSettings
from app.settings.upstream import UPSTREAM_NAME, UpstreamSettings


class Target(Section):
    upstream: str
    model: str | None = None
    weight: Annotated[int, Number, Field(ge=1, le=10_000)] = 1
    priority: Annotated[int, Number, Field(ge=0, le=1000)] = 0
    """The lowest is tried first; the next where none of it is left to try."""


class ModelRule(Section):
    """Which upstream serves what: a pattern (``match``) or an alias (``name``)."""

    match: str | None = None
    name: str | None = None
    upstream: str | None = None
    model: str | None = None
    targets: tuple[Target, ...] = ()
    cache: OptionalModelCache = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.match is None) == (self.name is None):
            raise ValueError("expected either match (a pattern) or name (an alias)")
        if (self.upstream is None) == (not self.targets):
            raise ValueError("expected either upstream or targets")
        if self.model is not None and (self.match is not None or self.targets):
            raise ValueError("model belongs to a name with one upstream, or into its targets")
        if self.match is not None and any(target.model is not None for target in self.targets):
            raise ValueError("a pattern forwards the model as asked; only a name can rename it")
        return self

    @property
    def all_targets(self) -> tuple[Target, ...]:
        if self.targets:
            return self.targets
        return (Target(upstream=self.upstream or "", model=self.model),)


class LimitValues(Section):
    """Limits, in the words of the command line; ``policy``, ``mode`` and ``bound`` are those of all of them."""

    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_hour: Count | None = None
    tokens_per_day: Count | None = None
    concurrency: Count | None = None
    budget_usd: Annotated[Decimal, Number, Field(ge=0, le=9_000_000, decimal_places=9)] | None = None
    budget_window: Literal["day", "week", "month", "total"] | None = None
    time_zone: str = "UTC"
    policy: LimitPolicy = "strict"
    mode: LimitMode = "enforce"
    bound: BoundPolicy = "maximum"

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        zone_of(value)
        return value

    @model_validator(mode="after")
    def _budget_and_window(self) -> Self:
        if (self.budget_usd is None) != (self.budget_window is None):
            raise ValueError("expected budget_usd and budget_window together")
        return self

    def rules(self, owner: Literal["key", "team"]) -> tuple[LimitRule, ...]:
        """The limits that are set. Their ids are the same whatever the maximum."""
        maxima: list[tuple[LimitKind, LimitWindow, int | None]] = [
            ("requests", "minute", self.requests_per_minute),
            ("requests", "hour", self.requests_per_hour),
            ("requests", "day", self.requests_per_day),
            ("tokens", "minute", self.tokens_per_minute),
            ("tokens", "hour", self.tokens_per_hour),
            ("tokens", "day", self.tokens_per_day),
            ("concurrency", "", self.concurrency),
        ]
        if self.budget_usd is not None and self.budget_window is not None:
            maxima.append(("money", self.budget_window, nanousd_from_usd(self.budget_usd)))
        return in_order(
            LimitRule(
                id=default_id(owner, kind, window, self.time_zone),
                kind=kind,
                maximum=maximum,
                window=window,
                time_zone=self.time_zone,
                policy=self.policy,
                mode=self.mode,
                bound=self.bound,
            )
            for kind, window, maximum in maxima
            if maximum is not None
        )


class LimitDefaults(Section):
    """Limits for every key and every team that has none of its own."""

    key: LimitValues = LimitValues()
    team: LimitValues = LimitValues()

    @property
    def key_rules(self) -> tuple[LimitRule, ...]:
        return self.key.rules("key")

    @property
    def team_rules(self) -> tuple[LimitRule, ...]:
        return self.team.rules("team")


class StreamSettings(Section):
    on_disconnect: Literal["drain", "cancel"] = "drain"
    drain_s_max: Duration = 30
    drain_usd_max: Annotated[Decimal, Field(ge=0, le=1000)] = Decimal("0.05")


PricePerMtok = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]
PricePerCall = Annotated[Decimal, Field(ge=0, le=10_000, decimal_places=9)]
STANDARD_TIERS = frozenset({"", "auto", "default", "standard"})
"""What an answer calls the ordinary service tier."""


class TokenPrices(Section):
    """US dollars per million tokens of each kind; a kind that is not named costs what its whole does."""

    input_per_mtok_usd: PricePerMtok | None = None
    output_per_mtok_usd: PricePerMtok | None = None
    cached_per_mtok_usd: PricePerMtok | None = None
    cache_write_per_mtok_usd: PricePerMtok | None = None
    cache_write_12h_per_mtok_usd: PricePerMtok | None = None
    input_audio_per_mtok_usd: PricePerMtok | None = None
    cached_audio_per_mtok_usd: PricePerMtok | None = None
    output_audio_per_mtok_usd: PricePerMtok | None = None
    input_image_per_mtok_usd: PricePerMtok | None = None
    cached_image_per_mtok_usd: PricePerMtok | None = None
    output_image_per_mtok_usd: PricePerMtok | None = None


class LongContextPrices(TokenPrices):
    """Prices of a request, all of its tokens, with more input than that; what is not named stays as it is."""

    above_input_tokens: Count


PricePlace: TypeAlias = tuple[str, str | None, str | None, date, bool]


class PriceOverride(TokenPrices):
    """The price of a model (a pattern is allowed) from a date on (its midnight in UTC).

    With rates for input and output the row is a price of its own, and takes nothing from the list. Without
    them it adds to whatever price holds: fees for calls, and rates of audio and images. A row without a
    ``tier`` holds for every tier, unless there is a row for that tier or (for a row with a price of its own)
    the list prices the model by tier.
    """

    model: str
    upstream: str | None = None
    tier: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")] | None = None
    effective_from: date = date(1970, 1, 1)
    long_context: tuple[LongContextPrices, ...] = ()
    web_search_usd: PricePerCall | None = None
    preview_search_usd: PricePerCall | None = None
    file_search_usd: PricePerCall | None = None
    code_session_usd: PricePerCall | None = None
    image_call_usd: PricePerCall | None = None
    request_usd: PricePerCall | None = None

    @model_validator(mode="after")
    def _is_whole_or_adds(self) -> Self:
        if (self.input_per_mtok_usd is None) != (self.output_per_mtok_usd is None):
            raise ValueError("expected both input_per_mtok_usd and output_per_mtok_usd, or neither")
        if self.adds:
            if self.cached_per_mtok_usd is not None or self.cache_write_per_mtok_usd is not None or self.long_context:
                raise ValueError("cached_per_mtok_usd, cache_write_per_mtok_usd and long_context need input and output")
            if not self.model_fields_set - {"model", "upstream", "tier", "effective_from"}:
                raise ValueError("expected a price")
        lower: TokenPrices = self
        for level in self.long_context:
            if isinstance(lower, LongContextPrices) and level.above_input_tokens <= lower.above_input_tokens:
                raise ValueError("expected long_context with rising above_input_tokens")
            for name in TokenPrices.model_fields:
                if (getattr(level, name) or 0) < (getattr(lower, name) or 0) and getattr(level, name) is not None:
                    raise ValueError("expected long_context prices that do not fall")
            lower = level
        return self

    @property
    def adds(self) -> bool:
        """Whether the row adds to another price instead of being one."""
        return self.input_per_mtok_usd is None

    @property
    def place(self) -> PricePlace:
        """What it is the price of, and from when: of two in one place nobody could say which holds."""
        return self.model, self.upstream, self.service_tier, self.effective_from, self.adds

    @property
    def service_tier(self) -> str | None:
        """The tier it is for, "" for the standard one whatever it is called; None: not for one."""
        return "" if self.tier in STANDARD_TIERS else self.tier


class ServerSettings(Section):
    body_bytes_max: Bytes = 64 * 2**20
    upload_bytes_max: Bytes = 2**30
    body_bytes_in_flight_max: Bytes = 512 * 2**20
    head_timeout_s: Seconds = 5
    body_timeout_s: Seconds = 60
    keepalive_timeout_s: Seconds = 75
    in_flight_max: Count = 2000
    slow_client_s: Seconds = 60
    drain_delay_s: Duration = 5
    drain_s_max: Duration = 600
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ip_network(text, strict=False)
            except ValueError as error:
                raise ValueError(f"{text!r} is neither an address nor a network") from error
        return value


class Configuration(Section):
    """The whole file."""

    upstreams: dict[str, UpstreamSettings] = Field(default_factory=dict)
    default_upstream: str | None = None
    models: tuple[ModelRule, ...] = ()
    limits: LimitDefaults = LimitDefaults()
    stream: StreamSettings = StreamSettings()
    cache: CacheSettings = CacheSettings()
    alerts: AlertSettings = AlertSettings()
    prices: tuple[PriceOverride, ...] = ()
    on_unpriced: Literal["allow", "block"] = "allow"
    durability: Literal["shared", "local"] = "shared"
    server: ServerSettings = ServerSettings()
    sso: SSOSettings | None = None

    def default_upstream_of(self, usable: Collection[str]) -> str | None:
        """Where a request goes that names neither a model nor anything stored: the one that is named, else the first
        of those that are ``usable``.
        """
        if self.default_upstream is not None:
            return self.default_upstream
        return next((name for name in self.upstreams if name in usable), None)

    def faults(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What does not fit together: (place in the file, what is wrong)."""
        for name in self.upstreams:
            if not UPSTREAM_NAME.match(name):
                yield ("upstreams", name), "expected a name of letters, digits, '_', '.' and '-'"
        if self.default_upstream is not None and self.default_upstream not in self.upstreams:
            yield ("default_upstream",), f"there is no upstream named {self.default_upstream!r}"
        seen: set[str] = set()
        for index, rule in enumerate(self.models):
            for target in rule.all_targets:
                if target.upstream not in self.upstreams:
                    yield ("models", index), f"there is no upstream named {target.upstream!r}"
            if rule.name is not None:
                if rule.name in seen:
                    yield ("models", index), f"the name {rule.name!r} stands twice"
                seen.add(rule.name)
        rows: set[PricePlace] = set()
        for index, price in enumerate(self.prices):
            if price.upstream is not None and price.upstream not in self.upstreams:
                yield ("prices", index), f"there is no upstream named {price.upstream!r}"
            row = price.place
            if row in rows:
                yield ("prices", index), f"there are two prices of {price.model!r} from the same day on"
            rows.add(row)

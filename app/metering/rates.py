"""What a unit of each bucket costs, and what a usage costs by that: integers only, one rounding, up."""

from __future__ import annotations

import hashlib
from typing import Self

import msgspec

from app.core.money import round_up
from app.core.usage import Usage

FINGERPRINT_HEX = 12
LABEL_CHARS_MAX = 180


class Rates(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nano-dollars per million units. None: there is no such price.

    ``code_session`` is for a container, ``request`` for the request itself.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_12h: int | None = None
    input_audio: int | None = None
    cached_audio: int | None = None
    output_audio: int | None = None
    input_image: int | None = None
    cached_image: int | None = None
    output_image: int | None = None
    web_search: int | None = None
    preview_search: int | None = None
    file_search: int | None = None
    code_session: int | None = None
    image_call: int | None = None
    request: int = 0


class Price(msgspec.Struct, frozen=True):
    """The price of a model at one tier. ``long`` holds (more than so many input tokens, rates), ascending.

    ``source`` says who set it: ``override`` (the file), ``genai-prices``, ``genai-prices+override`` (the
    list, with fees that the file adds), ``simulator``. ``version`` says which one of theirs it is and ends
    in a fingerprint of every rate, so that a stored row is computed again bit for bit from its units and
    a price of the same source and version, and from no other; ``PriceBook.recorded`` finds it.
    """

    rates: Rates
    source: str
    version: str
    long: tuple[tuple[int, Rates], ...] = ()

    @classmethod
    def made(cls, source: str, label: str, rates: Rates, long: tuple[tuple[int, Rates], ...] = ()) -> Self:
        """A price whose version is ``label`` (cut where it is long) and the fingerprint of its rates."""
        fingerprint = hashlib.sha256(msgspec.json.encode((rates, long))).hexdigest()[:FINGERPRINT_HEX]
        return cls(rates, source, f"{label[:LABEL_CHARS_MAX]} {fingerprint}", long)

    @property
    def levels(self) -> tuple[Rates, ...]:
        """The rates of every length of input, the shortest first."""
        return (self.rates, *(rates for _, rates in self.long))

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates that a request of so many input tokens pays, for all of its tokens."""
        chosen = self.rates
        for start, rates in self.long:
            if input_tokens > start:
                chosen = rates
        return chosen

    def cost_nanousd(self, usage: Usage) -> int | None:
        """What ``usage`` costs, rounded up once; None where a bucket that was used has no price."""
        rates = self.rates_for(usage.input_tokens) if self.long else self.rates
        total = rates.request
        plain_input = usage.input_tokens
        plain_output = usage.output_tokens
        if rates.cached is not None:
            # Without a rate of its own cached input is plain input: providers that have no discount bill it so.
            cached = usage.cached_tokens - usage.cached_audio_tokens - usage.cached_image_tokens
            plain_input -= cached
            total += cached * rates.cached
        if usage.cache_write_tokens:
            written = _written(rates, usage)
            if written is None:
                return None
            plain_input -= written[0]
            total += written[1]
        if (
            usage.input_audio_tokens
            or usage.output_audio_tokens
            or usage.input_image_tokens
            or usage.output_image_tokens
        ):
            media = _media(rates, usage)
            if media is None:
                return None
            plain_input -= media[0]
            plain_output -= media[1]
            total += media[2]
        if usage.web_searches or usage.file_searches or usage.code_sessions or usage.image_calls or usage.unknown_units:
            calls = _calls(rates, usage)
            if calls is None:
                return None
            total += calls
        if plain_input > 0:
            if rates.input is None:
                return None
            total += plain_input * rates.input
        if plain_output > 0:
            if rates.output is None:
                return None
            total += plain_output * rates.output
        return round_up(total)


def _written(rates: Rates, usage: Usage) -> tuple[int, int] | None:
    """Cache writes: (input tokens that are billed here, their sum). None: unpriced.

    Models without any rate for writes take no more for them than for input.
    """
    if rates.cache_write is None and rates.cache_write_12h is None:
        return 0, 0
    kept_long = usage.cache_write_12h_tokens
    if kept_long and rates.cache_write_12h is None:
        return None
    long_sum = kept_long * (rates.cache_write_12h or 0)
    if rates.cache_write is None:
        return kept_long, long_sum
    return usage.cache_write_tokens, (usage.cache_write_tokens - kept_long) * rates.cache_write + long_sum


def _media(rates: Rates, usage: Usage) -> tuple[int, int, int] | None:
    """Audio and images: (input tokens, output tokens that are billed here, their sum). None: unpriced.

    Audio never costs what text does. Images in the input do, unless the model has a rate for them: models
    that see count them in text tokens; models that draw never bill them so.
    """
    input_tokens = output_tokens = total = 0
    if usage.input_audio_tokens:
        if rates.input_audio is None:
            return None
        input_tokens += usage.input_audio_tokens
        total += _partly_cached(
            usage.input_audio_tokens, usage.cached_audio_tokens, rates.input_audio, rates.cached_audio
        )
    if usage.input_image_tokens:
        if rates.input_image is not None:
            input_tokens += usage.input_image_tokens
            total += _partly_cached(
                usage.input_image_tokens, usage.cached_image_tokens, rates.input_image, rates.cached_image
            )
        elif rates.cached is not None:
            input_tokens += usage.cached_image_tokens
            total += usage.cached_image_tokens * rates.cached
    if usage.output_audio_tokens:
        if rates.output_audio is None:
            return None
        output_tokens += usage.output_audio_tokens
        total += usage.output_audio_tokens * rates.output_audio
    if usage.output_image_tokens:
        if rates.output_image is None:
            return None
        output_tokens += usage.output_image_tokens
        total += usage.output_image_tokens * rates.output_image
    return input_tokens, output_tokens, total


def _partly_cached(tokens: int, cached: int, rate: int, cached_rate: int | None) -> int:
    return (tokens - cached) * rate + cached * (rate if cached_rate is None else cached_rate)


def _calls(rates: Rates, usage: Usage) -> int | None:
    """What calls of tools cost; None: unpriced."""
    if usage.unknown_units:
        return None
    total = 0
    for units, rate in (
        (usage.web_searches - usage.preview_searches, rates.web_search),
        (usage.preview_searches, rates.preview_search),
        (usage.file_searches, rates.file_search),
        (usage.code_sessions, rates.code_session),
        (usage.image_calls, rates.image_call),
    ):
        if not units:
            continue
        if rate is None:
            return None
        total += units * rate
    return total

"""Generated prices and usages: any rate may be missing, any bucket used."""

from hypothesis import strategies as st

from app.core.usage import Usage
from app.metering.rates import Price, Rates

RATE_NAMES = tuple(name for name in Rates.__struct_fields__ if name != "request")
PARTS = (
    *("plain_input", "cached_text", "cached_audio", "cached_image", "audio", "image", "written", "written_12h"),
    *("plain_output", "output_audio", "output_image", "searches", "previews", "files", "sessions", "images"),
)
"""Units that do not overlap: each token or call is in one of them."""


def rates(*, complete: bool = False):
    rate = st.integers(0, 10**12)
    each = rate if complete else st.none() | rate
    return st.builds(Rates, **dict.fromkeys(RATE_NAMES, each), request=st.integers(0, 10**12))


@st.composite
def prices(draw, *, complete: bool = False):
    """A price, perhaps with dearer rates for long inputs."""
    base = draw(rates(complete=complete))
    long, lower = [], base
    for start in sorted(draw(st.lists(st.integers(1, 5000), max_size=2, unique=True))):
        dearer = draw(st.integers(0, 10**9))
        told = {name: getattr(lower, name) for name in Rates.__struct_fields__}
        lower = Rates(**{name: None if rate is None else rate + dearer for name, rate in told.items()})
        long.append((start, lower))
    return Price.made("test", "generated", base, tuple(long))


def parts():
    return st.fixed_dictionaries({name: st.integers(0, 4000) | st.just(0) for name in PARTS})


def usage_of_parts(part: dict[str, int]) -> Usage:
    """The same units as an answer reports them: totals with parts inside them."""
    cached = part["cached_text"] + part["cached_audio"] + part["cached_image"]
    written = part["written"] + part["written_12h"]
    return Usage(
        input_tokens=part["plain_input"] + cached + part["audio"] + part["image"] + written,
        cached_tokens=cached,
        cached_audio_tokens=part["cached_audio"],
        cached_image_tokens=part["cached_image"],
        input_audio_tokens=part["audio"] + part["cached_audio"],
        input_image_tokens=part["image"] + part["cached_image"],
        cache_write_tokens=written,
        cache_write_12h_tokens=part["written_12h"],
        output_tokens=part["plain_output"] + part["output_audio"] + part["output_image"],
        output_audio_tokens=part["output_audio"],
        output_image_tokens=part["output_image"],
        web_searches=part["searches"] + part["previews"],
        preview_searches=part["previews"],
        file_searches=part["files"],
        code_sessions=part["sessions"],
        image_calls=part["images"],
    )

"""What the views reckon and say, apart from any page: their own modules, called in one."""

from __future__ import annotations

import json
from typing import Any

import pytest

RECORD = {
    "kind": "record",
    "request_id": "r",
    "started_at": "2026-11-24T15:22:07.418Z",
    "first_byte_at": "2026-11-24T15:22:08.810Z",
    "ended_at": "2026-11-24T15:22:15.718Z",
    "outcome": "completed",
    "status": 200,
    "stream": True,
    "cache": "bypass",
    "output_tokens": 1204,
    "cost_usd": "0.066301",
    "cost_lower_usd": "0.066301",
    "cost_upper_usd": "0.066301",
    "saved_usd": "0",
    "estimated": False,
    "decision": {
        "cache": "store",
        "reserved_nanousd": 412_000_000,
        "limits": [
            ["key", "requests_per_minute", 60, 45],
            ["key", "concurrency", 20, 16],
            ["team", "budget_usd_per_month", 2_000_000_000_000, 161_570_000_000],
        ],
    },
    "attempts": [
        {"attempt_id": "r.1", "upstream": "azure-eu", "kind": "void", "status": 429, "took_ms": 212, "usage": {}},
        {
            "attempt_id": "r.2",
            "upstream": "openai",
            "kind": "charge",
            "usage": {"input_tokens": 10, "output_tokens": 4},
        },
    ],
}
ONE = {"attempts": RECORD["attempts"][1:]}
REFUSAL = {
    "kind": "refusal",
    "request_id": "r",
    "at": "2026-11-24T15:22:07.418Z",
    "status": 429,
    "code": "rate_limit_exceeded",
    "decision": {"limit": "tokens_per_minute", "scope": "key", "maximum": 100, "needed": 10, "retry_after_ms": 2400},
}
NOW = "Date.parse('2026-11-24T15:40:12Z')"


@pytest.fixture(scope="module")
def sentence(words):
    def say(told: dict[str, Any]) -> str:
        return words(
            "views/request/sentence",
            f"import('/console/assets/js/views/request/account.js').then((a) => m.plain(m.sentenceOf(a.accountOf({json.dumps(told)}))))",
        )

    return say


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            (
                "Completed in 8.30 s on the second try: azure-eu was too busy (429, not billed), then openai answered."
                " It cost $0.066301."
            ),
        ),
        (ONE, "Completed in 8.30 s: openai answered. It cost $0.066301."),
        ({**ONE, "cost_usd": None}, "Completed in 8.30 s: openai answered. It has no price yet, so it is in no total."),
        (
            {**ONE, "outcome": "failed", "status": 400, "cost_usd": "0"},
            "Failed after 8.30 s: openai found the request wrong (400). It cost nothing.",
        ),
        (
            {**ONE, "outcome": "failed", "status": 504, "error_code": "upstream_timeout", "cost_usd": "0"},
            "Failed after 8.30 s: openai gave no answer in time (504). It cost nothing.",
        ),
        (
            {**ONE, "outcome": "disconnected", "estimated": True, "cost_lower_usd": "0.01", "cost_upper_usd": "0.09"},
            (
                "The client left after 8.30 s, before the answer was whole. It cost ≈ $0.066301, an estimate:"
                " between $0.010000 and $0.090000."
            ),
        ),
        (
            {"outcome": "cancelled", "error_code": "key_revoked", **ONE, "cost_usd": "0"},
            "Cancelled after 8.30 s: its key was revoked. It cost nothing.",
        ),
        (
            {"cache": "hit", "attempts": [], "cost_usd": "0", "saved_usd": "0.0123"},
            "Answered from the cache in 8.30 s. It cost nothing and saved $0.012300.",
        ),
    ],
)
def test_a_request_is_told_in_one_plain_sentence(sentence, changes, text):
    assert sentence({**RECORD, **changes}) == text


def test_a_refusal_names_its_limit_and_when_it_could_come_again(sentence):
    assert sentence(REFUSAL) == (
        "Refused: the key\u2019s limit of tokens a minute was reached; it could come again after 2.40 s."
        " Nothing was sent and nothing was charged."
    )
    too_large = {**REFUSAL, "decision": {**REFUSAL["decision"], "needed": 1000}}
    assert "the request alone is larger than that, so waiting does not help" in sentence(too_large)


def test_the_steps_of_a_request_lie_end_to_end_and_a_bar_is_never_too_thin(words):
    steps = words(
        "views/request/waterfall",
        "import('/console/assets/js/views/request/account.js').then((a) => m.stepsOf(a.accountOf("
        f"{json.dumps(RECORD)}), {{limits: 3, reserved: '$0.41', released: '$0.35', tokens: 1204}})"
        ".map((step) => [step.name, step.fromMs, step.tookMs, step.kind]))",
    )
    assert steps == [
        ["Key and limits", 0, None, "ours"],
        ["Cache", 0, None, "ours"],
        ["Try 1: azure-eu", 0, 212, "failed"],
        ["Try 2: openai", 212, 1180, "upstream"],
        ["Streaming to the client", 1392, 6908, "upstream"],
        ["Recorded", 8300, None, "ours"],
    ]
    for of, bar in (
        ("{fromMs: 0, tookMs: null}", {"x": 0, "width": 2}),
        ("{fromMs: 8300, tookMs: null}", {"x": 98, "width": 2}),
        ("{fromMs: 4150, tookMs: 4150}", {"x": 50, "width": 50}),
    ):
        assert words("views/request/waterfall", f"m.barOf({of}, 8300, 100)") == bar
    assert words("views/request/waterfall", "m.ticksOf(8300)") == [0, 2000, 4000, 6000, 8000]
    assert words("views/request/waterfall", "m.ticksOf(0)") == [0]


def test_limits_are_told_with_what_was_used_before_and_what_this_took(words):
    rows = words(
        "views/request/limits",
        "import('/console/assets/js/views/request/account.js').then((a) => m.checkedLimits(a.accountOf("
        f"{json.dumps(RECORD)})).map((row) => [row.owner, row.what, row.used, row.needed, row.maximum, row.tight]))",
    )
    assert rows == [
        ["Key", "requests a minute", 14, 1, 60, False],
        ["Key", "at once", 3, 1, 20, False],
        ["Team", "budget a month", 1_838_018_000_000, 412_000_000, 2_000_000_000_000, True],
    ]


def test_a_bill_adds_up_to_the_nano_dollar_as_it_is_read(words):
    lines = [
        {"unit": "input_tokens", "count": 6212, "per_mtok_usd": "4", "cost_usd": "0.024848"},
        {"unit": "cached_tokens", "count": 18432, "per_mtok_usd": "0.4", "cost_usd": "0.0073728"},
        {"unit": "reasoning_tokens", "count": 640, "cost_usd": None, "included": True},
    ]
    told = {"cost_usd": "0.0322208", "bill": {"lines": lines}}
    found = words(
        "views/request/bill",
        f"(({{lines, total, adds}}) => [adds, m.alignedUsd([...lines.map((l) => l.nanousd).filter((n) => n !== null), total]),"
        f" lines.map((l) => l.price)])(m.billOf({json.dumps(told)}))",
    )
    assert found == [True, ["$0.0248480", "$0.0073728", "$0.0322208"], ["$4.00 / M", "$0.40 / M", "in output"]]
    assert words("views/request/bill", "m.alignedUsd([25000000000n, 1000n, -2000n])") == [
        "$25.000000",
        "$0.000001",
        "\u2212$0.000002",
    ]


def key(*secrets: dict[str, Any], **more: Any) -> str:
    return json.dumps({"id": "k", "state": "active", "limits": [], "expires_at": None, "secrets": secrets, **more})


def secret(name: str, made: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "created_at": made, "expires_at": None, "revoked_at": None, "last_used_at": None, **more}


OLD = secret("old", "2026-03-03T09:00:00Z", expires_at="2026-11-30T09:02:00Z")
FRESH = secret("new", "2026-11-23T09:02:00Z")


@pytest.mark.parametrize(
    ("old", "new", "moved", "states"),
    [
        (110, 514, 82, ["done", "now", "next"]),
        (0, 514, 100, ["done", "done", "now"]),
        (0, 0, None, ["done", "done", "now"]),
        (1, 999_999, 99, ["done", "now", "next"]),
    ],
)
def test_a_rotation_says_how_far_it_is(words, old, new, moved, states):
    uses = json.dumps([{"id": "old", "requests_last_hour": old}, {"id": "new", "requests_last_hour": new}])
    found = words(
        "views/keys/rotation",
        f"((r) => [r.fresh.id, r.old.map((o) => o.id), r.movedPercent, r.steps.map((s) => s.state), r.steps[2].title])"
        f"(m.rotationOf({key(OLD, FRESH)}, {uses}, {{tz: 'Europe/Berlin', now: {NOW}}}))",
    )
    assert found == ["new", ["old"], moved, states, "Old secret stops on Mon 30 Nov, 10:02"]


def test_one_secret_that_works_is_no_rotation(words):
    ended = {**OLD, "expires_at": "2026-11-24T15:40:00Z"}
    revoked = {**OLD, "revoked_at": "2026-11-24T15:40:00Z"}
    for other in (ended, revoked):
        asked = f"m.rotationOf({key(other, FRESH)}, [], {{tz: 'UTC', now: {NOW}}})"
        assert words("views/keys/rotation", asked) is None


def test_the_state_of_a_key_is_said_with_the_day_it_still_works(words):
    for more, text in (
        ({}, "Active"),
        ({"expires_at": "2027-01-31T23:00:00Z"}, "Active until 31 Jan 2027"),
        ({"expires_at": "2026-11-30T23:00:00Z"}, "Expires in 6 days"),
        ({"state": "revoked", "revoked_at": "2026-11-20T09:00:00Z"}, "Revoked 20 Nov, 10:00"),
    ):
        asked = f"m.stateOf({key(FRESH, **more)}, 'Europe/Berlin', {NOW}).text"
        assert words("views/keys/words", asked) == text


def test_the_live_feed_stands_still_while_it_is_held_and_never_shows_a_call_twice(words):
    found = words(
        "views/live/feed",
        """(() => {
          const feed = new m.Feed();
          const flight = (id, at) => ({ request_id: id, started_at: at, model: 'm' });
          feed.take('snapshot', { in_flight: [flight('b', '2026-11-24T00:00:02Z')], finished: [] });
          feed.take('started', flight('a', '2026-11-24T00:00:01Z'));
          const before = feed.shown.flights.map((f) => f.request_id);
          feed.hold();
          feed.take('started', flight('c', '2026-11-24T00:00:03Z'));
          feed.take('finished', { request_id: 'b' });
          feed.take('finished', { request_id: 'b' });
          feed.take('progress', { request_id: 'a', state: 'streaming', output_tokens: 7 });
          const held = [feed.shown.flights.map((f) => [f.request_id, f.output_tokens ?? 0, f.ended ?? false]), feed.shown.finished.length, feed.arrived];
          feed.release();
          feed.take('ended', { request_ids: ['a'] });
          const after = [feed.shown.flights.map((f) => f.request_id), feed.shown.finished.map((f) => f.request_id), feed.inFlight];
          for (let i = 0; i < 300; i += 1) feed.take('finished', { request_id: `f${i}` });
          feed.take('later', {});
          feed.take('count', { in_flight: 9, degraded: true });
          return [before, held, after, feed.shown.finished.length, feed.shown.finished[0].request_id, feed.inFlight, feed.isDegraded];
        })()""",
    )
    assert found == [
        ["a", "b"],
        [[["a", 7, False], ["b", 0, True]], 0, 2],
        [["c"], ["b"], 1],
        200,
        "f299",
        9,
        True,
    ]


BUDGET = {
    "id": "b",
    "maximum_usd": "100",
    "spent_usd": "50",
    "window_from": "2026-11-01T00:00:00Z",
    "window_to": "2026-12-01T00:00:00Z",
    "forecast_usd": "150",
    "exhausted_at": "2026-11-26T00:00:00Z",
    "state": "ok",
    "days": [{"day": "2026-11-01", "spent_usd": "20"}, {"day": "2026-11-16", "spent_usd": "30"}],
}


def test_a_burn_down_meets_its_limit_where_it_is_gone(words):
    found = words(
        "charts/burndown",
        f"m.burndownOf({json.dumps(BUDGET)}, Date.parse('2026-11-16T00:00:00Z'), {{width: 300, height: 130, pad: 0}})",
    )
    assert found["nowX"] == 150
    assert found["actual"][0] == {"x": 0, "y": 130}
    assert found["actual"][-1]["x"] == 150
    assert found["gone"] == {"x": 250, "y": found["limitY"]}
    assert found["forecast"][-1] == found["gone"]
    assert found["pace"][-1] == {"x": 300, "y": found["limitY"]}
    spent = words(
        "charts/burndown",
        f"m.burndownOf({json.dumps({**BUDGET, 'spent_usd': '120', 'state': 'exhausted', 'maximum_usd': '0'})},"
        " Date.parse('2026-11-16T00:00:00Z'), {width: 300, height: 130})",
    )
    assert all(point["y"] == point["y"] for point in spent["actual"])
    assert spent["forecast"] == []


def test_budgets_that_are_gone_first_stand_first(words):
    rows = [
        {**BUDGET, "id": "lasts", "exhausted_at": None, "forecast_usd": "60"},
        {**BUDGET, "id": "lasts longer", "exhausted_at": None, "forecast_usd": "55"},
        {**BUDGET, "id": "later", "exhausted_at": "2026-11-28T00:00:00Z"},
        BUDGET,
        {**BUDGET, "id": "gone", "state": "exhausted"},
    ]
    order = words("views/budgets/words", f"{json.dumps(rows)}.sort(m.byGone).map((b) => b.id)")
    assert order == ["gone", "b", "later", "lasts", "lasts longer"]


@pytest.mark.parametrize(
    ("text", "value"), [("600", 600), ("1,200", 1200), ("400k", 400_000), ("2M", 2_000_000), ("1.5k", 1500)]
)
def test_numbers_are_taken_as_people_write_them(words, text, value):
    assert words("form", f"m.wholeNumber('{text}')") == value


@pytest.mark.parametrize("text", ["", "many", "1.5", "-3", "1e3", "9".rjust(20, "9")])
def test_what_is_no_number_is_said(words, text):
    asked = f"(() => {{ try {{ return m.wholeNumber('{text}'); }} catch (error) {{ return error.message; }} }})()"
    assert words("form", asked) == "A whole number, such as 600 or 400k."


@pytest.mark.parametrize(
    ("zone", "end"),
    [
        ("UTC", "2026-10-26T00:00:00.000Z"),
        ("Europe/Berlin", "2026-10-25T23:00:00.000Z"),
        ("America/New_York", "2026-10-26T04:00:00.000Z"),
        ("Asia/Kathmandu", "2026-10-25T18:15:00.000Z"),
    ],
)
def test_a_day_ends_when_it_does_in_its_zone(words, zone, end):
    assert words("form", f"m.endOfDay('2026-10-25', '{zone}')") == end


def test_programs_name_the_address_the_model_and_never_a_pattern(words):
    texts = words(
        "views/me/snippets",
        "m.snippetsOf('https://ai.acme.example/v1', m.modelFor(['gpt-*', 'o4-mini'])).map((s) => s.text)",
    )
    assert all("https://ai.acme.example/v1" in text and "o4-mini" in text for text in texts)
    assert all("HEADGATE_KEY" in text for text in texts)
    compile(texts[0], "snippet", "exec")
    assert words("views/me/snippets", "m.modelFor(null)") == words("views/me/snippets", "m.modelFor(['gpt-*'])")


@pytest.mark.parametrize(
    ("endpoints", "text"),
    [
        (None, "those of the team"),
        ([], "none"),
        (["files", "batches"], "files, batches"),
        (["responses", "*"], "every path (*), without isolation or records of what is not known"),
    ],
)
def test_endpoints_are_told_with_what_everything_gives_up(words, endpoints, text):
    assert words("views/keys/words", f"m.endpointsText({json.dumps(endpoints)}, 'those of the team')") == text


def test_an_audit_entry_says_only_what_changed(words):
    entry = {
        "before": {
            "id": "x",
            "name": "a",
            "limits": [{"kind": "requests", "window": "minute", "maximum": 60}],
            "tags": {},
        },
        "after": {
            "id": "x",
            "name": "b",
            "limits": [{"kind": "requests", "window": "minute", "maximum": 60}],
            "tags": {},
        },
    }
    assert words("views/audit/words", f"m.changesOf({json.dumps(entry)})") == [
        {"name": "name", "before": "a", "after": "b"}
    ]
    assert words("views/audit/words", "['key.rotate', 'key.create', 'price.delete'].map(m.sentence)") == [
        "Rotated",
        "Made",
        "Took away",
    ]


def test_an_audit_entry_of_a_budget_says_whose_it_is(words):
    budget = {"team": {"id": "t", "name": "search"}, "key": None, "kind": "money", "window": "month"}
    entry = {
        "object": {"kind": "budget", "id": "b", "name": "budget_usd_per_month"},
        "before": {**budget, "maximum_usd": "20"},
        "after": {**budget, "maximum_usd": "25"},
    }
    gone = {**entry, "after": None}
    key = {
        "object": {"kind": "key", "id": "k", "name": "indexer"},
        "before": None,
        "after": {"team": {"name": "search"}},
    }
    assert words("views/audit/words", f"{json.dumps([entry, gone, key])}.map(m.objectName)") == [
        "search: $25 / month",
        "search: $20 / month",
        "indexer",
    ]


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"used_usd": "10", "left_usd": "90"}, "At this pace it lasts."),
        ({"used_usd": "90", "left_usd": "10"}, "At this pace it is gone on Fri 27 Nov."),
        ({"used_usd": "0", "left_usd": "100"}, "Too early to say whether it lasts."),
        (
            {"used_usd": "1", "left_usd": "99", "resets_at": "2026-12-23T00:00:00Z"},
            "Too early to say whether it lasts.",
        ),
        ({"used_usd": "100", "left_usd": "0"}, "Gone. Calls answer 429 insufficient_quota until then."),
        ({"used_usd": "1", "left_usd": "99", "resets_at": None, "window": "total"}, ""),
    ],
)
def test_what_is_left_of_a_budget_is_told_only_where_it_is_known(words, more, note):
    limit = {
        "kind": "money",
        "scope": "key",
        "window": "month",
        "maximum_usd": "100",
        "resets_at": "2026-12-01T00:00:00Z",
        "time_zone": "UTC",
        **more,
    }
    said = words("views/me/left", f"m.leadOf({json.dumps(limit)}, 'red', 'UTC', {NOW}).note")
    assert said.startswith(note)
    assert bool(said) == bool(note)

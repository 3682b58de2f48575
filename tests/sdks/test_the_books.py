"""What all of these clients have left behind; runs last, by its name."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.sdks


def test_the_bill_is_whole_and_nothing_broke(gateway, clients):
    checked = gateway.check_ledger()
    assert checked["ok"], checked
    broken = [line for line in gateway.log() if line["level"] in {"error", "critical"}]
    # That one is asked for: the provider refuses the gateway's own key.
    assert {line["event"] for line in broken} <= {"upstream_auth_failed"}, broken

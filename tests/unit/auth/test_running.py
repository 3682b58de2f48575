"""What runs with a secret, and that its revocation reaches it whenever it comes."""

from __future__ import annotations

from app.auth.running import Running


class Request:
    def __init__(self) -> None:
        self.revoked = 0

    def revoke(self) -> None:
        self.revoked += 1


def test_a_revocation_ends_what_runs_with_the_secret_and_nothing_else():
    running = Running()
    mine, also_mine, gone, other = (Request() for _ in range(4))
    for request in (mine, also_mine, gone):
        assert running.enter("a", request)
    assert running.enter("b", other)
    running.leave("a", gone)
    running.revoke("a")
    assert [request.revoked for request in (mine, also_mine, gone, other)] == [1, 1, 0, 0]


def test_what_comes_after_the_revocation_does_not_run():
    running = Running()
    running.revoke("a")
    late = Request()
    assert not running.enter("a", late)
    running.leave("a", late)
    assert running.enter("b", late)


def test_a_request_may_leave_while_it_is_revoked():
    running = Running()

    class Leaving(Request):
        def revoke(self) -> None:
            super().revoke()
            running.leave("a", self)

    requests = [Leaving() for _ in range(3)]
    for request in requests:
        running.enter("a", request)
    running.revoke("a")
    running.revoke("a")
    assert [request.revoked for request in requests] == [1, 1, 1]


def test_nothing_is_kept_of_what_has_left():
    running = Running()
    for number in range(100):
        request = Request()
        running.enter(f"secret{number}", request)
        running.leave(f"secret{number}", request)
    assert running._requests == {}

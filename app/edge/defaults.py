"""The header lines that every answer has."""

from __future__ import annotations


class DefaultHeaders:
    """uvicorn's default headers (the date, renewed each second) as header lines, joined once a second."""

    def __init__(self) -> None:
        self._of: list[tuple[bytes, bytes]] = []
        self._lines = b""
        self._lines_without_date = b""

    def lines(self, headers: list[tuple[bytes, bytes]], *, has_date: bool) -> bytes:
        if headers is not self._of:
            lines = [(name, b"%b: %b\r\n" % (name, value)) for name, value in headers if name != b"server"]
            self._of = headers
            self._lines = b"".join(line for _, line in lines)
            self._lines_without_date = b"".join(line for name, line in lines if name != b"date")
        return self._lines_without_date if has_date else self._lines

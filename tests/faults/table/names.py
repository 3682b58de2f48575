"""A name service on a loopback address of its own, that answers, fails, or is mute; by the names it is asked for."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path
from typing import Self

ADDRESS = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 53}"
"""One for each run: another on the same machine has the same port."""
PORT = 53
SUFFIX = ".test"
FOUND, NOT_FOUND, FAILED, MUTE = "found", "not found", "failed", "mute"
CODES = {FOUND: 0, FAILED: 2, NOT_FOUND: 3}
A_RECORD = 1


class NameServer:
    """Every name is at 127.0.0.1; ``says`` is how it answers for one, ``asked`` counts."""

    def __init__(self) -> None:
        self.says: dict[str, str] = {}
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind((ADDRESS, PORT))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty message ends it.
        self._socket.sendto(b"", (ADDRESS, PORT))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(1500)
            if not query:
                return
            self.asked += 1
            answer = self._answer(query)
            if answer is not None:
                self._socket.sendto(answer, sender)

    def _answer(self, query: bytes) -> bytes | None:
        labels, at = [], 12
        while (length := query[at]) > 0:
            labels.append(query[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        question = query[12 : at + 5]
        (kind,) = struct.unpack_from(">H", query, at + 1)
        says = self.says.get(".".join(labels), FOUND)
        if says == MUTE:
            return None
        is_told = says == FOUND and kind == A_RECORD
        head = query[:2] + struct.pack(">HHHHH", 0x8180 | CODES[says], 1, int(is_told), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", A_RECORD, 1, 0, 4) + socket.inet_aton("127.0.0.1")
        return head + question + (record if is_told else b"")


def under_it(folder: Path) -> tuple[str, ...]:
    """What a command is run by whose system asks this server; it takes the right to mount."""
    folder.mkdir(parents=True, exist_ok=True)
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {ADDRESS}\noptions timeout:3 attempts:2\n")
    script = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")

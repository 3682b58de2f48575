"""Redis or Valkey: one server, a master with its sentinels, or a cluster.

Commands of the same turn of the event loop leave in one write, and answers are given out as they are
parsed. What can go wrong, and what then happens:

- one command is refused: its caller gets ``RedisReplyError``, nobody else notices;
- a script is not loaded (a restart, SCRIPT FLUSH): it is loaded and the call is sent again;
- the oldest call waits longer than ``timeout_s``: the connection is closed, since a late answer would
  be taken for another call's, and everyone in flight gets ``RedisUnavailable``;
- the connection is lost: the same, at once. Calls then fail without waiting until a new connection
  has answered a probe; posts are kept and sent again, oldest first, while they are young enough;
- the server turns out to be another one, or the same one started again: ``run_id_for`` says so before
  the first call to it, and scripts that were told the old run find out themselves;
- a cluster's slot has moved: the call is sent to where it is now, within the same timeout.
"""

from __future__ import annotations

from app.store.redis.address import Address, ClusterAddress, SentinelAddress, parse_url
from app.store.redis.calls import GAP, Argument, Form, RedisError, RedisReplyError, RedisUnavailable, Script
from app.store.redis.client import RedisClient
from app.store.redis.cluster import ClusterClient
from app.store.redis.connect import connect
from app.store.redis.protocol import OnState, Redis

__all__ = [
    "GAP",
    "Address",
    "Argument",
    "ClusterAddress",
    "ClusterClient",
    "Form",
    "OnState",
    "Redis",
    "RedisClient",
    "RedisError",
    "RedisReplyError",
    "RedisUnavailable",
    "Script",
    "SentinelAddress",
    "connect",
    "parse_url",
]

"""The cache of one process: a store, the calls in flight, and what was cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from app.cache.clears import Clears
from app.cache.entry import JSON_FORM, STREAM_FORM, Address, CacheStore, Entry, Look
from app.cache.forms import final_response, is_complete
from app.cache.inquiry import IDEMPOTENCY_FORM, Inquiry
from app.cache.leases import LOOK_EVERY_S, STREAM_WAIT_S_MAX, WAIT_S_MAX, Leases
from app.cache.memory import MemoryStore
from app.cache.sharing import Held, SharedAnswer
from app.cache.synthesis import stream_of
from app.core.clock import Clock
from app.core.errors import GatewayError, Headers
from app.core.exchange import Dialect
from app.core.identity import Principal
from app.core.ids import random_base62
from app.core.records import Outcome, Record

TOKEN_CHARS = 16
HELD_BYTES_MAX = 128 * 1024 * 1024
NOTHING = Look()
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]
STREAM_HEADERS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]


def _no_ending() -> bytes | None:
    """For answers that are no streams, or have not begun."""
    return None


class Lead(msgspec.Struct, eq=False):
    """The call is this request's to make: others who ask the same wait for its answer.

    ``token`` is by which it asked for the lease, ``holder`` by which it was given. ``change`` is the last change of
    the ledger that is known when it begins. ``record`` is what the call left on the bill, once it is settled, and
    ``outcome`` how the answer ended. ``entry`` is what was found instead of a call, for those who waited meanwhile;
    ``refusal`` why it was ``refused``, if it was. ``ending`` is the event that ends the stream here for somebody whose
    key is revoked, None where none can.
    """

    inquiry: Inquiry
    shared: SharedAnswer
    token: str
    change: int
    holder: str = ""
    record: Record | None = None
    outcome: Outcome = "failed"
    entry: Entry | None = None
    refusal: GatewayError | None = None
    refused: Principal | None = None
    ending: Callable[[], bytes | None] = _no_ending


class ResponseCache:
    """``secret`` (32 bytes) is of the deployment: digests are keyed with it.

    ``is_local``: the store answers at once, and nobody else uses it.
    """

    def __init__(self, store: CacheStore, secret: bytes, clock: Clock, *, is_local: bool) -> None:
        self.store = store
        self.secret = secret
        self.is_local = is_local
        self.clears = Clears()
        self._clock = clock
        self._held = Held(HELD_BYTES_MAX)
        self._leads: dict[Address, Lead] = {}
        self._once: dict[Address, str] = {}
        self._leases = Leases(store)
        self._process = random_base62(TOKEN_CHARS)
        self._numbers = 0

    def __repr__(self) -> str:
        return f"ResponseCache({self.store!r}, in_flight={len(self._leads)})"

    def start(self) -> None:
        self._leases.start()

    def resize(self, memory_bytes_max: int) -> None:
        """What is kept in memory may take so much from now on; a store elsewhere has bounds of its own."""
        if isinstance(self.store, MemoryStore):
            self.store.resize(memory_bytes_max)

    async def close(self) -> None:
        await self._leases.close()
        await self.store.close()

    # -- what is kept ---------------------------------------------------------------------------

    async def look(self, inquiry: Inquiry, token: str = "") -> Look:
        """What is kept for the request and may be told to it, in its form; with ``token`` else who is at work on it."""
        address = inquiry.address
        if address is None:
            return NOTHING
        if not inquiry.looks:
            return NOTHING
        found = await self.store.look(address, also=inquiry.also, token=token)
        entry = found.entry
        if entry is None:
            return found
        if self.may_tell(entry, inquiry):
            if found.form == address.form:
                return found
            made = self._as_stream(entry)
            if made is not None:
                if address.form == STREAM_FORM:
                    # Made once: it is as good as a recorded one, until one is recorded. Not where the form has options,
                    # as that would not be found by what makes it old.
                    self.store.keep(address, made)
                return Look(entry=made, form=address.form)
        # What is there may not be told any more, or cannot be told in this form.
        return await self.store.look(address, token=token, lease_only=True) if token else NOTHING

    def may_tell(self, entry: Entry, inquiry: Inquiry) -> bool:
        """Whether the entry is an answer to the request by now."""
        age_s = (self._clock.now_ms() - entry.made_at_ms) / 1000
        if age_s > inquiry.ttl_s or (inquiry.age_s_max is not None and age_s > inquiry.age_s_max):
            return False
        # What an Idempotency-Key stands for was promised: clearing the cache does not have it done twice.
        return bool(inquiry.request_digest) or not self.clears.takes(entry)

    def age_s(self, entry: Entry) -> int:
        return max(0, self._clock.now_ms() - entry.made_at_ms) // 1000

    def ttl_left_s(self, entry: Entry) -> int:
        return max(0, entry.expires_at_ms - self._clock.now_ms()) // 1000

    def keep(self, lead: Lead, dialect: Dialect, entry: Entry) -> bool:
        """Keep the whole answer of a call, if it may be; False where it may not. What an Idempotency-Key stands for
        may be any answer, so long as it is whole.
        """
        address = lead.inquiry.address
        if address is None:
            return False
        is_shared = address.form != IDEMPOTENCY_FORM
        form = STREAM_FORM if is_event_stream(entry.headers) else JSON_FORM
        if is_shared and not is_complete(dialect, form, entry.status, entry.headers, entry.body):
            return False
        derived = self._other_form(lead.inquiry, dialect, form, entry) if is_shared else None
        held = self._leases.remove(address, lead.token)
        self.store.keep(address, entry, token=lead.token if held else "", derived=derived)
        return True

    def _other_form(
        self, inquiry: Inquiry, dialect: Dialect, form: str, entry: Entry
    ) -> tuple[Address, Entry | None] | None:
        """The same answer told the other way, where that can be done; after a refresh what is there is old."""
        digest = inquiry.address.digest if inquiry.address is not None else b""
        body = final_response(entry.body) if form == STREAM_FORM and dialect == "responses" else None
        if body is not None:
            headers = _retyped(entry.headers, JSON_HEADERS)
            return Address(digest, JSON_FORM), msgspec.structs.replace(entry, body=body, headers=headers)
        if not inquiry.refreshes:
            return None
        return Address(digest, JSON_FORM if form == STREAM_FORM else STREAM_FORM), None

    def _as_stream(self, entry: Entry) -> Entry | None:
        body = stream_of(entry.body)
        if body is None:
            return None
        return msgspec.structs.replace(entry, body=body, headers=_retyped(entry.headers, STREAM_HEADERS))

    # -- calls in flight ------------------------------------------------------------------------

    def lead_of(self, inquiry: Inquiry) -> Lead | None:
        """The call in flight that the request may join."""
        if not inquiry.joins or inquiry.address is None:
            return None
        lead = self._leads.get(inquiry.address)
        if lead is None or not lead.shared.is_open:
            return None
        # One that began before the cache was cleared is not an answer to who asks after it.
        return None if self.clears.take_call(lead.change, inquiry.team_id, inquiry.models) else lead

    def at_work(self, inquiry: Inquiry) -> str:
        """By which token an Idempotency-Key is being carried out in this process; empty where it is not."""
        return "" if inquiry.address is None else self._once.get(inquiry.address, "")

    def new_token(self, inquiry: Inquiry) -> str:
        """By which a request takes a lease as it looks; empty where nobody else could have it. For an Idempotency-Key
        it names the request as well, so that another one with the key is told apart while the first one runs.
        """
        if not inquiry.looks or (self.is_local and not inquiry.request_digest):
            return ""
        self._numbers += 1
        return f"{self._process}.{self._numbers}:{inquiry.request_digest.hex()}"

    @contextmanager
    def leading(self, inquiry: Inquiry, shared: SharedAnswer, token: str = "", look: Look = NOTHING) -> Iterator[Lead]:
        """The request is the one to call, until the end of the block, whatever comes of it. ``look`` is what it found
        with ``token`` just now.
        """
        lead = Lead(inquiry, shared, token, self.clears.change, holder=look.holder)
        address = inquiry.address
        if address is not None and inquiry.joins:
            self._leads[address] = lead
            shared.on_shut = lambda: self._let_go(address, token)
        if address is not None and inquiry.request_digest:
            self._once[address] = token
        self._take(lead, look)
        try:
            yield lead
        finally:
            shared.close()
            if address is not None:
                if self._leads.get(address) is lead:
                    del self._leads[address]
                if self._once.get(address) == token:
                    del self._once[address]
                self._let_go(address, token)

    def let_go(self, lead: Lead) -> None:
        """The answer is not kept: whoever asks next, at whichever replica, makes a call of its own."""
        if lead.inquiry.address is not None:
            self._let_go(lead.inquiry.address, lead.token)

    def _let_go(self, address: Address, token: str) -> None:
        """Other replicas need not wait any longer."""
        if self._leases.remove(address, token):
            self.store.release(address, token)

    def give_back(self, inquiry: Inquiry, token: str, look: Look) -> None:
        """The lease that was taken with a look is not needed: the call is being made."""
        if token and look.holder == token and inquiry.address is not None:
            self.store.release(inquiry.address, token)

    def _take(self, lead: Lead, look: Look) -> None:
        lead.holder = look.holder
        if lead.token and look.holder == lead.token and lead.inquiry.address is not None:
            self._leases.add(lead.inquiry.address, lead.token)

    def new_answer(self, bytes_max: int, slow_client_s: float, common_of: Callable[[Headers], Headers]) -> SharedAnswer:
        """A place for an answer of up to ``bytes_max`` bytes that is kept while it is in flight."""
        shared = SharedAnswer(bytes_max=bytes_max, held=self._held, slow_client_s=slow_client_s)
        shared.common_of = common_of
        return shared

    async def wait_for_others(self, lead: Lead, has_left: Callable[[], bool]) -> Entry | None:
        """While another replica makes the call: what it kept; None once the call is this one's to make, as it has the
        lease, the other one takes too long, or the store is away. Ends early where its request ``has_left``.
        """
        form = JSON_FORM if lead.inquiry.address is None else lead.inquiry.address.form
        deadline_s = self._clock.monotonic_s() + (WAIT_S_MAX if form == JSON_FORM else STREAM_WAIT_S_MAX)
        while lead.holder not in {"", lead.token} and not has_left():
            if self._clock.monotonic_s() >= deadline_s:
                return None
            await asyncio.sleep(LOOK_EVERY_S)
            look = await self.look(lead.inquiry, lead.token)
            if look.entry is not None:
                return look.entry
            self._take(lead, look)
        return None


def is_event_stream(headers: Headers) -> bool:
    """Whether an answer with ``headers`` is an event stream."""
    for name, value in headers:
        if name == b"content-type":
            return value.lower().startswith(b"text/event-stream")
    return False


def _retyped(headers: Headers, replacement: Headers) -> Headers:
    return [header for header in headers if header[0] != b"content-type"] + replacement


def is_of_request(token: str, inquiry: Inquiry) -> bool:
    """Whether the lease of an Idempotency-Key was taken for this very request."""
    return token.rpartition(":")[2] == inquiry.request_digest.hex()

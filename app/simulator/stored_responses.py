"""The endpoints of responses that were made before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from app.simulator.background import is_background
from app.simulator.delivery import EVENT_STREAM
from app.simulator.errors import RequestRefused
from app.simulator.event_record import EventRecord
from app.simulator.identifiers import new_request_id
from app.simulator.items import decoded_input, input_items
from app.simulator.pages import page_of
from app.simulator.replay import replayed_events
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.background import BackgroundRuns
    from app.simulator.response_store import ResponseStore, StoredResponse
    from app.simulator.routes import Request, Routes

SEQUENCE_MAX = 10**9


class StoredResponses:
    """``GET``, ``DELETE``, ``cancel`` and ``input_items`` of ``/responses/{id}``."""

    def __init__(self, store: ResponseStore, runs: BackgroundRuns, clock: Clock) -> None:
        self._store = store
        self._runs = runs
        self._clock = clock

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "responses/{}", self.get)
        routes.add("DELETE", "responses/{}", self.delete)
        routes.add("POST", "responses/{}/cancel", self.cancel)
        routes.add("GET", "responses/{}/input_items", self.list_input_items)

    async def get(self, request: Request, response_id: str) -> Reply | None:
        """The response as it is now, or its events."""
        run = self._runs.find(response_id)
        if not request.flag("stream"):
            return Reply(self._found(response_id).data if run is None else run.data)
        first = request.number("starting_after", -1, 0, SEQUENCE_MAX) + 1
        if run is not None:
            record = run.record
        else:
            filled = request.text("include_obfuscation") not in ("false", "False")
            record = EventRecord(replayed_events(self._found(response_id), self._clock, filled=filled), ended=True)
        channel = request.channel
        await channel.start(200, [(b"content-type", EVENT_STREAM), (b"x-request-id", new_request_id())])
        if await record.follow(channel, first):
            await channel.finish()
        elif not channel.gone:
            # Nothing came for so long that it must not look like an end.
            await channel.cut(reset=False)
        return None

    async def delete(self, request: Request, response_id: str) -> Reply:
        """Forget a response; one that runs is ended."""
        del request
        run = self._runs.find(response_id)
        if run is not None:
            run.removed = True
            run.cancel()
        elif not self._store.remove(response_id):
            raise _not_found(response_id)
        return json_reply({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request, response_id: str) -> Reply:
        """End a response that runs in the background; one that has ended stays as it is."""
        del request
        run = self._runs.find(response_id)
        if run is not None:
            run.cancel()
            return Reply(run.data)
        data = self._found(response_id).data
        response: dict[str, Any] = msgspec.json.decode(data)
        if not is_background(response):
            raise RequestRefused(400, "Cannot cancel a synchronous response.")
        return Reply(data)

    async def list_input_items(self, request: Request, response_id: str) -> Reply:
        """What the response was asked, without what it went on from."""
        run = self._runs.find(response_id)
        given = self._found(response_id).given if run is None else run.given
        return json_reply(page_of(input_items(decoded_input(given), response_id), request))

    def _found(self, response_id: str) -> StoredResponse:
        stored = self._store.find(response_id)
        if stored is None:
            raise _not_found(response_id)
        return stored


def _not_found(response_id: str) -> RequestRefused:
    return RequestRefused(404, f"Response with id '{response_id}' not found.")

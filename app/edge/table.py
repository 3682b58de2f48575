"""The endpoint table: every method and path of the API that a key can be given, family by family.

What costs leaves a record; what creates something is owned by its team from then on; what a path names in braces
must be the team's. A key that is not given families has those that are on by default. Not in the table, so that
nobody has them by their name: what administers the provider's account (``/organization``, ``/projects``, webhooks,
vaults), and what hands out credentials that go past the gateway (``/realtime/client_secrets`` and the like).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from app.core.exchange import Dialect, Endpoint

Body: TypeAlias = Literal["", "json", "form", "json form", "upload"]


class Family(msgspec.Struct, frozen=True):
    """A part of the API that is given to a key or not. ``on``: it is there for keys to which nothing was given."""

    name: str
    on: bool
    endpoints: tuple[Endpoint, ...]


class _Rows:
    """Writes a family down, a line for each path."""

    def __init__(self, name: str, *, on: bool) -> None:
        self._name = name
        self._on = on
        self._endpoints: list[Endpoint] = []

    def costs(
        self,
        path: str,
        *,
        body: Body = "json",
        dialect: Dialect = "other",
        creates: str = "",
        learns: str = "",
        cacheable: bool = False,
    ) -> _Rows:
        """A POST that is billed."""
        endpoint = Endpoint(self._name, "POST", path, True, dialect, body, creates, learns=learns, cacheable=cacheable)
        self._endpoints.append(endpoint)
        return self

    def creates(self, path: str, kind: str, *, body: Body = "json", unbilled: bool = False) -> _Rows:
        """A POST that costs nothing by itself, and whose answer's ``id`` is the team's. ``unbilled``: what it makes
        runs by itself, at a cost that is on no bill here.
        """
        self._endpoints.append(Endpoint(self._name, "POST", path, body=body, creates=kind, unbilled=unbilled))
        return self

    def lists(self, path: str, kind: str, *filters: str) -> _Rows:
        """A GET that lists all there is of a kind: of the account, so the gateway answers it with the team's own.
        ``filters`` are members by which a list can be narrowed.
        """
        self._endpoints.append(Endpoint(self._name, "GET", path, lists=kind, filters=filters))
        return self

    def reads(self, *paths: str, learns: str = "") -> _Rows:
        """A GET of something owned, or of what belongs to it; ``learns`` is the kind of what it lists, if no client can
        have brought an id into that.
        """
        self._endpoints += [Endpoint(self._name, "GET", path, learns=learns) for path in paths]
        return self

    def deletes(self, *paths: str) -> _Rows:
        self._endpoints += [Endpoint(self._name, "DELETE", path) for path in paths]
        return self

    def acts(self, *paths: str, body: Body = "json", unbilled: bool = False) -> _Rows:
        """A POST that changes something owned, or asks without cost, unless ``unbilled``."""
        self._endpoints += [Endpoint(self._name, "POST", path, body=body, unbilled=unbilled) for path in paths]
        return self

    def family(self) -> Family:
        return Family(self._name, self._on, tuple(self._endpoints))


def _on(name: str) -> _Rows:
    return _Rows(name, on=True)


def _off(name: str) -> _Rows:
    return _Rows(name, on=False)


GENERATING = (
    _on("responses")
    .costs("/responses", dialect="responses", creates="response", learns="item", cacheable=True)
    .costs("/responses/compact", dialect="responses", creates="response")
    .acts("/responses/input_tokens")
    .reads("/responses/{response}", learns="item")
    .reads("/responses/{response}/input_items")
    .deletes("/responses/{response}")
    .acts("/responses/{response}/cancel")
    .family(),
    _on("chat")
    .costs("/chat/completions", dialect="chat", creates="completion", cacheable=True)
    .lists("/chat/completions", "completion", "model", "metadata")
    .reads("/chat/completions/{completion}", "/chat/completions/{completion}/messages")
    .acts("/chat/completions/{completion}")
    .deletes("/chat/completions/{completion}")
    .family(),
    _on("completions").costs("/completions", dialect="chat").family(),
    _on("embeddings").costs("/embeddings", dialect="embeddings", cacheable=True).family(),
    _on("models").reads("/models", "/models/<model>").family(),
    _on("moderations").acts("/moderations").family(),
    _on("conversations")
    .creates("/conversations", "conversation")
    .reads("/conversations/{conversation}", "/conversations/{conversation}/items")
    .reads("/conversations/{conversation}/items/<item>")
    .acts("/conversations/{conversation}", "/conversations/{conversation}/items")
    .deletes("/conversations/{conversation}", "/conversations/{conversation}/items/<item>")
    .family(),
    _on("images")
    .costs("/images/generations")
    .costs("/images/edits", body="json form")
    .costs("/images/variations", body="form")
    .family(),
    _on("audio")
    .costs("/audio/speech")
    .costs("/audio/transcriptions", body="form")
    .costs("/audio/translations", body="form")
    .family(),
)

STORING = (
    _off("files")
    .creates("/files", "file", body="upload")
    .lists("/files", "file", "purpose")
    .reads("/files/{file}", "/files/{file}/content")
    .deletes("/files/{file}")
    .family(),
    _off("uploads")
    .creates("/uploads", "upload")
    .creates("/uploads/{upload}/parts", "part", body="upload")
    .acts("/uploads/{upload}/complete", "/uploads/{upload}/cancel")
    .family(),
    _off("vector_stores")
    .creates("/vector_stores", "vector_store", unbilled=True)
    .lists("/vector_stores", "vector_store")
    .reads("/vector_stores/{vector_store}", "/vector_stores/{vector_store}/files")
    .reads("/vector_stores/{vector_store}/files/{file}", "/vector_stores/{vector_store}/files/{file}/content")
    .acts("/vector_stores/{vector_store}")
    .acts("/vector_stores/{vector_store}/search", unbilled=True)
    .acts("/vector_stores/{vector_store}/files", "/vector_stores/{vector_store}/files/{file}")
    .deletes("/vector_stores/{vector_store}", "/vector_stores/{vector_store}/files/{file}")
    .creates("/vector_stores/{vector_store}/file_batches", "file_batch")
    .reads("/vector_stores/{vector_store}/file_batches/{file_batch}")
    .reads("/vector_stores/{vector_store}/file_batches/{file_batch}/files")
    .acts("/vector_stores/{vector_store}/file_batches/{file_batch}/cancel")
    .family(),
    _off("containers")
    .creates("/containers", "container", unbilled=True)
    .lists("/containers", "container", "name")
    .reads("/containers/{container}", "/containers/{container}/files/<file>")
    .reads("/containers/{container}/files", learns="container_file")
    .reads("/containers/{container}/files/<file>/content")
    .creates("/containers/{container}/files", "container_file", body="json form")
    .deletes("/containers/{container}", "/containers/{container}/files/<file>")
    .family(),
    _off("skills")
    .creates("/skills", "skill", body="form")
    .lists("/skills", "skill")
    .reads("/skills/{skill}", "/skills/{skill}/content", "/skills/{skill}/versions")
    .reads("/skills/{skill}/versions/<version>", "/skills/{skill}/versions/<version>/content")
    .acts("/skills/{skill}")
    .acts("/skills/{skill}/versions", body="form")
    .deletes("/skills/{skill}", "/skills/{skill}/versions/<version>")
    .family(),
)

WORKING = (
    _off("batches")
    .creates("/batches", "batch", unbilled=True)
    .lists("/batches", "batch")
    .reads("/batches/{batch}")
    .acts("/batches/{batch}/cancel")
    .family(),
    _off("fine_tuning")
    .creates("/fine_tuning/jobs", "job", unbilled=True)
    .lists("/fine_tuning/jobs", "job", "metadata")
    .reads("/fine_tuning/jobs/{job}", "/fine_tuning/jobs/{job}/events", "/fine_tuning/jobs/{job}/checkpoints")
    .acts("/fine_tuning/jobs/{job}/cancel", "/fine_tuning/jobs/{job}/pause", "/fine_tuning/jobs/{job}/resume")
    .acts("/fine_tuning/alpha/graders/run", unbilled=True)
    .acts("/fine_tuning/alpha/graders/validate")
    .deletes("/models/{model}")
    .family(),
    _off("evals")
    .creates("/evals", "eval")
    .lists("/evals", "eval")
    .reads("/evals/{eval}", "/evals/{eval}/runs/{run}", "/evals/{eval}/runs/{run}/output_items")
    .reads("/evals/{eval}/runs")
    .reads("/evals/{eval}/runs/{run}/output_items/<item>")
    .acts("/evals/{eval}", "/evals/{eval}/runs/{run}")
    .creates("/evals/{eval}/runs", "run", unbilled=True)
    .deletes("/evals/{eval}", "/evals/{eval}/runs/{run}")
    .acts("/evals/{eval}/runs/{run}/cancel")
    .family(),
    _off("videos")
    .costs("/videos", body="json form", creates="video")
    .costs("/videos/edits", body="json form", creates="video")
    .costs("/videos/extensions", body="json form", creates="video")
    .costs("/videos/{video}/remix", creates="video")
    .lists("/videos", "video")
    .reads("/videos/{video}", "/videos/{video}/content")
    .deletes("/videos/{video}")
    .creates("/videos/characters", "character", body="form")
    .reads("/videos/characters/{character}")
    .family(),
    _off("assistants")
    .creates("/assistants", "assistant")
    .lists("/assistants", "assistant")
    .reads("/assistants/{assistant}")
    .acts("/assistants/{assistant}")
    .deletes("/assistants/{assistant}")
    .family(),
    # Its only path is a WebSocket, which is passed on as it is: what it costs is on no bill here.
    _off("realtime").family(),
    _off("threads")
    .creates("/threads", "thread")
    .reads("/threads/{thread}", "/threads/{thread}/messages/<message>")
    .reads("/threads/{thread}/messages", "/threads/{thread}/runs")
    .acts("/threads/{thread}", "/threads/{thread}/messages/<message>")
    .creates("/threads/{thread}/messages", "message")
    .deletes("/threads/{thread}", "/threads/{thread}/messages/<message>")
    .costs("/threads/runs", creates="run")
    .costs("/threads/{thread}/runs", creates="run")
    .reads("/threads/{thread}/runs/<run>", "/threads/{thread}/runs/<run>/steps")
    .reads("/threads/{thread}/runs/<run>/steps/<step>")
    .acts("/threads/{thread}/runs/<run>", "/threads/{thread}/runs/<run>/cancel")
    .costs("/threads/{thread}/runs/<run>/submit_tool_outputs")
    .family(),
)

FAMILIES = (*GENERATING, *STORING, *WORKING)

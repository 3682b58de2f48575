"""``/vector_stores`` with the files in them, and a search that looks for words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.simulator.errors import RequestRefused, refuse_missing, refuse_type, refuse_value
from app.simulator.identifiers import random_hex
from app.simulator.pages import page_of
from app.simulator.resources.table import Collection, Kind
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.simulator.resources.file_store import FileStore
    from app.simulator.resources.table import Key, Members, Tables
    from app.simulator.routes import Request, Routes

STORES = "vector_stores"
FILES = "vector_stores/{}/files"
BATCHES = "vector_stores/{}/file_batches"
SEARCHED_BYTES_MAX = 64 * 1024
RESULTS_MAX = 50
RESULTS = 10
BATCH_FILES_MAX = 500
COMPLETED = "completed"

STORE_KIND = Kind(STORES, "vs_", "vector_store", members={"name": "", "status": COMPLETED, "expires_after": None})


class VectorStores(Collection):
    """The stores themselves are plain objects; their counts are those of their files."""

    def __init__(self, tables: Tables, files: FileStore) -> None:
        super().__init__(STORE_KIND, tables)
        self._files = files

    def add_to(self, routes: Routes) -> None:
        super().add_to(routes)
        routes.add("POST", f"{STORES}/{{}}/search", self.search)
        routes.add("POST", FILES, self.add_file)
        routes.add("GET", FILES, self.list_files)
        routes.add("GET", f"{FILES}/{{}}", self.get_file)
        routes.add("POST", f"{FILES}/{{}}", self.update_file)
        routes.add("DELETE", f"{FILES}/{{}}", self.delete_file)
        routes.add("GET", f"{FILES}/{{}}/content", self.file_content)
        routes.add("POST", BATCHES, self.add_files)
        routes.add("GET", f"{BATCHES}/{{}}", self.get_batch)
        routes.add("POST", f"{BATCHES}/{{}}/cancel", self.get_batch)
        routes.add("GET", f"{BATCHES}/{{}}/files", self.list_batch)

    async def create(self, request: Request, *parents: str) -> Reply:
        del parents
        members = await request.members()
        file_ids = _file_ids(members.pop("file_ids", None) or [])
        for file_id in file_ids:
            self._files.find(file_id)
        store_id = f"vs_{random_hex(32)}"
        shown: Members = {
            "id": store_id,
            "object": "vector_store",
            "created_at": self._tables.now_s(),
            "last_active_at": self._tables.now_s(),
            "metadata": {},
            **STORE_KIND.members,
            **{name: value for name, value in members.items() if name != "id"},
        }
        self._tables.keep((STORES, store_id), shown)
        for file_id in file_ids:
            self._add(store_id, file_id, {})
        return await self.get(request, store_id)

    async def get(self, request: Request, *ids: str) -> Reply:
        del request
        return json_reply(self._counted(self._tables.found((STORES, *ids))))

    async def list(self, request: Request, *parents: str) -> Reply:
        del parents
        return json_reply(page_of([self._counted(shown) for shown in self._tables.below((STORES,))], request))

    async def update(self, request: Request, *ids: str) -> Reply:
        await super().update(request, *ids)
        return await self.get(request, *ids)

    async def add_file(self, request: Request, store_id: str) -> Reply:
        members = await request.members()
        self._tables.found((STORES, store_id))
        file_id = members.get("file_id")
        if not isinstance(file_id, str):
            refuse_missing("file_id")
        return json_reply(self._add(store_id, file_id, members.get("attributes") or {}))

    async def list_files(self, request: Request, store_id: str) -> Reply:
        self._tables.found((STORES, store_id))
        return json_reply(page_of(self._tables.below((FILES, store_id)), request))

    async def get_file(self, request: Request, store_id: str, file_id: str) -> Reply:
        del request
        return json_reply(self._tables.found((FILES, store_id, file_id)))

    async def update_file(self, request: Request, store_id: str, file_id: str) -> Reply:
        members = await request.members()
        shown = self._tables.found((FILES, store_id, file_id))
        shown["attributes"] = members.get("attributes") or {}
        return json_reply(shown)

    async def delete_file(self, request: Request, store_id: str, file_id: str) -> Reply:
        del request
        self._tables.found((FILES, store_id, file_id))
        self._tables.remove((FILES, store_id, file_id))
        return json_reply({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})

    async def file_content(self, request: Request, store_id: str, file_id: str) -> Reply:
        del request
        self._tables.found((FILES, store_id, file_id))
        text = self._text(file_id)
        page = {"object": "vector_store.file_content.page", "data": [{"type": "text", "text": text}]}
        return json_reply({**page, "has_more": False, "next_page": None})

    async def add_files(self, request: Request, store_id: str) -> Reply:
        members = await request.members()
        self._tables.found((STORES, store_id))
        files = members.get("files")
        named = [file.get("file_id") if isinstance(file, dict) else None for file in files or []]
        file_ids = _file_ids(members.get("file_ids") or named)
        for file_id in file_ids:
            self._files.find(file_id)
        for file_id in file_ids:
            self._add(store_id, file_id, members.get("attributes") or {})
        shown: Members = {
            "id": f"vsfb_{random_hex(32)}",
            "object": "vector_store.files_batch",
            "created_at": self._tables.now_s(),
            "vector_store_id": store_id,
            "status": COMPLETED,
            "file_counts": _counts(len(file_ids)),
        }
        self._tables.keep((BATCHES, store_id, shown["id"]), shown)
        self._tables.keep((BATCHES, store_id, shown["id"], FILES), {"file_ids": file_ids})
        return json_reply(shown)

    async def get_batch(self, request: Request, store_id: str, batch_id: str) -> Reply:
        """Cancelling gives the same: a batch is complete at once."""
        del request
        return json_reply(self._tables.found((BATCHES, store_id, batch_id)))

    async def list_batch(self, request: Request, store_id: str, batch_id: str) -> Reply:
        wanted = self._tables.found((BATCHES, store_id, batch_id, FILES))["file_ids"]
        shown = [file for file in self._tables.below((FILES, store_id)) if file["id"] in wanted]
        return json_reply(page_of(shown, request))

    async def search(self, request: Request, store_id: str) -> Reply:
        """Files by how many words of the query they hold."""
        members = await request.members()
        self._tables.found((STORES, store_id))
        query = members.get("query")
        if not query:
            refuse_missing("query")
        queries = query if isinstance(query, list) else [query]
        limit = members.get("max_num_results") or RESULTS
        if not isinstance(limit, int) or not 1 <= limit <= RESULTS_MAX:
            refuse_value("max_num_results", f"Invalid 'max_num_results': expected 1 to {RESULTS_MAX}.")
        words = {word for text in queries for word in str(text).lower().split()}
        found = [self._result(shown, words) for shown in self._tables.below((FILES, store_id))]
        found.sort(key=lambda result: -result["score"])
        page = {"object": "vector_store.search_results.page", "search_query": queries, "data": found[:limit]}
        return json_reply({**page, "has_more": False, "next_page": None})

    def _result(self, shown: Members, words: set[str]) -> Members:
        text = self._text(shown["id"])
        held = sum(word in text.lower() for word in words)
        return {
            "file_id": shown["id"],
            "filename": self._files.find(shown["id"]).shown["filename"],
            "score": held / max(len(words), 1),
            "attributes": shown["attributes"],
            "content": [{"type": "text", "text": text}],
        }

    def _text(self, file_id: str) -> str:
        """The beginning of a file; nothing of one that has been deleted."""
        try:
            return self._files.find(file_id).content.read(0, SEARCHED_BYTES_MAX).decode("utf-8", "replace")
        except RequestRefused:
            return ""

    def _add(self, store_id: str, file_id: str, attributes: Any) -> Members:
        size = self._files.find(file_id).content.size
        shown: Members = {
            "id": file_id,
            "object": "vector_store.file",
            "created_at": self._tables.now_s(),
            "usage_bytes": size,
            "vector_store_id": store_id,
            "status": COMPLETED,
            "last_error": None,
            "attributes": attributes,
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
            },
        }
        key: Key = (FILES, store_id, file_id)
        self._tables.keep(key, shown)
        return shown

    def _counted(self, shown: Members) -> Members:
        files = self._tables.below((FILES, shown["id"]))
        usage = sum(file["usage_bytes"] for file in files)
        return {**shown, "usage_bytes": usage, "file_counts": _counts(len(files))}


def _file_ids(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(file_id, str) for file_id in given):
        refuse_type("file_ids", "an array of strings", given)
    if len(given) > BATCH_FILES_MAX:
        refuse_value("file_ids", f"Invalid 'file_ids': at most {BATCH_FILES_MAX}.", "array_above_max_length")
    return given


def _counts(files: int) -> dict[str, int]:
    return {"in_progress": 0, "completed": files, "failed": 0, "cancelled": 0, "total": files}

"""``/files``, and ``/uploads``, which bring a file in parts."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from app.simulator.errors import RequestRefused, refuse_missing, refuse_type, refuse_value
from app.simulator.identifiers import random_hex
from app.simulator.pages import page_of
from app.simulator.resources.blobs import BLOB_BYTES_MAX, PIECE_BYTES, Blob, send_content
from app.simulator.resources.multipart import read_form
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.resources.file_store import FileStore
    from app.simulator.routes import Request, Routes

LISTED_FILES_MAX = 10_000
UPLOADS_MAX = 100
UPLOAD_PARTS_MAX = 1000
UPLOAD_S = 3600
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")


class Files:
    """``/files``."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", "files", self.create)
        routes.add("GET", "files", self.list)
        routes.add("GET", "files/{}", self.get)
        routes.add("DELETE", "files/{}", self.delete)
        routes.add("GET", "files/{}/content", self.content)

    async def create(self, request: Request) -> Reply:
        form = await read_form(request)
        try:
            purpose = form.field("purpose")
            if purpose not in PURPOSES:
                refuse_value("purpose", f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'")
            seconds = form.fields.get("expires_after[seconds]", "")
            file = form.file("file")
        finally:
            form.close()
        expires_s = int(seconds) if seconds.isascii() and seconds.isdigit() else None
        return json_reply(self._store.keep(file.blob, file.filename, purpose, expires_s))

    async def list(self, request: Request) -> Reply:
        purpose = request.text("purpose")
        shown = [file for file in self._store.shown() if purpose in (None, file["purpose"])]
        return json_reply(page_of(shown, request, items_max=LISTED_FILES_MAX, items_default=LISTED_FILES_MAX))

    async def get(self, request: Request, file_id: str) -> Reply:
        del request
        return json_reply(self._store.find(file_id).shown)

    async def delete(self, request: Request, file_id: str) -> Reply:
        del request
        self._store.find(file_id)
        self._store.remove(file_id)
        return json_reply({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: Request, file_id: str) -> None:
        await send_content(request, self._store.find(file_id).content)


class Uploads:
    """``/uploads``: the newest are kept until they are complete."""

    def __init__(self, store: FileStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._uploads: OrderedDict[str, tuple[dict[str, Any], dict[str, Blob]]] = OrderedDict()

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", "uploads", self.create)
        routes.add("POST", "uploads/{}/parts", self.add_part)
        routes.add("POST", "uploads/{}/complete", self.complete)
        routes.add("POST", "uploads/{}/cancel", self.cancel)

    async def create(self, request: Request) -> Reply:
        members = await request.members()
        for name in ("filename", "purpose", "bytes", "mime_type"):
            if members.get(name) is None:
                refuse_missing(name)
        size = members["bytes"]
        if not isinstance(size, int) or not 0 <= size <= BLOB_BYTES_MAX:
            refuse_value("bytes", f"Invalid 'bytes': expected an integer from 0 to {BLOB_BYTES_MAX}.")
        created_s = self._clock.now_ms() // 1000
        upload = {
            "id": f"upload_{random_hex(32)}",
            "object": "upload",
            "bytes": size,
            "created_at": created_s,
            "expires_at": created_s + UPLOAD_S,
            "filename": members["filename"],
            "purpose": members["purpose"],
            "status": "pending",
            "file": None,
        }
        self._uploads[upload["id"]] = (upload, {})
        if len(self._uploads) > UPLOADS_MAX:
            _drop(self._uploads.popitem(last=False)[1][1])
        return json_reply(upload)

    async def add_part(self, request: Request, upload_id: str) -> Reply:
        form = await read_form(request)
        try:
            upload, parts = self._pending(upload_id)
            file = form.file("data")
        finally:
            form.close()
        told = sum(part.size for part in parts.values()) + file.blob.size
        if told > upload["bytes"] or len(parts) >= UPLOAD_PARTS_MAX:
            file.blob.close()
            raise RequestRefused(400, f"The parts of upload {upload_id} are more than its {upload['bytes']} bytes.")
        part_id = f"part_{random_hex(32)}"
        parts[part_id] = file.blob
        created_s = self._clock.now_ms() // 1000
        return json_reply({"id": part_id, "object": "upload.part", "created_at": created_s, "upload_id": upload_id})

    async def complete(self, request: Request, upload_id: str) -> Reply:
        members = await request.members()
        upload, parts = self._pending(upload_id)
        part_ids = members.get("part_ids")
        if not isinstance(part_ids, list):
            refuse_type("part_ids", "an array", part_ids)
        chosen = [parts.get(part_id) if isinstance(part_id, str) else None for part_id in part_ids]
        whole = [part for part in chosen if part is not None]
        if len(whole) != len(chosen) or sum(part.size for part in whole) != upload["bytes"]:
            refuse_value("part_ids", f"The parts do not make up the {upload['bytes']} bytes of the upload.")
        upload["file"] = self._store.keep(_joined(whole), upload["filename"], upload["purpose"])
        upload["status"] = "completed"
        _drop(parts)
        return json_reply(upload)

    async def cancel(self, request: Request, upload_id: str) -> Reply:
        del request
        upload, parts = self._pending(upload_id)
        upload["status"] = "cancelled"
        _drop(parts)
        return json_reply(upload)

    def close(self) -> None:
        """Give the disk's room back."""
        for _, parts in self._uploads.values():
            _drop(parts)

    def _pending(self, upload_id: str) -> tuple[dict[str, Any], dict[str, Blob]]:
        found = self._uploads.get(upload_id)
        if found is None:
            raise RequestRefused(404, f"No such Upload object: {upload_id}", param="upload_id")
        if found[0]["status"] != "pending":
            raise RequestRefused(400, f"Upload {upload_id} is {found[0]['status']}.", param="upload_id")
        return found


def _joined(parts: list[Blob]) -> Blob:
    blob = Blob()
    for part in parts:
        for offset in range(0, part.size, PIECE_BYTES):
            blob.write(part.read(offset, PIECE_BYTES))
    return blob


def _drop(parts: dict[str, Blob]) -> None:
    for part in parts.values():
        part.close()
    parts.clear()

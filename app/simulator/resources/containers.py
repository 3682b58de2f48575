"""``/containers`` and the files in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.simulator.errors import refuse_missing
from app.simulator.identifiers import random_hex
from app.simulator.pages import page_of
from app.simulator.resources.blobs import Blob, send_content
from app.simulator.resources.multipart import read_form
from app.simulator.resources.table import Collection, Kind
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.simulator.resources.file_store import FileStore
    from app.simulator.resources.table import Members, Tables
    from app.simulator.routes import Request, Routes

FILES = "containers/{}/files"
CONTAINER_PURPOSE = "container"
CONTAINER_KIND = Kind(
    "containers",
    "cntr_",
    "container",
    needs=("name",),
    members={
        "status": "running",
        "expires_after": {"anchor": "last_active_at", "minutes": 20},
        "memory_limit": "1g",
        "network_policy": {"type": "disabled"},
    },
)


class Containers(Collection):
    """Containers run nothing; their files are those of ``/files`` under another name."""

    def __init__(self, tables: Tables, files: FileStore) -> None:
        super().__init__(CONTAINER_KIND, tables)
        self._files = files

    def add_to(self, routes: Routes) -> None:
        super().add_to(routes)
        routes.add("POST", FILES, self.add_file)
        routes.add("GET", FILES, self.list_files)
        routes.add("GET", f"{FILES}/{{}}", self.get_file)
        routes.add("DELETE", f"{FILES}/{{}}", self.delete_file)
        routes.add("GET", f"{FILES}/{{}}/content", self.content)

    async def add_file(self, request: Request, container_id: str) -> Reply:
        """A file of a form, or a copy of one that was uploaded."""
        self._tables.found((CONTAINER_KIND.pattern, container_id))
        if request.headers.get(b"content-type", b"").startswith(b"multipart/"):
            form = await read_form(request)
            try:
                if "file_id" in form.fields and not form.files:
                    return self._copy(container_id, form.fields["file_id"])
                file = form.file("file")
            finally:
                form.close()
            return self._keep(container_id, file.blob, file.filename, "user")
        file_id = (await request.members()).get("file_id")
        if not isinstance(file_id, str):
            refuse_missing("file_id")
        return self._copy(container_id, file_id)

    async def list_files(self, request: Request, container_id: str) -> Reply:
        self._tables.found((CONTAINER_KIND.pattern, container_id))
        return json_reply(page_of(self._tables.below((FILES, container_id)), request))

    async def get_file(self, request: Request, container_id: str, file_id: str) -> Reply:
        del request
        return json_reply(self._tables.found((FILES, container_id, file_id)))

    async def delete_file(self, request: Request, container_id: str, file_id: str) -> Reply:
        del request
        self._tables.found((FILES, container_id, file_id))
        self._tables.remove((FILES, container_id, file_id))
        self._files.remove(file_id)
        return json_reply({"id": file_id, "object": "container.file.deleted", "deleted": True})

    async def content(self, request: Request, container_id: str, file_id: str) -> None:
        self._tables.found((FILES, container_id, file_id))
        await send_content(request, self._files.find(file_id).content)

    def _copy(self, container_id: str, file_id: str) -> Reply:
        stored = self._files.find(file_id)
        blob = Blob()
        while blob.size < stored.content.size:
            blob.write(stored.content.read(blob.size, 256 * 1024))
        return self._keep(container_id, blob, stored.shown["filename"], "user")

    def _keep(self, container_id: str, blob: Blob, filename: str, source: str) -> Reply:
        file_id = f"cfile_{random_hex(32)}"
        self._files.keep(blob, filename, CONTAINER_PURPOSE, file_id=file_id)
        shown: Members = {
            "id": file_id,
            "object": "container.file",
            "created_at": self._tables.now_s(),
            "bytes": blob.size,
            "container_id": container_id,
            "path": f"/mnt/data/{filename}",
            "source": source,
        }
        self._tables.keep((FILES, container_id, file_id), shown)
        return json_reply(shown)

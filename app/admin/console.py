"""The console's pages and files: read once at start, served from memory, nothing looked up on disk by a path."""

from __future__ import annotations

import hashlib
import posixpath
import re
from pathlib import Path, PurePosixPath

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import __version__

FOLDER = Path(__file__).with_name("console")
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
GUARDS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
ADDRESS = "/console/assets/"
_IMPORT = re.compile(r"^(?:import|export)\b[^'\n]*'(\.[^']+)'", re.MULTILINE)
PRELOADS = "the modules of this page"
SHEETS = ("tokens", "layout", "components", "charts")
"""In this order, and before those of the views."""
EVERY_SHEET = "css/all.css"


class Asset(msgspec.Struct, frozen=True):
    """One file as it goes out."""

    body: bytes
    media_type: str
    etag: str


class Assets:
    """Every file of the console, by its path below ``/console/assets/``.

    ``digest`` is of all of them. It stands in the address of each, so that a browser may keep what it has read for
    good and one page never mixes the modules of two versions.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Asset] = {}
        whole = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            if path.suffix not in TYPES:
                continue
            name, body = path.relative_to(folder).as_posix(), path.read_bytes()
            whole.update(name.encode() + b"\0" + body)
            self.files[name] = Asset(body, TYPES[path.suffix], _etag(body))
        self.files[EVERY_SHEET] = self._sheet()
        self.digest = whole.hexdigest()[:16]
        self._shell = (folder / "index.html").read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return f"Assets({len(self.files)} files, {self.digest})"

    def page(self, view: str) -> Asset:
        """The shell, with the modules that ``view`` needs named in its head: a browser asks for all of them at once.

        Not in links of their own, which a browser would follow before it runs the first script: ``early.js`` asks the
        API first, and for these then.
        """
        modules = self._imported_by("js/main.js", f"js/views/{view}.js")
        shell = self._shell.replace(PRELOADS, " ".join(modules))
        body = shell.replace(ADDRESS, f"{ADDRESS}{self.digest}/").encode()
        return Asset(body, "text/html; charset=utf-8", _etag(body))

    def _sheet(self) -> Asset:
        """All sheets in one: what a page is drawn with is one question."""
        names = [f"css/{name}.css" for name in SHEETS] + [name for name in self.files if name.startswith("css/views/")]
        body = b"\n".join(self.files[name].body for name in names)
        return Asset(body, TYPES[".css"], _etag(body))

    def _imported_by(self, *names: str) -> list[str]:
        """The modules that are needed before the first line of these can run: theirs, and those of theirs."""
        found: list[str] = []
        waiting = [name for name in names if name in self.files]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.append(name)
            text = self.files[name].body.decode()
            folder = PurePosixPath(name).parent
            waiting += [posixpath.normpath(folder / target) for target in _IMPORT.findall(text)]
        return sorted(found)


def mount_console(app: FastAPI) -> None:
    """Add ``/``, ``/console/…`` and the console's files to the control plane."""
    assets = Assets(FOLDER)
    views = {name[len("js/views/") : -len(".js")] for name in assets.files if name.startswith("js/views/")}
    pages = {view: assets.page(view) for view in views | {"overview"}}
    start = assets.page("")

    async def read_root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return _answer(request, pages["overview"], "no-cache", {"vary": "accept"})
        about = {"name": "headgate", "version": __version__, "api": "/v1", "health": "/healthz"}
        return JSONResponse(about, headers={"vary": "accept"})

    async def lead_home(request: Request) -> Response:
        # A path, not an address: whoever stands before this gateway knows its name better than it does.
        query = request.scope["query_string"].decode("latin-1")
        location = f"/?{query}" if query else "/"
        return Response(status_code=308, headers={**GUARDS, "location": location, "cache-control": "no-cache"})

    async def read_view(request: Request) -> Response:
        return _answer(request, pages.get(request.path_params["view"], start), "no-cache", {})

    async def read_asset(request: Request) -> Response:
        digest, _, name = request.path_params["path"].partition("/")
        asset = assets.files.get(name) if digest == assets.digest else assets.files.get(request.path_params["path"])
        if asset is None:
            raise HTTPException(404)
        lasting = "public, max-age=31536000, immutable" if digest == assets.digest else "no-cache"
        return _answer(request, asset, lasting, {})

    app.add_route("/", read_root, include_in_schema=False)
    app.add_route("/console", lead_home, include_in_schema=False)
    app.add_route("/console/", lead_home, include_in_schema=False)
    app.add_route(ADDRESS + "{path:path}", read_asset, include_in_schema=False)
    app.add_route("/console/{view}", read_view, include_in_schema=False)
    app.add_route("/console/{view}/{item}", read_view, include_in_schema=False)


def _answer(request: Request, asset: Asset, lasting: str, more: dict[str, str]) -> Response:
    headers = {**GUARDS, "etag": asset.etag, "cache-control": lasting, **more}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'

"""The web server of the page: thin routes over `augbench.studio.app.Studio`, for this machine alone.

It listens on 127.0.0.1 and nothing else. A browser sends requests of other sites' pages to it, too: such requests are
refused by their headers (``Host``, ``Origin``, ``Sec-Fetch-Site``), and a body must be JSON or PNG by its type, which
no plain form of another site can send. The page loads nothing from elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, validate_call

from augbench.core.errors import UserError
from augbench.report.render.self_contained import BASE, asset
from augbench.studio.app import Studio
from augbench.studio.review import Conflict

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
NAMES = {"127.0.0.1", "localhost"}  # of this machine; an SSH tunnel has another port, and one of these names
MOST_BYTES = 8_000_000  # of a body
INSTALL = "augbench studio needs starlette and uvicorn: pip install 'augbench[studio]'"
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
READ = ("state", "progress", "sources", "defects", "estimate", "items", "next", "item", "summary")
IMAGES = ("source", "thumb", "defect_mask", "kept_mask", "procedural", "image", "sheet")
WRITE = ("keep_region", "drop_mask", "keep_prompt", "generate", "cancel", "decide", "undo", "measure_kid")
log = logging.getLogger(__name__)


def make_app(studio: Studio) -> Starlette:
    """Create the application. Raises UserError where starlette is not installed."""
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise UserError(INSTALL) from None

    def answering(act: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Refuse requests of other sites, and turn errors into one line."""

        async def endpoint(request: Request) -> Response:
            try:
                if problem := foreign(request):
                    response: Response = JSONResponse({"error": problem}, 403)
                else:
                    response = await act(request)
            except _Refused as refused:
                response = JSONResponse({"error": str(refused)}, refused.status)
            except ValidationError as error:
                response = JSONResponse({"error": _first(error)}, 400)
            except UserError as error:
                line = " ".join(str(error).split())
                response = JSONResponse({"error": line}, 409 if isinstance(error, Conflict) else 400)
            except Exception as error:
                log.exception("a request of the page failed")
                what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                response = JSONResponse({"error": f"it failed ({what}): the terminal shows where"}, 500)
            response.headers.update(HEADERS)
            return response

        return endpoint

    def called(name: str, media: str | None) -> Callable[[Request], Awaitable[Response]]:
        method = validate_call(getattr(studio, name))

        async def act(request: Request) -> Response:
            given = dict(request.query_params) if request.method == "GET" else await _json(request)
            found = await run_in_threadpool(partial(method, **given))
            return JSONResponse(found) if media is None else Response(found, media_type=media)

        return answering(act)

    region = validate_call(studio.region)

    async def take_region(request: Request) -> Response:
        data = await _body(request, "image/png")
        return JSONResponse(await run_in_threadpool(partial(region, data, **dict(request.query_params))))

    def file(name: str, media: str) -> Callable[[Request], Awaitable[Response]]:
        async def act(_: Request) -> Response:
            text = asset(f"studio/{name}")
            return Response(asset(BASE) + text if media == "text/css" else text, media_type=media)

        return answering(act)

    return Starlette(
        routes=[
            Route("/", file("index.html", "text/html")),
            Route("/style.css", file("style.css", "text/css")),
            Route("/script.js", file("script.js", "text/javascript")),
            *(Route(f"/api/{name}", called(name, None)) for name in READ),
            *(Route(f"/api/{name}", called(name, "image/png")) for name in IMAGES),
            *(Route(f"/api/{name}", called(name, None), methods=["POST"]) for name in WRITE),
            Route("/api/region", answering(take_region), methods=["POST"]),
        ]
    )


class _Refused(Exception):
    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


def foreign(request: Request) -> str:
    """Return why a request is not of this page, "" if it is."""
    name = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    if name not in NAMES:
        return "the page is for this machine alone: open http://127.0.0.1, or use an SSH tunnel"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers['host']}":
        return "a request of another site is refused"
    site = request.headers.get("sec-fetch-site", "same-origin")
    is_visit = request.url.path == "/" and request.headers.get("sec-fetch-mode") == "navigate"
    return "" if site in ("same-origin", "none") or is_visit else "a request of another site is refused"


async def _body(request: Request, media: str) -> bytes:
    """Read a body of a type, and not more of it than is allowed."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media:
        raise _Refused(415, f"the body must be {media}, not '{given[:60]}'")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            raise _Refused(413, f"the body has more than {MOST_BYTES:,} bytes")
    return bytes(data)


async def _json(request: Request) -> dict[str, Any]:
    data = await _body(request, "application/json")
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise _Refused(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise _Refused(400, "the body is not a JSON object")
    return found


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def serve(studio: Studio, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        studio: what it serves.
        port: of 127.0.0.1; 0: any that is free.
        say: called with the address once it can be opened.

    Raises:
        UserError: the port is in use, or uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise UserError(INSTALL) from None
    app = make_app(studio)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise UserError(f"--port {port} cannot be used ({error.strerror}): give another one, or 0 for any") from None
    address = f"http://{HOST}:{listener.getsockname()[1]}/"

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        say(address)
        yield

    app.router.lifespan_context = lifespan
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])

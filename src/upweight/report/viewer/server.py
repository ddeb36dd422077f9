"""The server of a viewer: the standard library's, for this machine alone, and for reading alone."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from upweight.report.document import safe_json

ADDRESS = "127.0.0.1"
TOKEN_BYTES = 24
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
log = logging.getLogger(__name__)


class Answers(Protocol):
    """A page and the parts that it asks for."""

    def page(self) -> str:
        """The page."""

    def answer(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """One part. Raises LookupError for one that does not exist, ValueError for wrong parameters."""


class ViewerServer:
    """A viewer that is served on 127.0.0.1, until it is closed. Also a context manager.

    Every address starts with a secret, so that no other page in the browser and no other user of the machine can read
    the data. Requests for another host, which a page elsewhere could cause, are refused.

    Attributes:
        url: of the page, with the secret.
        port: that it listens on.
    """

    def __init__(self, answers: Answers, port: int = 0) -> None:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            self._server = _Server((ADDRESS, port), _handler(answers, token))
        except (OSError, OverflowError) as error:
            busy = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
            why = f"port {port} of {ADDRESS} is in use or not allowed" if busy else f"port {port}: {error}"
            raise OSError(f"the viewer cannot start: {why}; name another port, or 0 for a free one") from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://{ADDRESS}:{self.port}/{token}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="upweight-viewer")
        self._thread.start()

    def wait(self) -> None:
        """Return when the server is closed. KeyboardInterrupt passes through."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Stop answering, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ViewerServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ViewerServer({self.url})"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection failed", exc_info=True)  # a browser that was closed


def _handler(answers: Answers, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server: _Server
        server_version, sys_version = "upweight", ""
        timeout = 60  # seconds of a connection without a request

        def do_GET(self) -> None:
            self._respond()

        def do_HEAD(self) -> None:
            self._respond()

        def _respond(self) -> None:
            refusal = self._refusal()
            if refusal:
                self._send(HTTPStatus.FORBIDDEN, refusal)
                return
            address = urlsplit(self.path)
            part = address.path.removeprefix("/").partition("/")[2]
            try:
                if part:
                    parameters = dict(parse_qsl(address.query, keep_blank_values=True, max_num_fields=20))
                    self._send(HTTPStatus.OK, safe_json(answers.answer(part, parameters)), "application/json")
                else:
                    self._send(HTTPStatus.OK, answers.page(), "text/html")
            except ConnectionError:
                log.debug("the browser no longer waits for %s", part)
            except LookupError as error:
                self._send(HTTPStatus.NOT_FOUND, str(error.args[0]))
            except ValueError as error:
                self._send(HTTPStatus.BAD_REQUEST, str(error))
            except Exception as error:
                log.exception("the viewer failed on %s", part)
                self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")

        def _refusal(self) -> str:
            """Why this request is not answered; empty if it is."""
            port = self.server.server_port
            if self.headers.get("Host", "") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
                return "this server answers 127.0.0.1 alone"
            given = urlsplit(self.path).path.removeprefix("/").partition("/")[0]
            if not secrets.compare_digest(given.encode(), token.encode()):
                return "the address is not complete: copy all of it"
            if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
                return "another page must not read this one"
            return ""

        def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
            body = text.encode("utf-8", errors="replace")
            self.send_response(status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler

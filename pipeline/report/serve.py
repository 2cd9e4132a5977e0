"""A page over HTTP, for this machine alone."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path

HOST = "127.0.0.1"


def serve(path: str | PathLike[str], ready: Callable[[str], object]) -> None:
    """Serves one page, and nothing else of its folder, until it is interrupted.

    It listens on the loopback interface, at a port that is free, and answers only requests that name this host: a
    page from elsewhere, open in the same browser, can't read it under a name of its own.

    Args:
        path: of the HTML file, read once.
        ready: called with the address.
    """
    page = Path(path).read_bytes()
    with page_server(page) as server:
        ready(f"http://{HOST}:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            return


def page_server(page: bytes) -> ThreadingHTTPServer:
    """The server, listening already."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own = {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
            if self.headers.get("Host") not in own:
                self.send_error(403)
            elif self.path != "/":
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """A reader's requests are no news."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    return server

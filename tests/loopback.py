"""A real HTTP server on this machine that knows byte ranges, can be slow, and can break off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Loopback:
    """What the server offers and what was asked of it.

    Attributes:
        files: content by path.
        ranges: the `Range` header of every GET, None where there was none.
        knows_ranges: whether it answers with a part when asked for one.
        break_after: bytes after which an answer breaks off; None for never.
        pause: seconds between blocks of 64 kB.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.knows_ranges, self.break_after, self.pause = True, None, 0.0
        self.url = ""


@contextmanager
def serve() -> Iterator[Loopback]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    state = Loopback()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _handler(state: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head(200, state.files.get(self.path))

        def do_GET(self) -> None:
            content, asked = state.files.get(self.path), self.headers.get("Range")
            state.ranges.append(asked)
            if content is not None and asked and state.knows_ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                content = content[start:]
                self._head(206, content)
            else:
                self._head(200, content)
            self._send(content or b"")

        def _head(self, status: int, content: bytes | None) -> None:
            if content is None:
                self.send_error(404)
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def _send(self, content: bytes) -> None:
            content = content[: state.break_after]
            try:
                for start in range(0, len(content), 1 << 16):
                    self.wfile.write(content[start : start + (1 << 16)])
                    time.sleep(state.pause)
            except OSError:
                pass  # the other side was killed
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Silent."""

    return Handler

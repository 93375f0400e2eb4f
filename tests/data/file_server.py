"""A local HTTP server of files, with the faults that real ones have."""

from __future__ import annotations

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves bytes by path, and keeps a record of the requests.

    Attributes:
        files: path -> content.
        ranges: whether part of a file can be asked for.
        break_after: bytes after which each transfer breaks off; an entry is used once.
        statuses: answers of that status instead; an entry is used once.
        lengths: whether the length of a file is told.
        log: (path, first byte, bytes sent) of each request.
    """

    def __init__(self, files):
        self.files = dict(files)
        self.ranges, self.lengths = True, True
        self.break_after, self.statuses, self.log = [], [], []

    @property
    def address(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self):
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                served.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, request):
        content = self.files.get(request.path)
        status = self.statuses.pop(0) if self.statuses else 200
        if content is None or status != 200:
            request.send_error(status if content is not None else 404)
            return
        start = self._start(request)
        if start and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            self.log.append((request.path, start, 0))
            request.end_headers()
            return
        self._send(request, content, start)

    def _start(self, request):
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        return int(found.group(1)) if found and self.ranges else 0

    def _send(self, request, content, start):
        request.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        if self.lengths:
            request.send_header("Content-Length", str(len(content) - start))
        body = content[start:]
        if self.break_after:
            body = body[: self.break_after.pop(0)]
        # Before the headers leave: a client that they are enough for may look at the log at once.
        self.log.append((request.path, start, len(body)))
        request.end_headers()
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body)
        request.close_connection = True

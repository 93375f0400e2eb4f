"""A local HTTP server of files, with the faults that real ones have."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves bytes by path, and keeps a record of the requests.

    Attributes:
        files: path -> content.
        break_after: bytes after which each transfer breaks off; an entry is used once.
        log: path of each file that was sent.
    """

    def __init__(self, files):
        self.files = dict(files)
        self.break_after, self.log = [], []

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
        if content is None:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        looking = "Method" in request.headers  # torchvision asks first whether there is a redirect
        if not looking:
            # Before the headers leave: a client that they are enough for may read the log at once.
            self.log.append(request.path)
        request.end_headers()
        if not looking:
            body = content[: self.break_after.pop(0)] if self.break_after else content
            with contextlib.suppress(ConnectionError):
                request.wfile.write(body)
        request.close_connection = True

"""An HTTP server in this process that sends files, parts of them, or less than it promised."""

import http.server
import re
import threading
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends the file of that name, else the body, or the part that is asked for; cuts it where it is told to."""

    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        server.ranges.append(self.headers["Range"])
        body = server.files.get(self.path, server.body)
        start = (
            int(re.findall(r"\d+", self.headers["Range"])[0]) if self.headers["Range"] and server.knows_ranges else 0
        )
        if body is None or (start and start >= len(body)):
            self.send_error(404 if body is None else 416)
            return
        self.send_response(206 if start else 200)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if server.says_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else server.cut
        self.wfile.write(body[start:cut])

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """The server while it runs; it tells what was asked for in `paths` and `ranges`; `folder` is its address.

    `cut` is where every answer ends, `cuts` where the next ones do.
    """
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.body, server.files = None, {}
        server.cut, server.knows_ranges, server.says_length = None, True, True
        server.paths, server.ranges = [], []
        server.cuts, server.headers = [], {}
        server.folder = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()

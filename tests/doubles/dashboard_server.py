"""A stand-in for the version page of a head's dashboard: no part of Ray, and no proof of it."""

import http.server
import json
import threading
from contextlib import contextmanager


@contextmanager
def answering(status, body):
    """Serve one answer to everything; give the URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            text = body if isinstance(body, str) else json.dumps(body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

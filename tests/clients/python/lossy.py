"""A way to the gateway on which answers get lost: what an SDK's own retry is for."""

import contextlib
import http.server
import threading

import httpx

import scripted


@contextlib.contextmanager
def lossy(losses):
    """The base URL of a proxy that lets the first so many answers come whole and then drops them with
    their connection, and the list of what passed: retry count of the request, status, whether it was lost.
    """
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            dropped = {"host", "connection", "accept-encoding", "content-length"}
            lines = [(name, value) for name, value in self.headers.items() if name.lower() not in dropped]
            answer = httpx.post(
                scripted.BASE_URL + self.path,
                content=body,
                headers=[*lines, ("accept-encoding", "identity")],
                timeout=30,
                trust_env=False,
            )
            lost = len(seen) < losses
            seen.append((self.headers["x-stainless-retry-count"], answer.status_code, lost))
            self.close_connection = True
            if lost:
                return
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()

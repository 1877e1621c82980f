"""A web server that gives one list, or does what real servers do on bad days: `web.py ADDRESS PORT DIRECTORY [CERTIFICATE KEY]`.

What it does stands in DIRECTORY/manner, what it gives in DIRECTORY/list; both are read anew for each request.
"""

import hashlib
import http.server
import socketserver
import ssl
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        manner, _, more = open(directory + "/manner").read().strip().partition(" ")
        body = open(directory + "/list", "rb").read()
        etag = '"%s"' % hashlib.sha256(body).hexdigest()[:16]
        known = self.headers.get("If-None-Match")
        print("GET %s %s %s" % (self.path, manner, "known" if known else "new"), flush=True)
        self.close_connection = True
        if manner == "redirect" and self.path != more:
            return self.head(302, [("Location", more), ("Content-Length", "0")])
        if manner == "loop":
            return self.head(302, [("Location", self.path), ("Content-Length", "0")])
        if manner == "status":
            return self.head(int(more), [("Content-Length", "0")])
        if manner == "endless":
            self.head(200, [])
            while True:
                self.wfile.write(b"198.51.100.1\n" * 65536)
        if known == etag and manner != "forgetful":
            return self.head(304, [("ETag", etag)])
        length = [("Content-Length", str(len(body)))] if manner != "unsized" else []
        if manner == "encoded":
            length.append(("Content-Encoding", "gzip"))
        self.head(200, [("ETag", etag)] + length)
        if manner == "truncated":
            body = body[: len(body) // 2]
        if manner == "drip":
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.2)
        else:
            self.wfile.write(body)

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *words):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, request, client):
        # A client that had enough is none.
        pass


address, port, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
server = Server((address, port), Handler)
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4], sys.argv[5])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()

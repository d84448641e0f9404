"""The app that end-to-end tests push: standard library only, told by config vars and paths what to do.

MODE  ok | exit | never | loopback | wrong-port | stubborn | hungry
"""
import http.server, os, signal, socketserver, sys, threading, time, urllib.parse

HELD = []
MODE = os.environ.get("MODE", "ok")
PORT = int(os.environ.get("PORT", "0"))
VERSION = open(os.path.join(os.path.dirname(__file__) or ".", "VERSION")).read().strip()


class Probe(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        ask = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/":
            self.answer(200, f"version={VERSION} commit={os.environ.get('SOURCE_VERSION', '')} greeting={os.environ.get('GREETING', '')}\n")
        elif url.path == "/slow":
            time.sleep(float(ask["seconds"]))
            self.answer(200, f"slept version={VERSION}\n")
        elif url.path == "/env":
            self.answer(200, "".join(f"{k}={v}\n" for k, v in sorted(os.environ.items())))
        elif url.path == "/file":
            self.answer(200, open(ask["path"], errors="replace").read())
        elif url.path == "/log":
            for i in range(int(ask["lines"])):
                print(f"{ask['text']} {i}", flush=True)
            self.answer(200, "logged\n")
        elif url.path == "/memory":
            held = bytearray(int(ask["mib"]) << 20)
            for at in range(0, len(held), 4096):
                held[at] = 1
            self.answer(200, "held\n")
        elif url.path == "/hold":
            HELD.append(os.urandom(int(ask["mib"]) << 20))
            self.answer(200, "held for good\n")
        elif url.path == "/disk":
            name = f"/app/filler-{threading.get_ident()}-{time.monotonic_ns()}"
            try:
                with open(name, "wb") as filler:
                    for _ in range(int(ask["mib"])):
                        filler.write(b"x" * (1 << 20))
                self.answer(200, "written\n")
            except OSError as error:
                self.answer(507, f"errno={error.errno}\n")
            finally:
                if "keep" not in ask and os.path.exists(name):
                    os.unlink(name)
        elif url.path == "/forks":
            children = []
            try:
                for _ in range(int(ask["count"])):
                    child = os.fork()
                    if child == 0:
                        time.sleep(60)
                        os._exit(0)
                    children.append(child)
                self.answer(200, f"forked {len(children)}\n")
            except OSError as error:
                self.answer(507, f"errno={error.errno} after {len(children)}\n")
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        elif url.path == "/crash":
            print("crashing as told", flush=True)
            os._exit(7)
        else:
            self.answer(404, "no such path\n")


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = False
    request_queue_size = 256


def main():
    print(f"probe {VERSION} starts, mode {MODE}", flush=True)
    if MODE == "exit":
        print("last words before exit", flush=True)
        sys.exit(3)
    if MODE == "never":
        time.sleep(3600)
    if MODE == "hungry":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 20)))
    address = {"loopback": "127.0.0.1"}.get(MODE, "0.0.0.0")
    port = PORT + 1 if MODE == "wrong-port" else PORT
    server = Server((address, port), Probe)
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


main()

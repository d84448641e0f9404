"""The noisy neighbour of tests/neighbours: standard library only. `python attack.py KIND` takes all it can get of one thing
until its standard input ends (or, for a kind that is run detached, for SECONDS), and goes on whatever it is refused.
"""
import ctypes, http.server, os, resource, signal, socket, struct, sys, threading, time

SECONDS = float(os.environ.get("SECONDS", "60"))
END = time.monotonic() + SECONDS
LIBC = ctypes.CDLL(None, use_errno=True)


def going():
    return time.monotonic() < END


def again(attempt, pause=0.02):
    """Tries for ever; a refusal is what it is here for."""
    while going():
        try:
            attempt()
        except OSError:
            time.sleep(pause)


def children(count, work):
    for _ in range(count):
        if os.fork() == 0:
            try:
                work()
            finally:
                os._exit(0)


def cpu():
    def spin():
        while going():
            sum(range(10_000))
    children(4, spin)


def forks():
    def bomb():
        again(os.fork)
    children(1, bomb)


def memory():
    def grow():
        held = []
        while going():
            held.append(os.urandom(1 << 20))
    children(1, grow)


def page_cache():
    def read():
        with open("/app/sparse", "wb") as file:
            file.truncate(4 << 30)
        buffer = bytearray(1 << 20)
        with open("/app/sparse", "rb", buffering=0) as file:
            while going():
                if not file.readinto(buffer):
                    file.seek(0)
    children(2, read)


def disk():
    def write():
        block = os.urandom(1 << 20)
        with open("/app/filler", "wb", buffering=0) as file:
            again(lambda: file.write(block))
    children(1, write)


def small_files():
    def write():
        count = 0

        def one():
            nonlocal count
            count += 1
            directory = f"/app/small/{count // 1000}"
            if count % 1000 == 1 or not os.path.isdir(directory):
                os.makedirs(directory, exist_ok=True)
            with open(f"{directory}/{count}", "w") as file:
                file.write("x" * 1500)
        again(one)
    children(2, write)


def log():
    line = b"noise " * 10 + b"\n"
    while going():
        os.write(1, line * 500)


def files():
    def take():
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        again(lambda: os.open("/dev/null", os.O_RDONLY))
    children(4, take)


def connections():
    """Both ends of connections within its own network, whose buffers it fills and never reads; and connections to the gateway."""
    def fill():
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        held = []

        def pour(near):
            try:
                while near.send(b"x" * 65536):
                    pass
            except BlockingIOError:
                pass

        def one():
            if len(held) < 400:
                near = socket.create_connection(listener.getsockname())
                near.setblocking(False)
                held.append((near, listener.accept()[0]))
                pour(near)
            else:
                time.sleep(0.1)
                [pour(near) for near, _ in held]
        again(one)

    def dial():
        held = []

        def one():
            if len(held) > 2_000:
                held.pop(0).close()
            near = socket.socket()
            near.setblocking(False)
            near.connect_ex((gateway(), 53))
            held.append(near)
        again(one)
    children(2, fill)
    children(1, dial)


def tmpfs():
    def fill(path):
        block = os.urandom(1 << 20)
        with open(path, "wb", buffering=0) as file:
            again(lambda: file.write(block))
    for directory in ("/dev/shm", "/tmp"):
        children(1, lambda: fill(f"{directory}/filler"))


def signals():
    def storm():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
        while going():
            for number in (signal.SIGUSR1, signal.SIGRTMIN, signal.SIGCONT):
                try:
                    os.kill(-1, number)
                except OSError:
                    pass
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    children(6, storm)


def gateway():
    with open("/proc/net/route") as table:
        for line in table:
            fields = line.split()
            if fields[1] == "00000000":
                return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    raise SystemExit("no default route")


def question(number):
    """A DNS message of an operation that no server does: answered at once, by the host's server itself (RFC 1035 4.1.1)."""
    return struct.pack(">HHHHHH", number & 0xFFFF, 2 << 11, 0, 0, 0, 0)


def lookups():
    def flood():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.connect((gateway(), 53))
        packet = question(1)
        again(lambda: one.send(packet), 0.001)

    def many_ports():
        packet, target = question(2), (gateway(), 53)

        def one():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as short:
                short.sendto(packet, target)
        again(one)
    children(2, flood)
    children(1, many_ports)


def inotify():
    def take():
        def one():
            if LIBC.inotify_init1(0) < 0:
                raise OSError(ctypes.get_errno(), "inotify_init1")
        again(one)
    children(1, take)


def serve():
    """Accepts every request and answers none but `/`."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path != "/":
                time.sleep(SECONDS)
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"ok\n")
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()


def main():
    kind = sys.argv[1]
    globals()[kind]()
    if kind not in ("serve", "log"):
        threading.Thread(target=lambda: (time.sleep(SECONDS), os._exit(0)), daemon=True).start()
        sys.stdin.buffer.read()
        os._exit(0)


main()

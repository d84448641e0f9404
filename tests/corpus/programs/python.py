"""Threads, processes, semaphores, SQLite, TLS, sendfile and asyncio, as web apps use them."""
import asyncio
import hashlib
import multiprocessing
import os
import socket
import sqlite3
import ssl
import subprocess
import threading

WORK = "/tmp/python"


def square(number):
    return number * number


def threads():
    total, lock = [0], threading.Lock()

    def add():
        for _ in range(1_000):
            with lock:
                total[0] += 1

    workers = [threading.Thread(target=add) for _ in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert total == [20_000], total


def database():
    # WAL needs shared memory maps and POSIX locks.
    connection = sqlite3.connect(f"{WORK}/app.db")
    assert connection.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    with connection:
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(1_000)])
    other = sqlite3.connect(f"{WORK}/app.db")
    assert other.execute("SELECT sum(n) FROM numbers").fetchone() == (499_500,)


def tls():
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    files = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{WORK}/key", "-out", f"{WORK}/cert"]
    subprocess.run(request + files, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{WORK}/cert", f"{WORK}/key")
    client = ssl.create_default_context(cafile=f"{WORK}/cert")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with server.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.sendall(connection.recv(100).upper())

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost") as connection:
        connection.sendall(b"secret")
        assert connection.recv(100) == b"SECRET"
        version = connection.version()
    thread.join()
    assert version == "TLSv1.3", version


def files():
    content = os.urandom(1 << 20)
    with open(f"{WORK}/large", "wb") as file:
        file.write(content)
    ours, theirs = socket.socketpair()
    with open(f"{WORK}/large", "rb") as file:
        sender = threading.Thread(target=lambda: (ours.sendfile(file), ours.close()))
        sender.start()
        received = hashlib.sha256()
        while chunk := theirs.recv(65_536):
            received.update(chunk)
        sender.join()
    assert received.digest() == hashlib.sha256(content).digest()


async def subprocesses():
    async def echo(number):
        process = await asyncio.create_subprocess_exec("sh", "-c", f"read x; echo $((x + 1))", stdin=-1, stdout=-1)
        out, _ = await process.communicate(str(number).encode() + b"\n")
        return int(out)

    assert await asyncio.gather(*map(echo, range(10))) == list(range(1, 11))


def main():
    os.makedirs(WORK)
    threads()
    database()
    tls()
    files()
    asyncio.run(subprocesses())
    with multiprocessing.Pool(4) as pool:
        assert pool.map(square, range(100)) == [n * n for n in range(100)]
    print("python: all done as", os.getuid())


if __name__ == "__main__":
    main()

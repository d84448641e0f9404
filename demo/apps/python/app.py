"""Answers with a greeting (a config var) and the commit it was built from."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    greeting = os.environ.get("GREETING", "Hello from Python")
    return f"{greeting}, commit {os.environ.get('BERTH_COMMIT', 'unknown')}\n", {"Content-Type": "text/plain"}


@app.get("/healthz")
def healthz():
    return "ok\n"

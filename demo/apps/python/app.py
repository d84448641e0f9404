"""Answers with the commit it was built from."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return f"Hello from Python, commit {os.environ.get('BERTH_COMMIT', 'unknown')}\n", {"Content-Type": "text/plain"}


@app.get("/healthz")
def healthz():
    return "ok\n"


@app.get("/env/<name>")
def env(name):
    """Shows a config var of this demo; only names that start with DEMO_, so that no secret is shown."""
    if not name.startswith("DEMO_"):
        return "only DEMO_* is shown\n", 403
    return f"{os.environ.get(name, '')}\n"

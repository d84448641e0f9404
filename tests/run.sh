#!/usr/bin/env bash
# Everything that can be checked, in the order of what is cheapest to learn: format, lints, then every test. As root it
# first installs what the tests need from Debian; without root it says what was not run. Ends with a summary.
#
#   ./tests/run.sh            all of it
#   ./tests/run.sh FILTER…    only the tests whose names contain FILTER (no format, no lints)
#
# CI=true (or a standard input that is no terminal) asks nothing and colours nothing. The lists of packages are
# deploy/debian-packages.txt and tests/debian-packages.txt.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
[ -t 1 ] || export CARGO_TERM_COLOR=never NO_COLOR=1

names=() results=() failed=0

# check NAME COMMAND…: runs it, keeps its result and its time for the summary, and goes on.
check() {
  local name=$1 start=$SECONDS; shift
  printf '\n=== %s\n' "$name"
  if "$@"; then results+=("ok      $((SECONDS - start)) s"); else results+=("FAILED  $((SECONDS - start)) s"); failed=1; fi
  names+=("$name")
}

not_run() { printf '\nnot run: %s (%s)\n' "$1" "$2"; names+=("$1"); results+=("NOT RUN ($2)"); }

packages() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' deploy/debian-packages.txt tests/debian-packages.txt; }

# Only what is missing is installed, so that a second run needs no network.
install_packages() {
  local package missing=()
  for package in $(packages); do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || { echo "all installed"; return 0; }
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q </dev/null >/dev/null &&
    apt-get install -qq -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# cargo-nextest runs each test in a process of its own and prints one line for each; plain cargo does where it is absent.
# The end-to-end suite is one program with one installation, run by itself after the others.
tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --no-fail-fast --no-tests pass -E 'not (binary(e2e) or binary(isolation) or binary(faults) or binary(neighbours) or binary(corpus))' "$@" </dev/null
  else
    cargo test --workspace --no-fail-fast --lib --bins "$@" </dev/null &&
      cargo test -p berth-tests --no-fail-fast --test tidy "$@" </dev/null &&
      cargo test -p berth-fuzz-targets --test targets "$@" </dev/null
  fi
}

isolation() { cargo build --workspace </dev/null && cargo test -p berth-tests --test isolation "$@" </dev/null; }
guest() { cargo build --workspace </dev/null && tests/vm/run.sh --bin target/debug --parts "smoke isolation"; }

# Beside the suites that follow the noisy neighbours: it is one emulated machine, and much of what they do is wait.
guest_beside() {
  guest_output=$(mktemp) guest_pid=
  trap '[ -z "$guest_pid" ] || kill "$guest_pid"; rm -f "$guest_output"' EXIT
  guest >"$guest_output" 2>&1 </dev/null & guest_pid=$!
}
guest_result() {
  local status=0
  wait "$guest_pid" || status=$?
  guest_pid=
  cat "$guest_output"
  return "$status"
}

neighbours() { cargo build --workspace </dev/null && cargo test -p berth-tests --test neighbours "$@" </dev/null; }
corpus() { cargo build --workspace </dev/null && cargo test -p berth-tests --test corpus "$@" </dev/null; }
end_to_end() { cargo build --workspace </dev/null && cargo test -p berth-tests --test e2e "$@" </dev/null; }
faults() { cargo build --workspace </dev/null && cargo test -p berth-tests --test faults "$@" </dev/null; }

# Alone and last: it compares the whole machine before and after.
demo_once() {
  local data=/var/tmp/berth-tests/once-$$
  ./demo/one-host.sh --once --bin target/debug --installation "t-once-$$" --data "$data" --pool-gib 6 \
    --api-port 17071 --edge-port 18081 </dev/null && rm -rf "$data" "$data.snapshots"
}

summary() {
  printf '\n=== summary\n'
  local index
  for index in "${!names[@]}"; do printf '  %-28s %s\n' "${names[$index]}" "${results[$index]}"; done
  if [ "$failed" = 0 ]; then printf 'All that was run passed, in %d s.\n' "$SECONDS"; else printf 'FAILED, in %d s.\n' "$SECONDS"; fi
}

is_root=$([ "$(id -u)" = 0 ] && echo yes || echo no)
if [ "$is_root" = yes ]; then
  if command -v apt-get >/dev/null; then check "Debian packages" install_packages; fi
else
  not_run "Debian packages" "needs root"
fi
if [ $# = 0 ]; then
  check "format" cargo fmt --all --check
  check "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
fi
check "tests" tests "$@"
if [ "$is_root" = yes ]; then
  check "isolation" isolation "$@"
  check "compatibility corpus" corpus "$@"
  check "noisy neighbours" neighbours "$@"
  [ $# -gt 0 ] || guest_beside
  check "end to end" end_to_end "$@"
  check "faults" faults "$@"
  [ $# -gt 0 ] || check "guest on cgroup v2" guest_result
  [ $# -gt 0 ] || check "demo/one-host.sh --once" demo_once
else
  not_run "end to end, isolation, corpus, faults, neighbours" "needs root: they make containers"
  not_run "guest on cgroup v2" "needs root: mmdebstrap makes its disk"
fi
summary
exit "$failed"

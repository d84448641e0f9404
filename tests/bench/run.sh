#!/usr/bin/env bash
# Measures ours beside its peers in one run. Progress on stderr; ends with one JSON object on one line on stdout.
#
#   ./tests/bench/run.sh launch|storm|density|share|adopt|footprint|wake [--runs N] [--floor FLOOR.C] [--peers]
#
# --runs    how many containers (footprint: seconds) instead of the bench's own number, with which it takes some minutes
# --peers   installs the peers from Debian packages first
# --floor   a C program that makes the bare syscalls: floor COUNT WHAT ROOTFS SCRATCH, printing p50_ms; ../shared/floor/floor.c
#           beside the checkout if that is there
# A peer that cannot run is named in "missing" with the reason. All run the same static /bin/true from the same root, with limits
# on memory, CPU and processes (bwrap has none). dockerd is one of the bench's own. What each bench measures stands atop its file.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
name=${1:-}; shift || true
runs=0 floor= install=no
while [ $# -gt 0 ]; do
  case $1 in
    --runs) runs=$2; shift ;;
    --floor) floor=$2; shift ;;
    --peers) install=yes ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
# One of its own: no peers.
[ "$name" != wake ] || exec "$root/tests/bench/wake.sh" "$runs"
case $name in
  launch|storm|density|share|adopt|footprint) ;;
  *) echo "usage: run.sh launch|storm|density|share|adopt|footprint|wake [--runs N] [--floor FLOOR.C] [--peers]" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || { echo "run.sh: must be root: it makes containers" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }
[ -n "$floor" ] || floor=$(ls "$root"/../shared/floor/floor.c "$root"/../../shared/floor/floor.c 2>/dev/null | head -1 || true)

tag=berth-bench-$$
work=$(mktemp -d /var/tmp/berth-bench-XXXXXX)
dockerd= holder=
finish() {
  # A daemon that was started again has another number.
  [ -z "$dockerd" ] || dockerd=$(cat "$work/docker/pid" 2>/dev/null || echo "$dockerd")
  for pid in $dockerd $holder; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  # With live-restore its containers and their shims go on without it.
  find /sys/fs/cgroup -path "*/$tag/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | while read -r pid; do
    kill -9 "$pid" 2>/dev/null || true
  done
  sleep 0.5
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
  what=(-p berth-launcher -p berth-tests --bin berth-launcher --bin berth-bench)
  [ "$name" != footprint ] || what=(--workspace --bins)
  (cd "$root" && cargo build --release --quiet "${what[@]}")
  BENCH_BIN=${CARGO_TARGET_DIR:-$root/target}/release
fi

say "making the root"
rootfs=$work/root
mkdir -p "$rootfs"/{bin,proc,sys,dev,tmp,etc} "$work/ours"
printf 'int main(void){return 0;}' >"$work/true.c"
cc -O2 -static "$work/true.c" -o "$rootfs/bin/true"
printf '#include <unistd.h>\nint main(void){for(;;)pause();}' >"$work/pause.c"
cc -O2 -static "$work/pause.c" -o "$rootfs/bin/pause"
# What the peers run: in `launch` to its end, else idle until it is removed.
program=/bin/pause; [ "$name" != launch ] || program=/bin/true
if [ "$name" = share ]; then
  program=/bin/share
  cat >"$work/share.c" <<'EOF'
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
  struct stat found;
  int file = open("/image", O_RDONLY);
  if (file < 0 || fstat(file, &found)) return 1;
  volatile const char *image = mmap(0, found.st_size, PROT_READ, MAP_SHARED, file, 0);
  if (image == MAP_FAILED) return 1;
  for (long at = 0; at < found.st_size; at += 4096) (void)image[at];
  prctl(PR_SET_NAME, "shared");
  for (;;) pause();
}
EOF
  cc -O2 -static "$work/share.c" -o "$rootfs/bin/share"
  head -c 1G /dev/urandom >"$rootfs/image"
fi

missing=() peers=()
absent() { missing+=("{\"peer\":\"$1\",\"reason\":\"$(tr -d '"\\\n\t' <<<"$2" | cut -c1-200)\"}"); }
words() { local all; all=$(printf '"%s",' "$@"); printf '[%s]' "${all%,}"; }
# peer KEY MORE COMMAND…: MORE is further JSON fields, or nothing.
peer() {
  local key=$1 more=$2; shift 2
  peers+=("{\"key\":\"$key\",\"command\":$(words "$@")${more:+,$more}}")
}

if [ "$name" != launch ]; then
  : # It is measured in `launch` alone.
elif [ -z "$floor" ]; then
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
  (cd "$work/bundle" && runc spec && sed -i -e 's/"terminal": true/"terminal": false/' -e "s#\"sh\"#\"$program\"#" \
    -e "s#\"path\": \"rootfs\"#\"path\": \"$rootfs\"#" -e "s#\"resources\": {#\"resources\": { $limits#" config.json)
fi
for key in crun runc; do
  if ! command -v "$key" >/dev/null; then absent "$key" "not installed"; continue; fi
  if [ ! -f "$work/bundle/config.json" ]; then absent "$key" "needs runc spec for its bundle"; continue; fi
  mounts=${holder:+\"mounts\":\"/proc/$holder/ns/mnt\"}
  if [ "$name" = launch ]; then
    peer "$key" "$mounts" "$key" run --bundle "$work/bundle" "$tag-$key"
  elif [ "$name" = storm ] || [ "$name" = density ]; then # They keep no images: nothing to say of `share`.
    peer "$key" "\"destroy\":$(words "$key" delete --force "$tag-$key-@ROUND@")${mounts:+,$mounts}" \
      "$key" run --detach --bundle "$work/bundle" "$tag-$key-@ROUND@"
  fi
done

if [ "$name" != launch ]; then
  : # It leaves nothing running.
elif command -v bwrap >/dev/null; then
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
  cat >"$at/start" <<EOF
echo \$\$ >$group/daemon/cgroup.procs
exec dockerd -H unix://$at/docker.sock --data-root $at/data --exec-root $at/exec --pidfile $at/pid --cgroup-parent /$tag/apps \\
  --live-restore --iptables=false --ip6tables=false --bridge=none --ip-forward=false
EOF
  cat >"$at/restart" <<EOF
pid=\$(cat $at/pid)
kill -9 \$pid
while [ -d /proc/\$pid ] && ! grep -q '^State:.Z' /proc/\$pid/status; do sleep 0.01; done
rm -f $at/pid
sh $at/start >>$at/log 2>&1 &
EOF
  sh "$at/start" >"$at/log" 2>&1 &
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
  local call=("$docker" -H "unix://$at/docker.sock") limits=(--network none --memory 512m --cpus 1 --pids-limit 256)
  [ "$name" != share ] || limits=(--network none --memory 2g --cpus 1 --pids-limit 256)
  local daemon="\"daemon_cpu_ns\":\"$group/cpuacct.usage\",\"data\":\"$at/data\""
  if [ "$name" = launch ]; then
    peer docker "$daemon" "${call[@]}" run --rm "${limits[@]}" berth-bench:latest "$program"
  else
    peer docker "$daemon,\"destroy\":$(words "${call[@]}" rm --force "$tag-@ROUND@"),\"list\":$(words "${call[@]}" ps -q),\"restart\":$(words sh "$at/restart")" \
      "${call[@]}" run --detach --name "$tag-@ROUND@" "${limits[@]}" berth-bench:latest "$program"
  fi
}
say "starting a dockerd"
start_docker

# footprint: what all of our daemons take while nothing happens, and dockerd with its containerd beside them.
# pss PID…: KiB of memory that is theirs; cpu PID…: clock ticks so far; written PID…: bytes so far.
pss() { for pid; do cat "/proc/$pid/smaps_rollup"; done | awk '/^Pss:/ { kib += $2 } END { print kib + 0 }'; }
cpu() { for pid; do cut -d' ' -f14-17 <"/proc/$pid/stat"; done | awk '{ ticks += $1 + $2 + $3 + $4 } END { print ticks + 0 }'; }
written() { for pid; do cat "/proc/$pid/io"; done | awk '/^write_bytes:/ { bytes += $2 } END { print bytes + 0 }'; }
family() { echo "$1"; for child in $(cat /proc/"$1"/task/*/children); do family "$child"; done; }
figures() {
  local ticks bytes seconds=$1; shift
  ticks=$(cpu "$@") bytes=$(written "$@"); sleep "$seconds"
  awk -v kib="$(pss "$@")" -v ticks=$(($(cpu "$@") - ticks)) -v bytes=$(($(written "$@") - bytes)) -v s="$seconds" \
    'BEGIN { printf "{\"pss_kib\":%d,\"cpu_percent\":%.3f,\"written_kib_an_hour\":%d}", kib, ticks / s, bytes / s * 3600 / 1024 }'
}
footprint() {
  local seconds=60 ours theirs=null ratio=null; [ "$runs" = 0 ] || seconds=$runs
  "$root/demo/one-host.sh" --daemons-only --pool-gib 1 --installation "$tag" --data "$work/data" --bin "$BENCH_BIN" \
    --api-port 18470 --edge-port 18471 >"$work/demo.log" 2>&1 </dev/null &
  local demo=$!
  until grep -q '^ready' "$work/demo.log"; do
    kill -0 "$demo" 2>/dev/null || { say "the demo ended: $(tail -2 "$work/demo.log")"; return 1; }
    sleep 0.2
  done
  sleep 15 # What is made ahead, first reports.
  local pids; pids=$(for one in $(family "$demo"); do grep -qE '^(berthd|berth-agent|berth-launcher|berth-edge)' "/proc/$one/comm" && echo "$one"; done)
  ours=$(figures "$seconds" $pids)
  kill "$demo"; wait "$demo" || true
  [ -z "$dockerd" ] || theirs=$(figures "$seconds" $(family "$dockerd"))
  [ "$theirs" = null ] || ratio=$(awk -F'[:,]' -v t="$(cut -d: -f2 <<<"$theirs" | cut -d, -f1)" '{ printf "%.3f", $2 / t }' <<<"$ours")
  printf '{"name":"footprint","runs":%d,"ours":%s,"peers":{"docker":%s},"ratios":{"docker":%s},"missing":[%s]}\n' \
    "$seconds" "$ours" "$theirs" "$ratio" "$(IFS=,; echo "${missing[*]}")"
}
if [ "$name" = footprint ]; then say "measuring"; footprint; exit; fi

join() { local IFS=,; printf '[%s]' "$*"; }
join "${peers[@]}" >"$work/peers.json"
join "${missing[@]}" >"$work/missing.json"
say "measuring"
"$BENCH_BIN/berth-bench" "$name" "$runs" "$rootfs" "$BENCH_BIN/berth-launcher" "$work/ours" "$work/peers.json" "$work/missing.json"

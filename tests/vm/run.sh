#!/usr/bin/env bash
# Boots the guest and runs what is in inside/ there, where cgroup v2, AppArmor and systemd are real: quotas from a prebuilt image, the
# isolation suite, the units of deploy/systemd; then the power is cut and the guest boots again. No timing means anything in there.
#
#   tests/vm/run.sh [--bin DIR] [--parts "smoke isolation units power"] [--apps N]    DIR holds the built binaries (target/debug)
#
# Two more parts run for who asks for them: quota (of running apps) and neighbours.
#
# Ends with "N passed, N failed" and exits by it. Needs the packages of tests/debian-packages.txt.
set -Eeuo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$root/target/debug parts="smoke isolation units power" apps=50
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=$2 ;;
    --parts) parts=$2 ;;
    --apps) apps=$2 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift 2
done
cache=${BERTH_GUEST_CACHE:-/var/cache/berth/guest-13}
stack=${BERTH_STACK_CACHE:-/var/cache/berth}/berth-13.tar

[ "$(id -u)" = 0 ] || { echo "not run without root: the guest (mmdebstrap needs it)"; exit 0; }
"$here/guest.sh" "$cache"
[ -s "$stack" ] || "$root/deploy/stack/build.sh" "$stack"
# cargo names the program; the newest is the one just built.
isolation=$(find "$bin/deps" -maxdepth 1 -name 'isolation-*' -perm -100 -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
[ -n "$isolation" ] && [ -d "$bin/isolation" ] ||
  { echo "the isolation suite was not run on this machine yet: cargo test -p berth-tests --test isolation" >&2; exit 1; }

# The agent's own tests, for the part quota, are one of several programs called so.
agent=
[[ $parts != *quota* ]] || agent=$(find "$bin/deps" -maxdepth 1 -name 'berth_agent-*' -perm -100 -type f -printf '%T@ %p\n' | sort -rn | cut -d' ' -f2 |
  while read -r program; do ! "$program" --list 2>/dev/null | grep -q '^cgroup::quota_tests' || { echo "$program"; break; }; done)
[[ $parts != *quota* ]] || [ -n "$agent" ] ||
  { echo "the agent's tests were not built on this machine yet: cargo test -p berth-agent --lib --no-run" >&2; exit 1; }

work=$(mktemp -d /var/tmp/berth-vm.XXXXXX)
qemu=
# The guest is a child of timeout's, which can tell it nothing when it is killed itself.
trap '[ -z "$qemu" ] || { pkill -9 -P "$qemu"; kill -9 "$qemu"; } 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work/payload/deps"
for program in berthd berth-agent berth-launcher berth-edge berth; do strip --strip-debug -o "$work/payload/$program" "$bin/$program"; done
strip --strip-debug -o "$work/payload/deps/isolation" "$isolation"
[ -z "$agent" ] || strip --strip-debug -o "$work/payload/deps/agent" "$agent"
cp -r "$bin/isolation" "$work/payload/isolation"
cp -r "$here"/inside/* /usr/include/x86_64-linux-gnu/asm/unistd_64.h "$work/payload/"
echo "$parts" >"$work/payload/parts"
echo "$apps" >"$work/payload/apps"
cp -r "$root/deploy/packs" "$work/payload/packs"
cp -r "$root/deploy/systemd" "$work/payload/units"
cp "$stack" "$work/payload/image.tar"
tar -C "$work/payload" -cf "$work/payload.tar" . && rm -r "$work/payload"
truncate -s %1M "$work/payload.tar"
cp --sparse=always "$cache/guest.ext4" "$work/guest.ext4"

# boot NAME: the first serial port is the test's alone; the kernel's messages and a login prompt (which hangs up its port) go to the
# second. The bound ends a guest that hangs; it judges no speed.
boot() {
  : >"$work/results" && : >"$work/console"
  timeout --kill-after 10 $((1500 + apps * 60)) qemu-system-x86_64 -M q35 -accel tcg,thread=multi,tb-size=512 -cpu max,la57=off -m 3072 -smp 2 -no-reboot -nic none \
    -display none -monitor none -serial file:"$work/results" -serial file:"$work/console" \
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
    -append "root=/dev/vda rw console=ttyS1 quiet systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 mitigations=off" \
    -drive file="$work/guest.ext4",format=raw,if=virtio,cache=none \
    -drive file="$work/payload.tar",format=raw,if=virtio,readonly=on </dev/null & qemu=$!
  local cut=no
  while kill -0 "$qemu" 2>/dev/null; do
    if grep -aq '^cut the power' "$work/results"; then
      # The guest's own process, not timeout's: it must not get to end in order.
      pkill -9 -P "$qemu" || true
      cut=yes
      break
    fi
    sleep 0.5
  done
  wait "$qemu" || [ "$cut" = yes ] || echo "FAILED the guest did not end by itself" >>"$work/results"
  qemu=
  tr -d '\r' <"$work/results" | tee -a "$work/all"
  [ "$cut" = yes ] || grep -aq '^guest-exit-status' "$work/results" || {
    echo "FAILED the guest told no exit status; the end of its console:"; tail -n 30 "$work/console"
  } | tee -a "$work/all"
}

boot
if grep -aq '^cut the power' "$work/all"; then
  boot
elif [[ $parts = *power* ]]; then
  echo "FAILED the guest never came to the power cut" | tee -a "$work/all"
fi
count() { grep -acE "$1" "$work/all" || true; }
passed=$(count '^ok ') failed=$(count '^FAILED ')
grep -aq '^guest-exit-status 0' "$work/all" || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

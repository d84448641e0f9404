#!/usr/bin/env bash
# Boots the guest and runs a test inside it, where cgroup v2 and systemd are real. No timing means anything in there.
#
#   tests/vm/run.sh [--bin DIR]       DIR holds the built binaries (target/debug)
#
# Ends with "N passed, N failed" and exits by it. Needs the packages of tests/debian-packages.txt.
set -Eeuo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$root/target/debug
[ "${1:-}" != --bin ] || bin=$2
cache=${BERTH_GUEST_CACHE:-/var/cache/berth/guest-13}
stack=${BERTH_STACK_CACHE:-/var/cache/berth}/berth-13.tar

[ "$(id -u)" = 0 ] || { echo "not run without root: the guest (mmdebstrap needs it)"; exit 0; }
"$here/guest.sh" "$cache"
[ -s "$stack" ] || "$root/deploy/stack/build.sh" "$stack"

work=$(mktemp -d /var/tmp/berth-vm.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/payload"
cp "$bin/berth-agent" "$bin/berth-launcher" "$bin/berth-edge" "$here/main" "$work/payload/"
cp "$stack" "$work/payload/image.tar"
tar -C "$work/payload" -cf "$work/payload.tar" .
truncate -s %1M "$work/payload.tar"

# The first serial port is the test's alone: the kernel's messages and a login prompt (which hangs up its port) go to the second.
# -snapshot: the guest's disk stays as it was made. The bound ends a guest that hangs; it judges no speed.
timeout --kill-after 10 600 qemu-system-x86_64 -M q35 -accel tcg -cpu max -m 2048 -smp 2 -no-reboot -snapshot -nic none \
  -display none -monitor none -serial file:"$work/results" -serial file:"$work/console" \
  -kernel "$cache/vmlinuz" -initrd "$cache/initrd" \
  -append "root=/dev/vda rw console=ttyS1 quiet systemd.unified_cgroup_hierarchy=1 systemd.show_status=0" \
  -drive file="$cache/guest.ext4",format=raw,if=virtio \
  -drive file="$work/payload.tar",format=raw,if=virtio,readonly=on </dev/null || echo "FAILED the guest did not end by itself"

touch "$work/results" "$work/console"
tr -d '\r' <"$work/results"
count() { grep -acE "$1" "$work/results" || true; }
passed=$(count '^ok ') failed=$(count '^FAILED ')
if [ "$(count '^guest-exit-status')" = 0 ]; then
  echo "FAILED the guest told no exit status; the end of its console:"
  tail -n 30 "$work/console"
  failed=$((failed + 1))
elif [ "$((passed + failed))" = 0 ] || { [ "$failed" = 0 ] && [ "$(count '^guest-exit-status 0')" = 0 ]; }; then
  failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

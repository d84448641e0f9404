#!/usr/bin/env bash
# Makes the guest: a Debian 13 with systemd on cgroup v2, as a disk image with its kernel beside it. Once a machine; about a minute.
#
#   tests/vm/guest.sh DIR      leaves DIR/guest.ext4, DIR/vmlinuz, DIR/initrd, and in DIR/recipe the hash of this script that made them
#
# What runs inside is not part of it: run.sh hands that in as a second disk, a plain tar.
set -Eeuo pipefail

dir=$1
recipe=$(sha256sum <"$0")
[ "$(cat "$dir/recipe" 2>/dev/null)" = "$recipe" ] && exit 0
mkdir -p "$dir"
work=$(mktemp -d "$dir/making.XXXXXX")
trap 'rm -rf "$work"' EXIT

packages=systemd,apparmor,systemd-sysv,linux-image-cloud-amd64,initramfs-tools,nftables,btrfs-progs,iproute2,kmod,procps,util-linux,ca-certificates,curl,git,diffutils,passwd
echo "guest: Debian 13 from packages" >&2
mmdebstrap --quiet --variant=minbase --include="$packages" trixie "$work/root.tar"
mkdir "$work/root"
tar -C "$work/root" --numeric-owner -xf "$work/root.tar"

cat >"$work/root/usr/local/sbin/berth-guest" <<'EOF'
#!/bin/bash
# Unpacks the second disk and runs its `main`; what that prints and its exit status go to the serial console.
exec >/dev/ttyS0 2>&1
[ -x /opt/berth/main ] || { mkdir -p /opt/berth && tar -C /opt/berth -xf /dev/vdb; }
/opt/berth/main
echo "guest-exit-status $?"
systemctl poweroff --force --force
EOF
chmod 0755 "$work/root/usr/local/sbin/berth-guest"
cat >"$work/root/etc/systemd/system/berth-guest.service" <<'EOF'
[Unit]
Description=What the host handed in
[Service]
Type=oneshot
Delegate=yes
ExecStart=/usr/local/sbin/berth-guest
EOF
ln -s ../berth-guest.service "$work/root/etc/systemd/system/multi-user.target.wants/berth-guest.service" 2>/dev/null ||
  { mkdir -p "$work/root/etc/systemd/system/multi-user.target.wants" && ln -s ../berth-guest.service "$work/root/etc/systemd/system/multi-user.target.wants/"; }
echo "/dev/vda / ext4 defaults 0 0" >"$work/root/etc/fstab"
echo guest >"$work/root/etc/hostname"

cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
cp "$work"/root/boot/initrd.img-* "$work/initrd"
rm -rf "$work"/root/boot/* "$work"/root/var/cache/apt/* "$work"/root/usr/share/doc
mke2fs -q -t ext4 -d "$work/root" "$work/guest.ext4" 6G
mv "$work/vmlinuz" "$work/initrd" "$work/guest.ext4" "$dir/"
echo "$recipe" >"$dir/recipe"

# A build step as root: packages from the stack's own mirror, with their users, their scripts and what those start.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y --no-install-recommends install redis-server git
dpkg --audit
getent passwd redis >/dev/null
rm -rf /var/lib/apt/lists /var/cache/apt
echo "apt: all done as $(id -u)"

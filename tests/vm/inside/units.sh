# The units of deploy/systemd: apps come up, and go on when any daemon is killed, restarted or executed anew.

api=http://127.0.0.1:7070
export BERTH_URL=$api BERTH_CONFIG_DIR=/root/berth

install_berth() {
  useradd --system --home-dir /var/lib/berth/control berth
  useradd --system --home-dir /var/lib/berth/edge berth-edge
  install -d -m 0755 /usr/lib/berth /etc/berth /var/lib/berth
  install -d -m 0700 /var/lib/berth/agent /var/lib/berth/launcher
  install -d -m 0700 -o berth -g berth /var/lib/berth/control
  install -d -m 0700 -o berth-edge -g berth-edge /var/lib/berth/edge
  mv berthd berth-edge /usr/lib/berth/ && cp berth-agent berth-launcher /usr/lib/berth/
  cp -r packs /usr/lib/berth/
  cp units/*.service units/*.socket units/*.slice /etc/systemd/system/
  local as_berth=(setpriv --reuid berth --regid berth --init-groups --)
  "${as_berth[@]}" /usr/lib/berth/berthd host add --data /var/lib/berth/control --name guest >/tmp/host
  (umask 077
    sed -n 2p /tmp/host >/var/lib/berth/agent/host.token
    "${as_berth[@]}" /usr/lib/berth/berthd token create --data /var/lib/berth/control --name guest >/var/lib/berth/admin.token)
  cat >/etc/berth/agent.toml <<CONFIG
data_dir = "/var/lib/berth/agent"
control_plane = "$api"
host_id = "$(sed -n 1p /tmp/host)"
token_file = "/var/lib/berth/agent/host.token"
cgroup_base = "berth.slice/berth-containers.service"
launcher_dir = "/var/lib/berth/launcher"
edge_socket = "/var/lib/berth/edge/edge.sock"
pool_bytes = 2147483648
[build]
packs_dir = "/usr/lib/berth/packs"
CONFIG
  systemctl daemon-reload
  systemctl enable --quiet --now berth-edge.socket berth-edge berth-launcher berthd berth-agent
}

# until_true SECONDS COMMAND…: bounded wait.
until_true() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/tmp/out 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 1; done
}
host_is_up() { berth hosts --json | grep -q '"up": *true'; }
serves() { curl -fsS --max-time 30 -H "Host: $1.localhost" http://127.0.0.1/ | grep -q "$2"; }
main_pid() { systemctl show --property MainPID --value "$1"; }
containers() { find /sys/fs/cgroup/berth.slice/berth-containers.service/berth-default -mindepth 2 -name cgroup.procs -exec cat {} + | sort -n; }

# An app that costs next to nothing: apps are many here.
small_app() {
  mkdir -p "/tmp/$1"
  echo "i am $1" >"/tmp/$1/index.html"
  echo 'web: busybox httpd -f -p $PORT -h /app' >"/tmp/$1/Procfile"
  berth apps create "$1" && berth scale -a "$1" web=1 web.memory.floor=16M web.memory=64M web.disk.floor=4M web.disk=16M &&
    (cd "/tmp/$1" && berth deploy . -a "$1")
}

# disturb TEXT COMMAND…: under requests one after another, with the containers' processes compared.
disturb() {
  local text=$1 before; shift
  before=$(containers)
  ( : >/tmp/requests; while [ ! -e /tmp/enough ]; do serves one 'i am one' && echo ok >>/tmp/requests || echo failed >>/tmp/requests; done ) & local load=$!
  until_true 30 grep -q ok /tmp/requests
  "$@" >/tmp/out 2>&1; local status=$?
  until_true 120 host_is_up
  local so_far; so_far=$(grep -c . /tmp/requests)
  until_true 120 test_more_requests_than "$so_far"
  touch /tmp/enough; wait $load; rm /tmp/enough
  { echo "exit status $status; $(grep -c ok /tmp/requests) ok, $(grep -c failed /tmp/requests) failed"; diff <(echo "$before") <(containers); } >>/tmp/out
  [ $status = 0 ] && [ "$(grep -c failed /tmp/requests)" = 0 ] && [ "$before" = "$(containers)" ]; say $? "$text"
}
test_more_requests_than() { [ "$(grep -c . /tmp/requests)" -gt $(($1 + 5)) ]; }
killed() { local old; old=$(main_pid "$1"); kill -9 "$old"; until_true 60 another_pid "$1" "$old"; }
another_pid() { local now; now=$(main_pid "$1"); [ "$now" != 0 ] && [ "$now" != "$2" ]; }
executed_anew() { local old; old=$(main_pid "$1"); systemctl reload "$1" && sleep 1 && [ "$(main_pid "$1")" = "$old" ]; }

install_berth >/tmp/out 2>&1; say $? "the units start"
BERTH_TOKEN=$(cat /var/lib/berth/admin.token); export BERTH_TOKEN
until_true 100 host_is_up || { systemctl status 'berth*' --no-pager; journalctl -u 'berth*' --no-pager | tail -n 20; } >>/tmp/out 2>&1 && host_is_up >/dev/null; say $? "the agent connects"
host_is_up >/dev/null || exit 1
berth stacks import berth-13 image.tar >/tmp/out 2>&1; say $? "the stack is imported"
{ small_app one && until_true 60 serves one 'i am one'; } >/tmp/out 2>&1; say $? "an app is built and serves"
[ -n "$(containers)" ]; say $? "its container is below the delegated group"
cat "$(dirname "$(find /sys/fs/cgroup/berth.slice -path '*berth-default/*' -name memory.max | head -n 1)")/memory.max" >/tmp/out
[ "$(cat /tmp/out)" = 67108864 ]; say $? "its group has the quota asked for"

for daemon in berth-agent berth-launcher berthd; do
  disturb "kill -9 of $daemon disturbs nobody" killed "$daemon"
  disturb "systemctl restart $daemon disturbs nobody" systemctl restart "$daemon"
done
disturb "systemctl restart berth-edge loses no request that comes in" systemctl restart berth-edge
disturb "the launcher executes itself anew in place" executed_anew berth-launcher

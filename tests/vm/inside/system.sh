# Functions for the parts that need the whole of Berth: the units of deploy/systemd installed and running, small apps, bounded waits.

api=http://127.0.0.1:7070
export BERTH_URL=$api BERTH_CONFIG_DIR=/root/berth
mine=/sys/fs/cgroup/berth.slice/berth-containers.service/berth-default

install_berth() {
  useradd --system --home-dir /var/lib/berth/control berth
  useradd --system --home-dir /var/lib/berth/edge berth-edge
  install -d -m 0755 /usr/lib/berth /etc/berth /var/lib/berth
  install -d -m 0700 /var/lib/berth/agent /var/lib/berth/launcher
  install -d -m 0700 -o berth -g berth /var/lib/berth/control
  install -d -m 0700 -o berth-edge -g berth-edge /var/lib/berth/edge
  mv berthd berth-edge /usr/lib/berth/ && cp berth-agent berth-launcher /usr/lib/berth/
  mkdir -p /usr/lib/berth/packs/lib /usr/lib/berth/packs/plain/bin
  cp packs/lib/choose packs/lib/enter /usr/lib/berth/packs/lib/
  cp plain/* /usr/lib/berth/packs/plain/bin/ && echo plain >/usr/lib/berth/packs/order
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

# A stack of busybox alone, and plain/ as the only pack: the guest computes a hundred times slower than a machine, and what a stack or a
# pack is has its tests elsewhere.
small_stack() {
  mkdir -p /tmp/stack/usr/bin /tmp/stack/etc
  tar -C /tmp/stack -xf image.tar ./usr/bin/busybox ./etc/passwd ./etc/group
  for name in $(/tmp/stack/usr/bin/busybox --list); do ln -s busybox "/tmp/stack/usr/bin/$name" 2>/dev/null; done
  mkdir /tmp/stack/{proc,sys,dev,tmp,app,run,root,var} && ln -s usr/bin /tmp/stack/bin
  chown -R 0:0 /tmp/stack && chown 1000:1000 /tmp/stack/app
  tar -C /tmp/stack --numeric-owner -cf /tmp/stack.tar .
}

# Once for all parts. Without it the parts that need it have nothing to say.
berth_is_up() {
  [ ! -e /var/lib/berth/admin.token ] || return 0
  install_berth >/tmp/out 2>&1; say $? "the units start"
  BERTH_TOKEN=$(cat /var/lib/berth/admin.token); export BERTH_TOKEN
  until_true 100 host_is_up ||
    { systemctl status 'berth*' --no-pager; journalctl -u 'berth*' --no-pager | tail -n 20; } >>/tmp/out 2>&1
  host_is_up; say $? "the agent connects"
  host_is_up || exit 1
  { small_stack && berth stacks import berth-13 /tmp/stack.tar; } >/tmp/out 2>&1; say $? "the stack is imported"
}

# until_true SECONDS COMMAND…: bounded wait.
until_true() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/tmp/out 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 1; done
}
host_is_up() { berth hosts --json | grep -q '"up": *true'; }
serves() { curl -fsS --max-time 30 -H "Host: $1.localhost" http://127.0.0.1/ | grep -q "$2"; }
main_pid() { systemctl show --property MainPID --value "$1"; }
containers() { find "$mine" -mindepth 2 -name cgroup.procs -exec cat {} + | sort -n; }

# small_app NAME [deploy options]: one that costs next to nothing: apps are many here, and placement counts floors.
small_app() {
  local name=$1; shift
  mkdir -p "/tmp/$name"
  echo "i am $name" >"/tmp/$name/index.html"
  echo 'web: exec busybox httpd -f -p $PORT -h /app' >"/tmp/$name/Procfile"
  berth apps create "$name" &&
    berth scale -a "$name" web=1 web.cpu.floor=10m web.memory.floor=16M web.memory=64M web.disk.floor=4M web.disk=16M &&
    (cd "/tmp/$name" && berth deploy . -a "$name" "$@")
}

# How many of the apps of power.sh answer.
serving() {
  local n count=0
  for n in $(seq 2 "$(cat apps)"); do serves "app-$n" "i am app-$n" 2>/dev/null && count=$((count + 1)); done
  serves one 'i am one' 2>/dev/null && count=$((count + 1))
  echo $count
}
all_serve() { [ "$(serving)" = "$(cat apps)" ]; }

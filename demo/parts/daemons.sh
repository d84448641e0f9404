# The daemons: data directory, start, restart when one dies (systemd does that on a real machine), stop and clean up.
# uid 60990 runs the control plane and 60991 the edge: two that nobody else has; no account is made.

control_uid=60990 edge_uid=60991
api=http://127.0.0.1:$api_port
run=$data/run

prepare_data() {
  for port in "$api_port" "$edge_port"; do
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null ||
      fail "port $port on 127.0.0.1 is taken (D12)" "stop what listens there, or give --api-port/--edge-port"
  done
  install -d -m 0755 "$data" "$data/bin" "$run"
  install -d -m 0700 "$data/agent" "$data/launcher"
  install -d -m 0700 -o $control_uid -g $control_uid "$data/control"
  install -d -m 0700 -o $edge_uid -g $edge_uid "$data/edge"
  for program in berthd berth-agent berth-launcher berth-edge berth; do
    install -m 0755 "$bin/$program" "$data/bin/$program.new" && mv "$data/bin/$program.new" "$data/bin/$program"
  done
  rm -rf "$data/packs" && cp -r "$root/deploy/packs" "$data/packs"
}

as_control() { setpriv --reuid $control_uid --regid $control_uid --clear-groups --inh-caps=-all -- "$@"; }

# The credentials are made once, by the control plane's own program, before or while it runs.
make_credentials() {
  if [ ! -s "$data/agent/host.token" ]; then
    as_control "$data/bin/berthd" host add --data "$data/control" --name "$(hostname)" >"$run/host.new"
    sed -n 1p "$run/host.new" >"$data/agent/host.id"
    (umask 077; sed -n 2p "$run/host.new" >"$data/agent/host.token"); rm -f "$run/host.new"
  fi
  if [ ! -s "$data/admin.token" ]; then
    (umask 077; as_control "$data/bin/berthd" token create --data "$data/control" --name demo >"$data/admin.token")
  fi
}

write_agent_config() {
  cat >"$data/agent/agent.toml" <<EOF
installation = "$installation"
data_dir = "$data/agent"
control_plane = "$api"
host_id = "$(cat "$data/agent/host.id")"
token_file = "$data/agent/host.token"
launcher_dir = "$data/launcher"
edge_socket = "$data/edge/edge.sock"
metrics_listen = "127.0.0.1:0"
pool_bytes = $(( pool_gib * 1024 * 1024 * 1024 ))

[build]
packs_dir = "$data/packs"
ca_bundle = "/etc/ssl/certs/ca-certificates.crt"
EOF
}

# keep NAME COMMAND…: runs the command, and again when it dies; a pause of 0.2 s keeps a broken one from spinning.
keep() {
  local name=$1; shift
  (
    trap 'kill "$child" 2>/dev/null; exit 0' TERM
    trap '' INT
    while :; do
      "$@" >>"$data/run/$name.log" 2>&1 </dev/null & child=$!
      echo "$child" >"$run/$name.pid.new" && mv "$run/$name.pid.new" "$run/$name.pid"
      wait "$child" || true
      sleep 0.2
    done
  ) &
  echo $! >"$run/$name.keeper"
}

# More options of `berthd serve` may stand in DATA/berthd.options; they are read at each start of it.
control_plane() {
  local options=()
  read -ra options 2>/dev/null <"$data/berthd.options" || true
  exec setpriv --reuid $control_uid --regid $control_uid --clear-groups --inh-caps=-all -- \
    "$data/bin/berthd" serve --data "$data/control" --listen "127.0.0.1:$api_port" --public-url "$api" \
    --apps-url "http://localhost:$edge_port" "${options[@]}"
}

daemons_up() {
  local start; start=$(now_ms)
  make_credentials
  write_agent_config
  keep launcher "$data/bin/berth-launcher" --dir "$data/launcher" --edge-listen "127.0.0.1:$edge_port" --edge-user $edge_uid \
    -- "$data/bin/berth-edge" --dir "$data/edge"
  keep control control_plane
  until_true 20 "control plane" curl -fsS "$api/healthz" || fail "the control plane does not answer" "see $run/control.log"
  keep agent "$data/bin/berth-agent" serve --config "$data/agent/agent.toml"
  export BERTH_URL=$api BERTH_TOKEN BERTH_CONFIG_DIR=$data/cli
  BERTH_TOKEN=$(cat "$data/admin.token")
  until_true 60 "host" host_is_up || fail "the agent did not connect" "see $run/agent.log"
  printf 'ok %6d.%01d s  daemons: launcher, edge, control plane, agent\n' $(( ($(now_ms) - start) / 1000 )) $(( ($(now_ms) - start) % 1000 / 100 ))
}

berth() { "$data/bin/berth" "$@"; }

host_is_up() { [ "$(berth hosts --json | jq '[.[] | select(.up)] | length')" -ge 1 ]; }

# Stops the daemons, the containers with them, and gives back everything the machine lent. Idempotent.
daemons_down() {
  set +e
  trap '' INT TERM
  local name
  [ -z "${sleeping:-}" ] || kill "$sleeping" 2>/dev/null
  for name in agent control launcher; do
    [ -s "$run/$name.keeper" ] && kill "$(cat "$run/$name.keeper")" 2>/dev/null
  done
  for name in agent control; do wait_gone "$run/$name.pid" 15; done
  "$data/bin/berth-agent" teardown --config "$data/agent/agent.toml" >>"$run/agent.log" 2>&1 ||
    echo "teardown was not complete; see $run/agent.log" >&2
  wait_gone "$run/launcher.pid" 15
  rm -f "$run"/*.keeper "$run"/*.pid "$run"/*.pid.new "$data/env"
  set -e
}

wait_gone() {
  local pid; pid=$(cat "$1" 2>/dev/null) || return 0
  until_true "$2" "end of $1" not_running "$pid" || kill -9 "$pid"
}

not_running() { ! kill -0 "$1"; }

# For tests: written when all is up, so that they need not guess.
ready_file() {
  (umask 077; cat >"$data/env.new" <<EOF
BERTH_URL=$api
BERTH_TOKEN=$BERTH_TOKEN
BERTH_EDGE=127.0.0.1:$edge_port
EOF
  )
  mv "$data/env.new" "$data/env"
  echo "ready"
}

# The sleep holds none of the caller's descriptors and ends with the script: whoever reads its output sees the end of it.
wait_for_interrupt() {
  while :; do
    sleep 3600 >/dev/null 2>&1 </dev/null & sleeping=$!
    wait "$sleeping" || true
  done
}

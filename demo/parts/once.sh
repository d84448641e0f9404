# The walk of --once: every step of an app's life, asserted from outside: by curl, by the kernel's own files, by git.

app=python
app_url=http://$app.localhost:$edge_port/
at_edge() { curl -sS -m 10 --resolve "$app.localhost:$edge_port:127.0.0.1" "$@"; }

once_walk() {
  berth apps destroy "$app" --confirm "$app" >/dev/null 2>&1 || true
  rm -rf "$work"
  app_create "$app"
  app_push "$app"
  step "the pushed commit answers" body_has "$(head_commit)"
  requests_start
  step "scaled to three, with a quota" berth_quiet scale web=3 web.memory=200M web.cpu=500m web.pids=64 --app "$app"
  step "the kernel enforces exactly that quota" until_true 15 "the kernel's files to hold it" kernel_has_quota
  step "config var set" berth_quiet config set GREETING=ahoy --app "$app"
  step "the new config answers" body_has ahoy
  once_good_release
  once_bad_release
  step "rolled back" berth_quiet rollback --app "$app"
  step "the older commit answers" body_has "$first_commit"
  step "restarted" berth_quiet restart --app "$app"
  step "no request failed across all changes" requests_stop
  step "metrics have the app's series and pass promtool" until_true 30 "the edge's counters to reach the agent" metrics_are_good
  step "logs have the app's lines and the platform's" logs_are_good
  step "app destroyed, its containers with it" once_destroy
}

berth_quiet() { berth "$@" >"$run/berth.out" 2>&1 || { cat "$run/berth.out" >&2; return 1; }; }

head_commit() { in_repository "$app" rev-parse HEAD; }

body_has() { until_true 10 "the body to contain $1" body_has_now "$1"; }
body_has_now() { at_edge "$app_url" | grep -qF "$1"; }

once_good_release() {
  first_commit=$(head_commit)
  echo "# second" >>"$work/$app/README.md"
  app_commit "$app" "Second version"
  app_push "$app"
  step "the second commit answers" body_has "$(head_commit)"
}

# A commit that exits at once: the push tells so, the ref has moved, and the commit before it serves on.
once_bad_release() {
  local good out; good=$(head_commit) out=$run/bad-push.out
  printf 'web: python -c "import sys; sys.exit(3)"\n' >"$work/$app/Procfile"
  app_commit "$app" "Broken version"
  in_repository "$app" push berth main >"$out" 2>&1 || true
  step "a bad release is refused with its code and last log lines" grep -qE 'R1[0-9]' "$out"
  step "the commit before it serves on" body_has "$good"
  in_repository "$app" revert --no-edit HEAD >/dev/null
}

instances() { berth ps --app "$app" --json | jq -r '.[] | select(.state == "healthy") | .id'; }

kernel_has_quota() {
  local id count=0
  for id in $(instances); do
    count=$((count + 1))
    kernel_value "$id" memory.limit_in_bytes memory.max 209715200 || return 1
    kernel_value "$id" pids.max pids.max 64 || return 1
    kernel_value "$id" cpu.cfs_quota_us cpu.max 50000 || return 1
  done
  [ "$count" = 3 ] || { echo "three healthy instances were asked for, $count there" >&2; return 1; }
}

# The file is called differently on cgroup v1 and v2; cpu.max holds "quota period".
kernel_value() { # INSTANCE V1-FILE V2-FILE WANTED
  local file seen
  file=$(find /sys/fs/cgroup -path "*$1*" \( -name "$2" -o -name "$3" \) 2>/dev/null | head -n 1)
  seen=$(cut -d' ' -f1 "$file" 2>/dev/null)
  [ "$seen" = "$4" ] || { echo "${file:-no file $2 or $3 for $1}: want $4, have $seen" >&2; return 1; }
}

# A request every few milliseconds, one after another, until told to stop; every answer's status is kept.
requests_start() {
  : >"$run/requests"; touch "$run/requesting"
  (
    end=$(( $(now_ms) + 600000 ))
    while [ -e "$run/requesting" ] && [ "$(now_ms)" -lt "$end" ]; do
      at_edge -o /dev/null -w '%{http_code} %{errormsg}\n' "$app_url" >>"$run/requests" 2>/dev/null || true
    done
  ) & requests_pid=$!
}

requests_stop() {
  rm -f "$run/requesting"; wait "$requests_pid" || true
  local all bad
  all=$(wc -l <"$run/requests") bad=$(grep -cv '^200' "$run/requests" || true)
  requests_summary="$all requests, $bad failed"
  [ "$bad" = 0 ] && [ "$all" -gt 100 ] || { echo "$requests_summary:" >&2; sort "$run/requests" | uniq -c >&2; return 1; }
}

metrics_are_good() {
  at_edge "http://$(cat "$data/agent/metrics.addr")/metrics" >"$run/metrics"
  promtool check metrics <"$run/metrics" || return 1
  local name
  for name in container_cpu_usage_seconds_total container_memory_working_set_bytes berth_http_requests_total; do
    grep -q "^$name{.*app=\"$app\"" "$run/metrics" || { echo "no $name of $app" >&2; return 1; }
  done
}

logs_are_good() {
  berth logs -n 500 --process web --app "$app" >"$run/logs" && berth logs -n 10 --process router --app "$app" >"$run/requests"
  grep -qE 'app\[web\.[0-9]+\]: ' "$run/logs" && grep -qE 'berth\[[a-z0-9.]+\]: ' "$run/logs" &&
    grep -qE 'router\[web\.[0-9]+\]: at=info method=GET ' "$run/requests"
}

once_destroy() {
  destroyed=$(berth ps --app "$app" --json | jq -r '.[].id')
  berth_quiet apps destroy "$app" --confirm "$app" && until_true 60 "containers to go" no_container_left
}
no_container_left() {
  local id
  for id in $destroyed; do [ -z "$(find /sys/fs/cgroup -type d -name "*$id*" -print -quit 2>/dev/null)" ] || return 1; done
}

# Kernel objects go a moment after their last user: wait for that, but not for ever.
once_nothing_left() { step "nothing is left behind" until_true 20 "nothing to be left" nothing_left; }
nothing_left() { snapshot_take after; snapshot_differences before after >"$run/left"; [ ! -s "$run/left" ] || return 1; }

once_summary() { echo; echo "All steps held: ${requests_summary:-}."; }

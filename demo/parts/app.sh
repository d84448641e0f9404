# One of demo/apps as a git repository of its own, created and pushed as its owner would.

work=$data/work

app_repository() { # NAME -> prints the directory; made afresh from demo/apps unless it is there
  local name=$1 dir=$work/$1
  if [ ! -d "$dir/.git" ]; then
    mkdir -p "$work" && cp -r "$root/demo/apps/$name" "$dir"
    in_repository "$name" init -q -b main
    app_commit "$name" "First version"
  fi
}

in_repository() { # NAME GIT-ARGUMENTS…
  local name=$1; shift
  git -C "$work/$name" -c user.name=demo -c user.email=demo@localhost -c credential.helper= \
    -c "credential.helper=!f() { echo username=berth; echo password=\$BERTH_TOKEN; }; f" "$@"
}

app_commit() { in_repository "$1" add -A && in_repository "$1" commit -q --allow-empty -m "$2"; }

app_create() {
  app_repository "$1"
  if ! berth apps info --app "$1" >/dev/null 2>&1; then
    (cd "$work/$1" && step "app $1 created" quietly berth apps create "$1")
  fi
}

app_push() {
  local start; start=$(now_ms)
  in_repository "$1" push berth main 2>&1 | sed 's/^/             /' || fail "push of $1"
  printf 'ok %6d.%01d s  pushed %s\n' $(( ($(now_ms) - start) / 1000 )) $(( ($(now_ms) - start) % 1000 / 100 )) "$1"
}

quietly() { "$@" >/dev/null; }

print_addresses() {
  cat <<EOF

  App         http://python.localhost:$edge_port/       (curl http://python.localhost:$edge_port/)
  API         $api/v1   token in $data/admin.token
  Metrics     http://$(cat "$data/agent/metrics.addr")/metrics
  Repository  $work/python   (git push berth main)
  Command     export BERTH_URL=$api BERTH_TOKEN=\$(cat $data/admin.token); $data/bin/berth ps -a python

  Ctrl-C stops it all; the next run starts with what this one made.
EOF
}

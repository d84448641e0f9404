# What the demo prints: one line per step with its time, and errors that say what to do.

now_ms() { local t=$EPOCHREALTIME; echo $(( ${t/[.,]/} / 1000 )); }

# step TEXT COMMAND…: runs the command, shows its progress where there is a terminal, prints "ok  1.2 s  TEXT".
step() {
  local text=$1 start end; shift
  [ ! -t 1 ] || printf '     ...  %s\r' "$text"
  start=$(now_ms)
  "$@" || fail "$text"
  end=$(now_ms)
  printf 'ok %6d.%01d s  %s\n' $(( (end - start) / 1000 )) $(( (end - start) % 1000 / 100 )) "$text"
}

fail() {
  printf 'FAILED       %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf '             %s\n' "$2" >&2
  exit 1
}

# until_true SECONDS TEXT COMMAND…: repeats the command until it succeeds, at most SECONDS long.
until_true() {
  local seconds=$1 text=$2 end; shift 2
  end=$(( $(now_ms) + seconds * 1000 ))
  while ! "$@" >/dev/null 2>&1; do
    [ "$(now_ms)" -lt "$end" ] || { echo "waited $seconds s in vain: $text" >&2; return 1; }
    sleep 0.05
  done
}

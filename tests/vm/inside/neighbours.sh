# Noisy neighbours on v2: one app under requests one after another, beside it a one-off that takes all it can get of one thing. No
# request fails, the platform's processes are those from before, and an event names the culprit.
#
# What the stack of busybox cannot do is left to tests/neighbours on the machine itself: floods of connections and lookups, inotify and
# open files are no matter of control groups, and their limits are the same code on both.

berth_is_up
# The tests of quotas may have left swap, which a memory bomb would fill first.
[ ! -e /swap ] || swapoff /swap
[ -d /tmp/one ] || { small_app one && until_true 60 serves one 'i am one'; } >/tmp/out 2>&1; say $? "a victim is there"

platform() { for unit in berthd berth-agent berth-launcher berth-edge; do main_pid "$unit"; done; }
named() { berth events -n 1000 -a one --json >/tmp/events && [ "$(grep -o "\"code\": *\"$1\"" /tmp/events | grep -c .)" -gt "$2" ]; }

# neighbour TEXT CODE OPTIONS… -- COMMAND
neighbour() {
  local text=$1 code=$2 before platform noisy load; shift 2
  local options=(); while [ "$1" != -- ]; do options+=("$1"); shift; done; shift
  before=$(berth events -n 1000 -a one --json | grep -o "\"code\": *\"$code\"" | grep -c .) platform=$(platform)
  rm -f /tmp/enough
  ( : >/tmp/requests; while [ ! -e /tmp/enough ]; do serves one 'i am one' && echo ok >>/tmp/requests || echo failed >>/tmp/requests; done ) & load=$!
  timeout 100 berth run -T -a one "${options[@]}" -- "$1" </dev/null >/tmp/noise 2>&1 & noisy=$!
  until_true 90 named "$code" "$before"; local seen=$?
  kill $noisy 2>/dev/null; wait $noisy 2>/dev/null
  touch /tmp/enough; wait $load
  { echo "$(grep -c ok /tmp/requests) ok, $(grep -c failed /tmp/requests) failed, seen: $seen"; diff <(echo "$platform") <(platform); tail -n 5 /tmp/noise; } >/tmp/out
  [ $seen = 0 ] && [ "$(grep -c ok /tmp/requests)" -gt 3 ] && ! grep -q failed /tmp/requests && [ "$platform" = "$(platform)" ]; say $? "$text"
}

neighbour "a cpu hog is borne and named" R29 --cpu 50m -- 'while :; do :; done'
neighbour "a fork bomb is borne and named" R28 --cpu 500m --pids 32 -- 'while :; do sleep 60 & done'
neighbour "a memory bomb is borne and named" R14 --memory 48M -- 'sleep 1; x=x; while :; do x=$x$x$x$x; done'
neighbour "a filler of /tmp is borne and named" R14 --memory 48M -- 'dd if=/dev/zero of=/tmp/full bs=1M'
neighbour "a filler of the page cache is borne and named" R30 --memory 48M --disk 200M -- \
  'cd /tmp; truncate -s 4G /app/sparse; while :; do cat /app/sparse >/dev/null; done'
neighbour "a filler of the disk is borne and named" R21 --disk 16M -- 'while :; do dd if=/dev/zero of=/app/full bs=1M 2>/dev/null; sleep 1; done'
neighbour "a filler of small files is borne and named" R21 --disk 16M -- 'n=0; while :; do echo $n >/app/$n; n=$((n + 1)); done 2>/dev/null'
neighbour "a storm of signals is borne and named" R29 --cpu 50m -- 'trap : USR1; while :; do kill -USR1 $$; done'

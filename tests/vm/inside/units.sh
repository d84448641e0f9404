# The units of deploy/systemd: an app comes up, and goes on when any daemon is killed, restarted or executed anew.

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

berth_is_up
{ small_app one && until_true 60 serves one 'i am one'; } >/tmp/out 2>&1; say $? "an app is built and serves"
[ -n "$(containers)" ]; say $? "its container is below the delegated group"
cat "$(dirname "$(find /sys/fs/cgroup/berth.slice -path '*berth-default/*' -name memory.max | head -n 1)")/memory.max" >/tmp/out
[ "$(cat /tmp/out)" = 67108864 ]; say $? "its group has the quota asked for"

for daemon in berth-agent berth-launcher berthd; do
  disturb "kill -9 of $daemon disturbs nobody" killed "$daemon"
  disturb "systemctl restart $daemon disturbs nobody" systemctl restart "$daemon"
done
killed_together() {
  local unit old=()
  for unit in berthd berth-agent berth-launcher; do old+=("$(main_pid $unit)"); done
  kill -9 "${old[@]}"
  until_true 60 another_pid berth-agent "${old[1]}" && until_true 60 another_pid berth-launcher "${old[2]}"
}
disturb "kill -9 of the three at once disturbs nobody" killed_together
disturb "systemctl restart berth-edge loses no request that comes in" systemctl restart berth-edge
disturb "the launcher executes itself anew in place" executed_anew berth-launcher

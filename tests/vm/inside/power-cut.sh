# After the power was cut while a change was being written: every app serves again, by itself.

export BERTH_URL=http://127.0.0.1:7070 BERTH_CONFIG_DIR=/root/berth
BERTH_TOKEN=$(cat /var/lib/berth/admin.token); export BERTH_TOKEN
apps=$(cat apps)

serving() {
  local n count=0
  for n in $(seq 2 "$apps"); do
    curl -fsS --max-time 30 -H "Host: app-$n.localhost" http://127.0.0.1/ 2>/dev/null | grep -q "i am app-$n" && count=$((count + 1))
  done
  curl -fsS --max-time 30 -H "Host: one.localhost" http://127.0.0.1/ 2>/dev/null | grep -q "i am one" && count=$((count + 1))
  echo $count
}
for _ in $(seq 120); do now=$(serving); [ "$now" = "$apps" ] && break; sleep 2; done
{ echo "$now of $apps serve"; journalctl -b -u 'berth*' --no-pager | tail -n 20; } >/tmp/out
[ "$now" = "$apps" ]; say $? "after a power cut all $apps apps serve again"
berth config set AFTER=yes -a one >/tmp/out 2>&1; say $? "and changes are accepted"
berth-agent doctor >/tmp/out 2>&1; say $? "doctor finds nothing fatal"

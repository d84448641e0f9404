# After the power was cut while a change was being written: every app serves again, by itself.

BERTH_TOKEN=$(cat /var/lib/berth/admin.token); export BERTH_TOKEN
apps=$(cat apps)
until_true $((240 + apps * 10)) all_serve
{ echo "$(serving) of $apps serve"; journalctl -b -u 'berth*' --no-pager | tail -n 30; } >/tmp/out
all_serve; say $? "after a power cut all $apps apps serve again"
echo "(after $SECONDS s)"
berth config set AFTER=yes -a one >/tmp/out 2>&1; say $? "and changes are accepted"
berth-agent doctor >/tmp/out 2>&1; say $? "doctor finds nothing fatal"

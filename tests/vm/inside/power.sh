# After units.sh: many apps, and the power goes while a change is being written. power-cut.sh is what the next boot looks at.

apps=$(cat apps)
for n in $(seq 2 "$apps"); do small_app "app-$n" >/tmp/out 2>&1 || { say 1 "app-$n is deployed"; break; }; done
[ "$(berth apps --json | grep -c '"name"')" = "$apps" ]; say $? "$apps apps are deployed"
sync && touch /var/lib/berth/power-was-on && sync -f /var/lib/berth/power-was-on
# Something is always being written when the power goes.
while :; do berth config set "N=$RANDOM" -a one; done >/tmp/out 2>&1 &
sleep 2
echo "cut the power"
sleep 300

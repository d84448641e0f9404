# Many apps, and the power goes while a change is being written. power-cut.sh is what the next boot looks at.

berth_is_up
apps=$(cat apps)
[ -d /tmp/one ] || { small_app one && until_true 60 serves one 'i am one'; } >/tmp/out 2>&1; say $? "an app is there to be changed"
for n in $(seq 2 "$apps"); do
  small_app "app-$n" --no-wait >/tmp/out 2>&1 || { say 1 "app-$n is deployed"; break; }
  [ $((n % 5)) != 0 ] || echo "(app-$n after $SECONDS s)"
done
until_true 300 all_serve; now=$(serving); { echo "$now of $apps serve"; berth apps; } >/tmp/out
[ "$now" = "$apps" ]; say $? "$apps apps serve"
sync && touch /var/lib/berth/power-was-on && sync -f /var/lib/berth/power-was-on
# Something is always being written when the power goes.
while :; do berth config set "N=$RANDOM" -a one; done >/tmp/out 2>&1 &
sleep 2
echo "cut the power"
sleep 300

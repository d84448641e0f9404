#!/bin/sh
# Does a bit of work every second until it is told to stop.
trap 'echo "worker: told to stop after $count jobs"; exit 0' TERM
count=0
echo "worker: started, commit ${BERTH_COMMIT:-unknown}"
while :; do
    count=$((count + 1))
    echo "worker: job $count done"
    sleep 1 &
    wait $!
done

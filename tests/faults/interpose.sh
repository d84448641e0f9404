#!/bin/sh
# Stands in front of a daemon's program during fault tests, so that the daemon itself needs no switch for them. In the directory run/
# beside this one's parent: while PROGRAM.hold exists, the daemon is not started; if PROGRAM.fault exists it is used up, and the
# daemon starts under strace with the calls and the fault that are in it, which writes PROGRAM.trace.
program=$(basename "$0")
run=$(dirname "$0")/../run
while [ -e "$run/$program.hold" ]; do sleep 0.05; done
# A launcher's children are containers, which are not to be slowed down.
follow=-f
[ "$program" != berth-launcher ] || follow=
if mv "$run/$program.fault" "$run/$program.fault.used" 2>/dev/null; then
  read -r calls fault <"$run/$program.fault.used"
  # shellcheck disable=SC2086
  exec strace -D -I2 $follow -qq -e "trace=$calls" ${fault:+-e "$fault"} -o "$run/$program.trace" -- "$0.real" "$@"
fi
exec "$0.real" "$@"

# The stack image: made once from Debian packages, kept beside the data directory's other large things.

stack_name=berth-13

stack_import() {
  if berth stacks list --json | jq -e --arg name "$stack_name" 'any(.[]; .name == $name)' >/dev/null; then return; fi
  if [ -z "$stack" ]; then
    stack=${BERTH_STACK_CACHE:-/var/cache/berth}/$stack_name.tar
    [ -s "$stack" ] || step "stack image from Debian packages (trixie)" "$root/deploy/stack/build.sh" "$stack"
  fi
  step "stack image imported" berth stacks import "$stack_name" "$stack"
}

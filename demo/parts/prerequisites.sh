# What must be there before anything starts: root, Debian's packages, the binaries.

require_root() {
  [ "$(id -u)" = 0 ] || fail "not root (D10): containers, cgroups and networks need it" "run: sudo $0"
}

# Packages that are missing, out of deploy/debian-packages.txt (one a line, # starts a comment).
install_packages() {
  local wanted missing=()
  wanted=$(sed -e 's/#.*//' "$root/deploy/debian-packages.txt" | tr -s ' \n' ' ')
  for package in $wanted; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  step "Debian packages: ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
  local log; log=$(mktemp)
  if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    rm -f "$log"
  else
    tail -n 20 "$log" >&2; return 1
  fi
}

# Builds as the invoking user under sudo, so that nothing of root's lands in target/.
build_binaries() {
  [ -n "$bin" ] && return
  bin=$root/target/release
  step "build (cargo build --release)" cargo_build
}

cargo_build() {
  local as=()
  if [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then as=(sudo -u "$SUDO_USER" -H --); fi
  "${as[@]}" bash -lc 'cd "$1" && exec cargo build --release --locked --workspace --bins' cargo-build "$root" ||
    { echo "is Rust installed for ${SUDO_USER:-root}? see https://rustup.rs" >&2; return 1; }
}

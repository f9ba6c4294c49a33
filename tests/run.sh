#!/usr/bin/env bash
# All checks of the project, in one command: formatting, lints, the build, unmodified clients through
# the built program, what lies in deploy/, documentation and tests. It installs what is missing with
# apt (as root or with sudo), but never a Rust toolchain. The last line is `N passed, N failed`, over
# all that counts its tests; the exit code is not 0 if anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Slow registries are asked again before anything fails.
export CARGO_NET_RETRY=10 PIP_RETRIES=10 PIP_DISABLE_PIP_VERSION_CHECK=1
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}" PYTHONDONTWRITEBYTECODE=1

passed=0
failed=0
log="$(mktemp)"
now=""
trap 'code=$?; rm -f "$log"; [[ -z $now ]] || printf "error: %s failed\n" "$now" >&2; exit $code' EXIT

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# step TITLE COMMAND...: runs it and tells how long it took; if it fails, everything stops.
step() {
  local began=$SECONDS
  now=$1
  printf '\n=== %s\n' "$now"
  shift
  # Without `||` or `if`, which would switch off `set -e` in whatever it calls.
  "$@"
  printf -- '--- %s: %s s\n' "$now" "$((SECONDS - began))"
  now=""
}

# counted COMMAND...: adds the "N passed" and "N failed" that it prints; goes on if it fails.
counted() {
  local code=0 p f
  "$@" 2>&1 | tee "$log" || code=$?
  read -r p f < <(awk '
    /^test result: / || /^[0-9]+ passed, [0-9]+ failed$/ {
      for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) p += $(i - 1)
        if ($i ~ /^failed/) f += $(i - 1)
      }
    }
    END { print p + 0, f + 0 }' "$log")
  # What ended badly without saying so, such as a test that does not compile, is a failure, too.
  if [[ $code -ne 0 && $f -eq 0 ]]; then f=1; fi
  passed=$((passed + p))
  failed=$((failed + f))
}

has() { command -v "$1" >/dev/null 2>&1; }

install() {
  local sudo=()
  if [[ $EUID -ne 0 ]]; then
    has sudo || fail "missing: $*. Install them, or run this as root or with sudo."
    sudo=(sudo)
  fi
  has apt-get || fail "missing: $*. Install them with your package manager."
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=10 -qq)
  "${apt[@]}" update
  "${apt[@]}" install -y --no-install-recommends "$@"
}

tools() {
  local missing=()
  has curl || missing+=(curl)
  has openssl || missing+=(openssl)
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
  has cc || missing+=(build-essential)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  has node || missing+=(nodejs)
  has valgrind || missing+=(valgrind)
  has npm || missing+=(npm)
  has faketime || missing+=(faketime)
  has promtool || missing+=(prometheus)
  if [[ ${#missing[@]} -gt 0 ]]; then install "${missing[@]}"; fi
  if ! has cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH="$HOME/.cargo/bin:$PATH"; fi
  has cargo || fail "cargo is missing: install Rust 1.89 or newer with rustup, and rustfmt and clippy with it."
  cargo fmt --version
  cargo clippy --version
  python3 --version
  printf 'node %s\n' "$(node --version)"
  node -e 'process.exit(typeof fetch === "function" ? 0 : 1)' ||
    fail "this node has no fetch: install Node.js 18 or newer."
}

# venv NAME [FILE]: a virtual environment with what FILE lists, made anew when that has changed;
# without FILE it is tests/NAME/requirements.txt.
venv() {
  local venv="$CARGO_TARGET_DIR/$1-venv" wanted="${2:-tests/$1/requirements.txt}"
  if ! cmp -s "$wanted" "$venv/installed.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
  fi
}

clients() {
  venv clients
  venv airbyte tests/clients/airbyte.txt
  counted "$CARGO_TARGET_DIR/clients-venv/bin/python" tests/clients/matrix.py "$CARGO_TARGET_DIR/debug/forbear" \
    "$CARGO_TARGET_DIR/airbyte-venv/bin/python"
}

# The examples and their helpers in real runs; each orchestrator wants an environment of its own.
orchestrators() {
  local tool
  for tool in dagster airflow; do
    venv "$tool" "tests/orchestrators/$tool.txt"
    counted "$CARGO_TARGET_DIR/$tool-venv/bin/python" "tests/orchestrators/${tool}_hand_off.py" \
      "$CARGO_TARGET_DIR/debug/forbear"
  done
}

# Manifests, chart, rules and dashboards, against schemas and the real tools.
deploy() {
  local node="$CARGO_TARGET_DIR/deploy-node"
  venv deploy
  if ! cmp -s tests/deploy/package.json "$node/installed.json"; then
    mkdir -p "$node"
    cp tests/deploy/package.json "$node/"
    npm install --prefix "$node" --silent --no-fund --no-audit --no-package-lock
    cp tests/deploy/package.json "$node/installed.json"
  fi
  counted "$CARGO_TARGET_DIR/deploy-venv/bin/python" tests/deploy/manifests.py \
    "$CARGO_TARGET_DIR/debug/forbear" "$node/node_modules"
}

# A real Prometheus on a real forbear: what dashboards and alerts ask for is there.
observe() {
  counted "$CARGO_TARGET_DIR/deploy-venv/bin/python" tests/deploy/observe.py "$CARGO_TARGET_DIR/debug/forbear"
}

# The first build of the image takes minutes, so it is asked for: FORBEAR_IMAGE=1.
image() {
  if [[ -z ${FORBEAR_IMAGE:-} ]]; then
    printf 'skipped: set FORBEAR_IMAGE=1 to build and run the image\n'
    return
  fi
  if has apt-get; then
    local missing=() tool
    for tool in buildah podman crun mmdebstrap; do has "$tool" || missing+=("$tool"); done
    if [[ ${#missing[@]} -gt 0 ]]; then install "${missing[@]}" fuse-overlayfs; fi
  fi
  deploy/image.sh
}

doc() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet; }

step "Tools" tools
step "Format" cargo fmt --check
step "Lints" cargo clippy --all-targets --locked --quiet -- -D warnings
step "Lints without export of traces" cargo clippy --no-default-features --lib --bins --locked --quiet -- -D warnings
step "Build" cargo build --locked
step "Clients" clients
step "Orchestrators" orchestrators
step "Deployment" deploy
step "Dashboards and metrics" observe
step "Image" image
step "Reference configuration" "$CARGO_TARGET_DIR/debug/forbear" check config.toml
step "Documentation" doc
step "Documentation tests" counted cargo test --doc --locked --quiet
step "Cost" counted cargo bench --locked --bench bench -- cost
step "Tests" counted cargo test --lib --bins --tests --locked --no-fail-fast

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]

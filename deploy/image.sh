#!/usr/bin/env bash
# Builds the Dockerfile, unchanged, on a machine without a container engine or a registry, runs the
# image as a pod would, and tells its size, user, start time and health. The two bases are stand-ins
# made from Debian packages and this machine's Rust; they are kept, so that the next build is quick.
#
#   apt install buildah podman crun fuse-overlayfs mmdebstrap; deploy/image.sh
#
# Needs root. What is missing is a reason to skip, not to fail: then it says so and ends with 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

builder=localhost/forbear-stand-in-rust:bookworm
runtime=localhost/forbear-stand-in-distroless:bookworm
image=localhost/forbear:check
name="forbear-check-$$"
# chroot and overlay work where nested containers do not.
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=overlay
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

skip() {
  printf 'skipped: %s\n' "$*"
  exit 0
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

[[ $(uname -s) == Linux && $EUID -eq 0 ]] || skip "needs root on Linux"
for tool in buildah podman crun mmdebstrap unshare rustc; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done

# Instead of rust:*-bookworm: a minimal Debian, a C compiler, and the toolchain of this machine.
stand_in_for_rust() {
  local c m
  mmdebstrap --quiet --variant=minbase --mode=root \
    --include=gcc,libc6-dev,ca-certificates bookworm "$scratch/builder.tar"
  c="$(buildah from scratch)"
  buildah add --quiet "$c" "$scratch/builder.tar" / >/dev/null
  rm "$scratch/builder.tar"
  buildah config --env PATH=/usr/local/rust/bin:/usr/bin:/bin \
    --env CARGO_HOME=/usr/local/cargo "$c"
  m="$(buildah mount "$c")"
  mkdir -p "$m/usr/local/rust"
  cp -a "$(rustc --print sysroot)"/{bin,lib,libexec} "$m/usr/local/rust/"
  # A workplace may have roots of its own.
  cat /etc/ssl/certs/ca-certificates.crt >"$m/etc/ssl/certs/ca-certificates.crt"
  buildah umount "$c" >/dev/null
  buildah commit --quiet --rm "$c" "$builder" >/dev/null
}

# Instead of distroless/cc:nonroot: the same packages, unpacked and not installed, without a shell.
stand_in_for_distroless() {
  local c root="$scratch/root"
  mkdir "$root"
  mmdebstrap --quiet --variant=extract --mode=root \
    --include=base-files,libc6,libgcc-s1,tzdata,netbase,ca-certificates bookworm - |
    tar -x -C "$root"
  cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
  printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
  # What the packages bring along and distroless leaves out: programs, documents, their records.
  rm -rf "${root:?}"/usr/{bin,sbin}/* "${root:?}"/usr/share/{doc,man,info,locale} \
    "${root:?}"/var/{cache,lib/apt,lib/dpkg,log}
  install -d -m 1777 "$root/tmp"
  c="$(buildah from scratch)"
  buildah add --quiet "$c" "$root" / >/dev/null
  buildah config --user 65532:65532 "$c"
  buildah commit --quiet --rm "$c" "$runtime" >/dev/null
}

# podman COMMAND...: the only cgroups that it accepts are unified ones, in a namespace of our own.
pod() {
  unshare --mount sh -c '
    umount --recursive /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup
    exec podman --runtime crun "$@"' pod "$@"
}

now() { date +%s%N; }
since() { printf '%s ms' "$((($(now) - $1) / 1000000))"; }

build() {
  buildah inspect --type image "$builder" >/dev/null 2>&1 || stand_in_for_rust
  buildah inspect --type image "$runtime" >/dev/null 2>&1 || stand_in_for_distroless
  buildah bud --quiet --pull=never --format docker \
    --build-arg BUILD_IMAGE="$builder" --build-arg RUNTIME_IMAGE="$runtime" \
    --build-arg REVISION=check --tag "$image" . >/dev/null
}

look_inside() {
  local c m programs
  c="$(buildah from --pull=never "$image")"
  m="$(buildah mount "$c")"
  printf 'size   image %s, of that forbear %s\n' \
    "$(du -sh --apparent-size "$m" | cut -f1)" "$(du -h --apparent-size "$m/usr/local/bin/forbear" | cut -f1)"
  programs="$(find "$m/bin/" "$m/sbin/" "$m/usr/bin/" "$m/usr/sbin/" "$m/usr/local/bin/" -mindepth 1)"
  buildah rm "$c" >/dev/null
  [[ $programs == "$m/usr/local/bin/forbear" ]] || fail "there is more to run inside: $programs"
  local user
  user="$(buildah inspect --type image --format '{{.Docker.Config.User}}' "$image")"
  printf 'user   %s\n' "$user"
  [[ $user == 65532:65532 ]] || fail "the image is not for a user without rights"
}

# contain NAME ARGUMENTS...: runs the image, as restricted as the pod security standard of that name asks for.
contain() {
  local name=$1
  shift
  # Limits on files and processes are set because not every root may raise them.
  pod run --rm --name "$name" --network=host --cgroups=disabled --no-healthcheck --read-only \
    --ulimit nofile=20000:20000 --ulimit nproc=20000:20000 \
    --cap-drop=all --security-opt=no-new-privileges --user 65532:65532 \
    --tmpfs /var/lib/forbear:mode=1777 \
    --volume "$scratch/config.toml:/etc/forbear/config.toml:ro" "$image" "$@"
}

serve() {
  local began code=0 id
  began="$(now)"
  contain "$name" >"$scratch/log" 2>&1 &
  local running=$!
  until grep -q '^ready$' "$scratch/log"; do
    kill -0 "$running" 2>/dev/null || fail "it did not start: $(cat "$scratch/log")"
    sleep 0.05
  done
  printf 'start  ready %s after podman was called\n' "$(since "$began")"
  printf 'health '
  pod exec "$name" /usr/local/bin/forbear health --ready
  if pod exec "$name" /bin/sh -c true 2>/dev/null; then fail "a shell could be started"; fi
  id="$(pod inspect --format '{{.State.Pid}}' "$name")"
  printf 'memory %s kB resident, of that %s kB its own\n' \
    "$(awk '/^VmRSS/ {print $2}' "/proc/$id/status")" "$(awk '/^RssAnon/ {print $2}' "/proc/$id/status")"
  began="$(now)"
  pod stop --time 30 "$name" >/dev/null
  wait "$running" || code=$?
  printf 'stop   exit code %s, %s after SIGTERM\n' "$code" "$(since "$began")"
  [[ $code -eq 0 ]] || fail "it did not end in good order: $(tail -n 5 "$scratch/log")"
}

# As the first process of the container, with a command beside it: the only program there is.
wrap() {
  local code=0
  contain "$name-run" run -c /etc/forbear/config.toml -- /usr/local/bin/forbear health --ready \
    >"$scratch/out" 2>"$scratch/log" || code=$?
  printf 'run    a command said %s and ended with %s\n' "$(<"$scratch/out")" "$code"
  [[ $code -eq 0 ]] || fail "the command did not see forbear: $(cat "$scratch/log")"
}

printf '[upstreams.api]\nurl = "http://127.0.0.1:9"\n' >"$scratch/config.toml"
chmod 0755 "$scratch"
build
look_inside
serve
wrap

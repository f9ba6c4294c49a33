# syntax=docker/dockerfile:1
# forbear as a small image: no shell, no package manager, not root, a root file system that is only read.
#
#   docker build -t forbear --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker run --rm --read-only --cap-drop=all --network=host -v forbear-state:/var/lib/forbear \
#     -v "$PWD/config.toml:/etc/forbear/config.toml:ro" forbear
#
# On the host's network, since a configuration that says nothing else listens on loopback.
#
# Both bases can be replaced, by those of a mirror or by their digests; they must have the same libc. A tag
# moves, so a release looks the digests up on the day that it is made, and keeps them with its notes:
#
#   pin() { echo "${1%:*}@$(docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}')"; }
#   docker build -t forbear --build-arg BUILD_IMAGE="$(pin rust:1.95.0-slim-bookworm)" \
#     --build-arg RUNTIME_IMAGE="$(pin gcr.io/distroless/cc-debian12:nonroot)" .
#
# deploy/image.sh builds and tries the image on a machine without a container engine.
ARG BUILD_IMAGE=rust:1.95.0-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY src src
# Shown by `forbear_build_info`, so that a dashboard can tell which build runs where.
ARG REVISION=unknown
# The default features have `otlp`, which lets `[tracing]` export traces. The caches outlive a build,
# so the binary is copied out of them. Packed relocations are 8 KB where there were 400, all read at start;
# the libc must be 2.36 or newer, as in Debian 12, so that they are asked for here and not in general.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    CARGO_NET_RETRY=10 FORBEAR_REVISION="${REVISION}" \
    RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs" cargo build --release --locked --bin forbear \
    && cp target/release/forbear /forbear \
    && mkdir /state

FROM ${RUNTIME_IMAGE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="forbear" \
      org.opencontainers.image.description="A sidecar HTTP resilience proxy" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE /usr/share/doc/forbear/LICENSE
COPY --from=build --chmod=0555 /forbear /usr/local/bin/forbear
# Where relative paths of the configuration lead, that of the ledger and state file among them. Mount
# a volume here if they should outlive the container; with a read-only root nothing else can be written.
COPY --from=build --chown=65532:65532 /state /var/lib/forbear
WORKDIR /var/lib/forbear
USER 65532:65532
# Proxy, admin and, if it is configured, metrics. By default the first two are on loopback, for the
# containers of the same pod; a configuration for anything else sets other addresses.
EXPOSE 8080 8081 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/forbear", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/forbear"]
CMD ["run", "-c", "/etc/forbear/config.toml"]

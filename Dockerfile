# syntax=docker/dockerfile:1
# forbear as a small image: no shell, no package manager, not root, nothing written to disk.
#
#   docker build -t forbear .
#   docker run --rm --read-only --cap-drop=all -v "$PWD/config.toml:/etc/forbear/config.toml:ro" forbear
#
# Both bases can be replaced, for instance by those of a mirror; they must have the same libc.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# The caches outlive a build, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    CARGO_NET_RETRY=10 cargo build --release --locked --bin forbear \
    && cp target/release/forbear /forbear

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="forbear" \
      org.opencontainers.image.description="A sidecar HTTP resilience proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /forbear /usr/local/bin/forbear
USER 65532:65532
# Proxy, admin and, if it is configured, metrics. By default the first two are on loopback, for the
# containers of the same pod; a configuration for anything else sets other addresses.
EXPOSE 8080 8081 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/forbear", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/forbear"]
CMD ["run", "-c", "/etc/forbear/config.toml"]

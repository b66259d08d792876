# Two stages: build on Debian 12, run with nothing but the binary and its libraries.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        build-essential cmake ninja-build pkg-config libuv1-dev libiscsi-dev liburing-dev \
        libmicrohttpd-dev libjansson-dev libsqlite3-dev libisal-dev libxxhash-dev \
        libgnutls28-dev libcyaml-dev libyaml-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The health listener stands in a file, so that options given to the container add to it.
RUN cmake --preset release && cmake --build --preset release \
    && mkdir -p /image/var/lib/replicad /image/tmp /image/etc \
    && cp --parents $(ldd build/release/replicad | grep -o '/[^ ]*' | sort -u) /image/ \
    && cp build/release/replicad /image/replicad \
    && echo 'replicad:x:65532:65532::/var/lib/replicad:/sbin/nologin' > /image/etc/passwd \
    && echo 'health: 0.0.0.0:8081' > /image/etc/replicad.yaml \
    && chown -R 65532:65532 /image/var/lib/replicad && chmod 1777 /image/tmp

# Run with --read-only, a volume on /var/lib/replicad, and all capabilities dropped. The API
# has no access tokens yet: it stays on loopback, so publish it only through a proxy that
# shares the network namespace and knows who may call. Probes use the health listener.
FROM scratch
COPY --from=build /image/ /
USER 65532:65532
ENV STATE_DIRECTORY=/var/lib/replicad
VOLUME /var/lib/replicad
EXPOSE 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/replicad", "--check-health", "127.0.0.1:8081"]
ENTRYPOINT ["/replicad", "--config", "/etc/replicad.yaml"]

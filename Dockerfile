# One image for each program: onespace-operator, onespace-node-agent, onespace.
#
#   docker build --build-arg PROGRAM=onespace-operator -t REGISTRY/onespace-operator:0.1.0 .
#   docker build --build-arg PROGRAM=onespace-node-agent --build-arg USER_ID=0 -t REGISTRY/onespace-node-agent:0.1.0 .
#
# The agent starts as root, because Swift's databases have mode 0600; the chart leaves it one capability, that of reading them.
ARG BUILDER=rust:1-bookworm
ARG BASE=gcr.io/distroless/cc-debian12

FROM ${BUILDER} AS build
ARG PROGRAM
WORKDIR /source
COPY . .
RUN test -n "${PROGRAM}" || { echo "say which program: --build-arg PROGRAM=..." >&2; exit 1; }
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin "${PROGRAM}" && cp "target/release/${PROGRAM}" /program

FROM ${BASE}
ARG USER_ID=65532
COPY --from=build /program /usr/local/bin/program
USER ${USER_ID}:${USER_ID}
ENTRYPOINT ["/usr/local/bin/program"]

# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins -p api -p worker -p migration \
    && mkdir /out \
    && cp target/release/holdfast-api target/release/holdfast-worker target/release/holdfast-migration /out/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin holdfast \
    && install -d -o holdfast -g holdfast -m 0700 /app/data
COPY --from=build /out/ /usr/local/bin/
WORKDIR /app
USER holdfast
# The buffer file lives here; api and worker of one host must share it.
VOLUME /app/data
ENV BUFFER_PATH=/app/data/buffer.redb
EXPOSE 8080 9100
CMD ["holdfast-api", "serve"]

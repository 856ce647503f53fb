# The engine alone: no shell, no package manager, no root. Two stages: the binary is built with the Go of go.mod, and runs
# on nothing but itself, the certificates of the well-known authorities, and an empty data folder of its own.
#
#   docker build -t ecod --build-arg VERSION=1.0.0 --build-arg COMMIT=$(git rev-parse HEAD) .
#   docker run -p 8080:8080 -v ecod-data:/data ecod
#   docker run --rm -v ecod-data:/data ecod client add ACME      # any command, beside the running engine

FROM golang:1.26-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /out/ecod ./cmd/ecod \
 && mkdir -p /out/data /out/tmp && chmod 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ecod /ecod
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/tmp /tmp
USER 65532:65532
# PORT makes it listen on all addresses of the container; hosts that choose a port set it.
ENV ECOD_DATA_DIR=/data PORT=8080
VOLUME /data
EXPOSE 8080
# SIGTERM drains and ends within 25 s: give it 30 before a kill (docker stop -t 30).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/ecod"]
CMD ["serve"]

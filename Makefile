.PHONY: all build test lint format race bench ci

all: build lint test

VERSION ?= dev
COMMIT ?= $(shell git rev-parse HEAD)

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)" -o bin/ecod ./cmd/ecod

test:
	go test ./...

race:
	ECOD_TEST_ALL=1 go test -race -count=1 ./...

lint:
	golangci-lint run

format:
	gofmt -w cmd internal bench

bench:
	go run ./bench
	cd bench/jobs && go run .

ci:
	bash .ci/run

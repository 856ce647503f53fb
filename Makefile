.PHONY: all build test lint format race bench ci

all: build lint test

build:
	go build -o bin/ecod ./cmd/ecod

test:
	go test ./...

race:
	ECOD_TEST_ALL=1 go test -race -count=1 ./...

lint:
	golangci-lint run

format:
	gofmt -w cmd internal bench

ci:
	bash .ci/run

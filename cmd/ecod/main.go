// Command ecod is the engine and its tools; `ecod --help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	_ "time/tzdata" // zones must not depend on the machine

	"github.com/alecthomas/kong"

	"github.com/ecodrix/ecod/internal/app"
)

// Set by the release build.
var version, commit = "dev", ""

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run the engine."`
	Demo    demoCmd    `cmd:"" help:"Run the engine with a simulated Meta, two example clients and live traffic, offline."`
	Client  clientCmd  `cmd:"" help:"Manage clients; works beside a running serve."`
	Secret  secretCmd  `cmd:"" help:"Work with secrets."`
	Config  configCmd  `cmd:"" help:"Print every setting with its value and source."`
	Version versionCmd `cmd:"" help:"Print version, commit and Go version."`
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if err := unknownVariables(os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var c cli
	parser, err := kong.New(&c, kong.Name("ecod"), kong.Description("The engine of business automation: WhatsApp, CRM, automation, jobs."),
		kong.UsageOnError())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ecod: "+err.Error())
		return 2
	}
	signal.Ignore(syscall.SIGXFSZ) // a limit on the size of files is a full disk: the write fails, not the process
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	err = kctx.Run()
	var bad app.BadConfig
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		fmt.Fprintln(os.Stderr, bad)
		return 2
	default:
		fmt.Fprintln(os.Stderr, "ecod: "+err.Error())
		return 1
	}
}

// unknownVariables refuses ECOD_ names that no setting has: a misspelt one would silently do nothing.
func unknownVariables(environ []string) error {
	var known []string
	t := reflect.TypeFor[app.Config]()
	for i := range t.NumField() {
		if env := t.Field(i).Tag.Get("env"); env != "" {
			known = append(known, env)
		}
	}
	var bad app.BadConfig
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "ECOD_") || strings.HasPrefix(name, "ECOD_TEST_") {
			continue
		}
		best, far := "", 1<<30
		for _, k := range known {
			if d := distance(name, k); d < far {
				best, far = k, d
			}
		}
		if far > 0 {
			bad = append(bad, fmt.Sprintf("%s is not a setting; did you mean %s?", name, best))
		}
	}
	if len(bad) > 0 {
		return bad
	}
	return nil
}

// distance is the number of edits between two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

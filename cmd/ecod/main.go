// Command ecod is the engine and its tools; `ecod --help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	_ "time/tzdata" // zones must not depend on the machine

	"github.com/alecthomas/kong"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/fault"
)

// Set by the release build.
var version, commit = "dev", ""

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run the engine."`
	Demo    demoCmd    `cmd:"" help:"Run the engine with a simulated Meta, two example clients and live traffic, offline."`
	Client  clientCmd  `cmd:"" help:"Manage clients; works beside a running serve."`
	Secret  secretCmd  `cmd:"" help:"Work with secrets."`
	Keys    keysCmd    `cmd:"" help:"Work with the keys that secrets are sealed with."`
	Doctor  doctorCmd  `cmd:"" help:"Check configuration, storage, keys, and each client's accounts by live calls; exit 1 if anything fails."`
	Backup  backupCmd  `cmd:"" help:"Write a consistent copy of all data, also while serve runs."`
	Restore restoreCmd `cmd:"" help:"Put a backup back, with serve stopped."`
	Config  configCmd  `cmd:"" help:"Print every setting with its value and source."`
	Version versionCmd `cmd:"" help:"Print version, commit and Go version."`
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	bad := misread(os.Environ())
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
	kctx.Bind(bad)
	return told(kctx.Run())
}

// errFailed ends a command that has said why: exit 1.
var errFailed = errors.New("failed")

// told tells an error and gives the exit code.
func told(err error) int {
	var bad app.BadConfig
	var f *fault.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		fmt.Fprintln(os.Stderr, bad)
		return 2
	case errors.Is(err, errFailed):
	case errors.As(err, &f):
		fmt.Fprintln(os.Stderr, "ecod: "+f.Detail)
		for _, field := range f.Fields {
			fmt.Fprintf(os.Stderr, "  %s: %s\n", strings.TrimPrefix(field.Pointer, "/"), field.Detail)
		}
		if f.Err != nil {
			fmt.Fprintln(os.Stderr, "  "+f.Err.Error())
		}
	default:
		fmt.Fprintln(os.Stderr, "ecod: "+err.Error())
	}
	return 1
}

// mistakes are what is wrong with the environment beyond what Config.Resolve sees, a sentence each.
type mistakes []string

// resolve is Config.Resolve with these mistakes told beside its own.
func (m mistakes) resolve(c *app.Config) error {
	err := c.Resolve(os.Getenv)
	var bad app.BadConfig
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if bad = slices.Concat(app.BadConfig(m), bad); len(bad) > 0 {
		return bad
	}
	return nil
}

// misread gives the mistakes of an environment: ECOD_ names that no setting has, which would silently do nothing, and
// values that do not read as what their setting is. Those are taken out, so that everything else is looked at, too.
func misread(environ []string) (bad mistakes) {
	kinds := map[string]reflect.Type{}
	for f := range reflect.TypeFor[app.Config]().Fields() {
		if env := f.Tag.Get("env"); env != "" {
			kinds[env] = f.Type
		}
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "ECOD_") || strings.HasPrefix(name, "ECOD_TEST_") {
			continue
		}
		kind, known := kinds[name]
		if !known {
			best, far := "", 1<<30
			for k := range kinds {
				if d := distance(name, k); d < far || d == far && k < best {
					best, far = k, d
				}
			}
			bad = append(bad, fmt.Sprintf("%s is not a setting; did you mean %s?", name, best))
			continue
		}
		if why := unreadable(kind, value); why != "" {
			bad = append(bad, name+" "+why+".")
			_ = os.Unsetenv(name)
		}
	}
	slices.Sort(bad)
	return bad
}

// unreadable tells why a value is not of a setting's type; "": it is.
func unreadable(kind reflect.Type, value string) string {
	switch {
	case kind == reflect.TypeFor[app.Duration]():
		if new(app.Duration).UnmarshalText([]byte(value)) != nil {
			return "is not a duration such as 5s, 24h or 7d"
		}
	case kind.Kind() == reflect.Int:
		if _, err := strconv.Atoi(value); err != nil {
			return "is not a whole number"
		}
	case kind.Kind() == reflect.Bool:
		if _, err := strconv.ParseBool(value); err != nil {
			return "must be true or false"
		}
	}
	return ""
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

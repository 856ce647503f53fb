package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/ecodrix/ecod/internal/app"
)

type configCmd struct {
	app.Config
}

// Run prints every setting: value, where it is from, what it is for; also where some are wrong, which it then says.
// Secrets are masked.
func (c *configCmd) Run(kctx *kong.Context, m mistakes) error {
	flags := map[string]bool{}
	for _, p := range kctx.Path {
		if p.Flag != nil && len(p.Flag.Envs) > 0 {
			flags[p.Flag.Envs[0]] = true
		}
	}
	bad := m.resolve(&c.Config)
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	v := reflect.ValueOf(c.Config)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("env")
		if name == "" {
			continue
		}
		value, source := fmt.Sprint(v.Field(i)), "default"
		switch {
		case flags[name]:
			source = "flag"
		case os.Getenv(name) != "":
			source = "environment"
		case name == "ECOD_ADDR" && os.Getenv("PORT") != "":
			source = "environment (PORT)"
		case name == "ECOD_PUBLIC_URL" && os.Getenv("RENDER_EXTERNAL_URL") != "":
			source = "environment (RENDER_EXTERNAL_URL)"
		}
		if _, secret := f.Tag.Lookup("secret"); secret && value != "" {
			value = "***"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, value, source, f.Tag.Get("help"))
	}
	return errors.Join(w.Flush(), bad)
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/tenant"
)

type secretCmd struct {
	Encrypt secretEncryptCmd `cmd:"" help:"Read a value on stdin, print the ciphertext to put into ClientSecrets by hand."`
}

type secretEncryptCmd struct {
	app.Config
	Client string `required:"" help:"The client's code."`
	Field  string `required:"" help:"Such as whatsapp.accessToken."`
}

// Run seals a value for one client and field. Nothing of it is stored.
func (c *secretEncryptCmd) Run(m mistakes) error {
	if err := m.resolve(&c.Config); err != nil {
		return err
	}
	code, ok := tenant.Code(c.Client)
	if !ok {
		return app.BadConfig{"--client is not a client code."}
	}
	if !slices.Contains(tenant.SecretFields, c.Field) {
		return app.BadConfig{"--field must be one of " + strings.Join(tenant.SecretFields, ", ") + "."}
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	keys, err := c.LoadKeys()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(os.Stdin), 64<<10))
	if err != nil {
		return err
	}
	value := strings.TrimRight(string(b), "\r\n")
	if value == "" {
		return errors.New("no value on stdin")
	}
	sealed, err := keys.Ring.Seal(code, c.Field, value)
	if err != nil {
		return err
	}
	fmt.Println(sealed)
	return nil
}

package app_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/bus/bustest"
)

// An engine starts without its Redis, serves, and says what it does without; it joins when that comes, and goes on when it
// goes. The password is told nowhere.
func TestEngineWithoutItsRedis(t *testing.T) {
	t.Parallel()
	redis := bustest.Unstarted(t, "--requirepass", "hunter2-of-redis")
	e := start(t, t.TempDir(), newMeta(t), func(c *app.Config) { c.RedisURL = "redis://:hunter2-of-redis@" + redis.Addr() })
	get := func(path string) string {
		resp, err := http.Get(e.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
		}
		return string(b)
	}
	degraded := func() string {
		var ready struct {
			Status   string
			Degraded []string
		}
		if err := json.Unmarshal([]byte(get("/readyz")), &ready); err != nil || ready.Status != "ready" {
			t.Fatalf("%+v %v", ready, err)
		}
		return strings.Join(ready.Degraded, " ")
	}
	up := func(n string) bool { return strings.Contains(get("/metrics"), "\necod_bus_up "+n+"\n") }
	if d := degraded(); d != "bus" || !up("0") {
		t.Errorf("without Redis: degraded %q", d)
	}
	c := e.addClient("ACME", 1)
	if c.Key == "" {
		t.Error("it does not serve")
	}
	eventually(t, "it says so", func() string {
		return unless(strings.Contains(e.log.String(), "the bus to other nodes is cut"), "not yet")
	})
	redis.Start()
	eventually(t, "it joins", func() string { return unless(degraded() == "" && up("1"), "not yet") })
	examined := func() (f app.Finding) {
		cfg := e.app.Config
		if _, err := app.Examine(t.Context(), cfg, nil, "", func(got app.Finding) {
			if got.Name == "redis" {
				f = got
			}
		}); err != nil {
			t.Error(err)
		}
		return f
	}
	if f := examined(); !f.OK {
		t.Errorf("the doctor says %+v", f)
	}
	redis.Kill()
	if f := examined(); f.OK || f.Name == "" || f.Mend == "" || strings.Contains(f.Detail, "hunter2") {
		t.Errorf("the doctor says %+v", f)
	}
	eventually(t, "it goes on", func() string { return unless(degraded() == "bus", "not yet") })
	if log := e.log.String(); strings.Contains(log, "hunter2") || strings.Count(log, "the bus to other nodes is cut") != 2 {
		t.Error("what is logged of it is wrong")
	}
}

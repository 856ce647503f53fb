package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/app"
	"github.com/ecodrix/ecod/internal/bus/bustest"
	"github.com/ecodrix/ecod/internal/servertest"
	"github.com/ecodrix/ecod/internal/socketio/sockettest"
)

// Two nodes on one MongoDB and one Redis: what one does is heard at the other's sockets at once, and in order; without
// Redis some seconds later; nothing is lost, and what was missed is told by "since".
func TestTwoNodesOnMongoDB(t *testing.T) {
	t.Parallel()
	redis := bustest.Start(t)
	url, meta := servertest.Mongo(t), newMeta(t)
	node := func() *engine {
		return start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url); c.RedisURL = redis.URL() })
	}
	one, two := node(), node()
	whole := func() {
		t.Helper()
		for _, e := range []*engine{one, two} {
			eventually(t, "the bus is whole", func() string {
				var ready struct{ Degraded []string }
				e.send("GET", "/readyz", nil, nil).want(200).into(&ready)
				return strings.Join(ready.Degraded, " ")
			})
		}
	}
	whole()
	acme := one.addClient("ACME", 1)
	eventuallyIn(t, time.Second, "the other node knows the client", func() string {
		if s := two.app.Tenants.Status("ACME"); s != "active" {
			return "status " + s
		}
		return ""
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dial := func(e *engine) *sockettest.Client {
		s, err := sockettest.Dial(ctx, e.url, sockettest.Options{Auth: map[string]string{"clientCode": "ACME", "apiKey": acme.Key}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Drop)
		return s
	}
	ears := []*sockettest.Client{dial(one), dial(two)}
	made := 0
	lead := func() string {
		made++
		var l struct{ ID string }
		acme.call("POST", "/api/crm/leads", map[string]any{"phone": fmt.Sprintf("+1202555%04d", 100+made), "name": fmt.Sprint("Lead ", made)}).want(201).into(&l)
		return l.ID
	}
	// hears waits until all have heard of leads, each once and in order. What "since" told already may be told to the room
	// afterwards, if its hub had yet to: a client goes by the number.
	last, read := []int64{0, 0}, []int64{0, 0} // heard by each socket; told by "since"
	hears := func(ids ...string) {
		t.Helper()
		for i, ear := range ears {
			for _, id := range ids {
				for {
					ev, err := ear.Next(ctx)
					if err != nil {
						t.Fatal(err)
					}
					var said struct {
						Seq  int64
						Lead struct{ ID string }
					}
					if err := ev.Decode(0, &said); err != nil {
						t.Fatal(err)
					}
					if said.Seq <= last[i] {
						t.Errorf("socket %d hears %d after %d", i, said.Seq, last[i])
					}
					last[i] = said.Seq
					if ev.Name == "lead.created" && said.Seq > read[i] {
						if said.Lead.ID != id {
							t.Errorf("socket %d hears of %s, want %s", i, said.Lead.ID, id)
						}
						break
					}
				}
			}
		}
	}
	hears(lead(), lead(), lead())
	redis.Kill()
	hears(lead(), lead())
	ears[1].Drop()
	missed := []string{lead(), lead()}
	ears[1] = dial(two)
	read[1], last[1] = last[1], 0
	answer, err := ears[1].EmitAck(ctx, "since", read[1])
	if err != nil {
		t.Fatal(err)
	}
	var since struct {
		Items []struct {
			Event string
			Data  struct {
				Seq  int64
				Lead struct{ ID string }
			}
		}
	}
	if err := json.Unmarshal(answer[0], &since); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range since.Items {
		if read[1] = i.Data.Seq; i.Event == "lead.created" {
			got = append(got, i.Data.Lead.ID)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(missed) {
		t.Errorf("since: %v, want %v", got, missed)
	}
	ears = ears[1:]
	last, read = last[1:], read[1:]
	redis.Start()
	whole()
	hears(lead(), lead())

	// Suspended at one node, the client's sockets end at the other, too.
	one.admin("POST", "/api/clients/ACME/suspend", nil).want(200)
	select {
	case <-ears[0].Done():
	case <-time.After(5 * time.Second):
		t.Error("the socket of a suspended client stays on the other node")
	}
}

// Nodes whose media are in one folder, by whatever path, are well; a node with a folder of its own is told of, by the nodes
// and by the doctor.
func TestNodesShareAMediaFolder(t *testing.T) {
	t.Parallel()
	url, meta, shared := servertest.Mongo(t), newMeta(t), t.TempDir()
	node := func(folder string) *engine {
		return start(t, t.TempDir(), meta, func(c *app.Config) { useMongo(c, url); c.MediaURL = "file://" + folder })
	}
	mount := filepath.Join(t.TempDir(), "mount") // the same folder under another name, as another machine has it
	if err := os.Symlink(shared, mount); err != nil {
		t.Fatal(err)
	}
	one, two := node(shared), node(mount)
	doctor := func() (f app.Finding) {
		if _, err := app.Examine(t.Context(), one.app.Config, nil, "NOBODY", func(got app.Finding) {
			if got.Name == "media of nodes" {
				f = got
			}
		}); err != nil {
			t.Error(err)
		}
		return f
	}
	said := func(e *engine) bool {
		return strings.Contains(e.log.String(), "do not put media into this node's folder")
	}
	eventuallyIn(t, patient, "the doctor sees that they share it", func() string {
		f := doctor()
		return unless(f.OK && strings.HasPrefix(f.Detail, "2 nodes share "), fmt.Sprintf("%+v", f))
	})
	three := node(t.TempDir())
	eventuallyIn(t, patient, "all are told of the third", func() string {
		return unless(said(one) && said(two) && said(three), "not yet")
	})
	if f := doctor(); f.OK || !strings.Contains(f.Detail, three.app.Config.MediaURL) || strings.Contains(f.Detail, mount) || f.Mend == "" {
		t.Errorf("the doctor says %+v", f)
	}
	for _, e := range []*engine{one, two} {
		if strings.Contains(e.log.String(), mount+`"]`) || strings.Contains(e.log.String(), shared+`"]`) {
			t.Error("a node that shares the folder is told of")
		}
	}
	three.stop()
	two.stop()
	if left, err := os.ReadDir(filepath.Join(shared, ".nodes")); err != nil || len(left) != 1 {
		t.Errorf("marks left of one node: %v, %v", left, err)
	}
}

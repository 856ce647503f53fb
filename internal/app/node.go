package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/media"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
)

// Node is a process that serves from a shared storage, as it says of itself every few seconds. Nothing is led or divided
// by it: it is for people, for rotations of keys, and for what warns that nodes do not fit together.
type Node struct {
	store.Meta
	ID        string    `json:"_id"`
	Host      string    `json:"host"`
	PID       int       `json:"pid"`
	Addr      string    `json:"addr"`
	Version   string    `json:"version"`
	Keys      []string  `json:"keys"`  // ids of the keys it knows, the one that it seals with first
	Media     string    `json:"media"` // where it puts files
	StartedAt time.Time `json:"startedAt"`
	BeatAt    time.Time `json:"beatAt"`
}

// Nodes is the kind, in the services database.
var Nodes = store.Kind[Node]{
	Schema: store.Schema{Kind: "nodes", Fields: []store.Field{{Name: "beatAt", Type: store.Int}}, Orders: [][]string{{"beatAt"}}},
	Key:    func(n *Node) string { return n.ID },
	Index:  func(n *Node) store.Fields { return store.Fields{"beatAt": n.BeatAt.UnixMilli()} },
	Meta:   func(n *Node) *store.Meta { return &n.Meta },
}

const (
	nodeBeat = 5 * time.Second
	nodeDead = time.Minute // without a beat; clocks of machines may differ by seconds
)

// KeyCheck is a value that a key sealed: who cannot open it has not the keys that others have.
type KeyCheck struct {
	store.Meta
	KeyID  string `json:"_id"`
	Sealed string `json:"sealed"`
}

// KeyChecks is the kind, in the services database.
var KeyChecks = store.Kind[KeyCheck]{
	Schema: store.Schema{Kind: "keyChecks"},
	Key:    func(c *KeyCheck) string { return c.KeyID },
	Index:  func(*KeyCheck) store.Fields { return store.Fields{} },
	Meta:   func(c *KeyCheck) *store.Meta { return &c.Meta },
}

// The owner and the field of checks; no client has such a code.
const checkOwner, checkField = "-", "keyCheck"

// sameKeys refuses to start with keys that cannot open what others seal, and leaves a check of the key that this process
// seals with. Who is refused leaves none: it would refuse everybody else from then on. All look again after they left theirs:
// of two that do not fit and begin at once, one sees it.
func sameKeys(ctx context.Context, services store.DB, ring *secret.Ring) error {
	if err := keysFit(ctx, services, ring); err != nil {
		return err
	}
	sealed, err := ring.Seal(checkOwner, checkField, ring.Current())
	if err != nil {
		return err
	}
	if err := services.Commit(ctx, KeyChecks.Ensure(&KeyCheck{KeyID: ring.Current(), Sealed: sealed})); err != nil {
		return err
	}
	return keysFit(ctx, services, ring)
}

// keysFit tells whether keys open what others seal. It writes nothing.
func keysFit(ctx context.Context, services store.DB, ring *secret.Ring) error {
	checks, err := KeyChecks.Find(ctx, services, store.Query{Limit: 1000})
	if err != nil {
		return err
	}
	for _, c := range checks {
		if _, err := ring.Open(checkOwner, checkField, c.Sealed); err == nil {
			continue
		}
		what := "is missing, and a node sealed with it"
		if slices.Contains(ring.IDs(), c.KeyID) {
			what = "is not the one of that name that a node sealed with"
		}
		return BadConfig{fmt.Sprintf("ECOD_SECRET_KEYS: the key %s %s. Set the same keys on every node; ecod keys rotate tells when an old one is no longer needed. "+
			"If that node was started with wrong keys, nothing needs them: where ecod doctor with these keys finds all sealed values well, delete what it left in the "+
			"services database, db.%s.deleteOne({_id: %q}), and start again.", c.KeyID, what, KeyChecks.Schema.Kind, c.KeyID)}
	}
	return nil
}

// present tells which nodes serve, as far as they said lately.
func present(ctx context.Context, services store.DB, now time.Time) ([]*Node, error) {
	return Nodes.Find(ctx, services, store.Query{
		Where: []store.Term{store.Where("beatAt", store.Gt, now.Add(-nodeDead).UnixMilli())}, Order: "beatAt", Limit: 1000,
	})
}

// beNode says that this process serves, until ctx ends, and warns of nodes that do not fit to it. Of a storage that no
// other process shares, nobody need hear.
func (a *App) beNode(ctx context.Context) error {
	if !a.storage.Shared() {
		return nil
	}
	host, _ := os.Hostname()
	self := &Node{ID: id.New("nod"), Host: host, PID: os.Getpid(), Addr: a.ln.Addr().String(), Version: a.version, Keys: a.Keys.Ring.IDs(), StartedAt: time.Now().UTC()}
	folder, local := a.Media.First().(*media.Folder)
	if dir, ok := mediaFolder(a.Config.MediaURL); ok {
		self.Media = "file://" + dir
	} else {
		self.Media = a.Config.bucket.String()
	}
	if local {
		defer a.markMedia(ctx, folder, self.ID)() // before others see this node, and look for its mark
	}
	judged := map[string]bool{self.ID: true} // nodes whose marks were looked for: a disk that hangs must not hold up many beats
	tick := time.NewTicker(nodeBeat)
	defer tick.Stop()
	for {
		self.BeatAt = time.Now().UTC()
		if err := a.services.Commit(ctx, Nodes.Set(self)); err != nil && ctx.Err() == nil {
			a.log.Warn("this node cannot say that it serves", "error", err)
		}
		others, err := present(ctx, a.services, self.BeatAt)
		others = slices.DeleteFunc(others, func(n *Node) bool { return judged[n.ID] })
		if err == nil && local && len(others) > 0 {
			for _, n := range others {
				judged[n.ID] = true
			}
			if who, err := strangers(folder, others); err != nil {
				a.log.Error("it cannot be told whether all nodes share this media folder", "media", self.Media, "error", err)
			} else if len(who) > 0 {
				a.log.Error("other nodes do not put media into this node's folder: files that came in there are not found here. Set ECOD_MEDIA_URL to a bucket, "+
					"or to a folder that all nodes share", "media", self.Media, "nodes", who)
			}
		}
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
			defer cancel()
			if err := a.services.Commit(ctx, store.Write{Action: store.Delete, Kind: Nodes.Schema.Kind, ID: self.ID}); err != nil && !errors.Is(err, store.ErrClosed) {
				a.log.Warn("that this node stops is noticed a minute late", "error", err)
			}
			return nil
		case <-tick.C:
		}
	}
}

// markMedia leaves this node's mark in its media folder, and gives what takes it back.
func (a *App) markMedia(ctx context.Context, folder *media.Folder, nodeID string) (unmark func()) {
	err := folder.Mark(nodeID)
	if nodes, ferr := present(ctx, a.services, time.Now()); err == nil && ferr == nil {
		alive := map[string]bool{nodeID: true}
		for _, n := range nodes {
			alive[n.ID] = true
		}
		err = folder.SweepMarks(time.Now().Add(-time.Hour), alive)
	}
	if err != nil {
		a.log.Error("this node cannot show others which media folder it has; they will say that it has another than they", "error", err)
	}
	return func() { _ = folder.Unmark(nodeID) } // else somebody sweeps it
}

// strangers names the nodes that do not put media into a folder.
func strangers(folder *media.Folder, nodes []*Node) (who []string, err error) {
	for _, n := range nodes {
		here, err := folder.Marked(n.ID)
		if err != nil {
			return nil, err
		}
		if !here {
			who = append(who, fmt.Sprintf("%s on %s, %s", n.Addr, n.Host, n.Media))
		}
	}
	return who, nil
}

// pruneNodes forgets nodes that died long ago.
func (a *App) pruneNodes(ctx context.Context) error {
	dead, err := Nodes.Find(ctx, a.services, store.Query{
		Where: []store.Term{store.Where("beatAt", store.Lt, time.Now().Add(-time.Hour).UnixMilli())}, Order: "beatAt", Limit: pruneMost,
	})
	for _, n := range dead {
		err = errors.Join(err, a.services.Commit(ctx, store.Write{Action: store.Delete, Kind: Nodes.Schema.Kind, ID: n.ID}))
	}
	return err
}

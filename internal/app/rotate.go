package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ecodrix/ecod/internal/api"
	"github.com/ecodrix/ecod/internal/auth"
	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/crm"
	"github.com/ecodrix/ecod/internal/meeting"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/secret"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// sealedPayloads are the members of jobs' payloads that are sealed, by the type of the job, with the field that they are
// bound to. With the accounts and the kept answers, these are all sealed values that are stored; rotate_test.go holds that.
var sealedPayloads = map[string]map[string]string{
	rule.EventJob:     {"sealed": "event"},
	crm.ChangeJob:     {"sealed": "change"},
	crm.TagJob:        {"tag": "tag", "to": "tag"},
	chat.ComposeJob:   {"sealed": "draft"},
	meeting.ChangeJob: {"sealed": "appointment"},
}

// Seals is what a look at all sealed values found.
type Seals struct {
	InUse      map[string]int // by id of the key
	Unreadable []string       // where values stand that do not open; they stay as they are
	Resealed   int            // values that were sealed anew
	left       int            // values under another key than the newest that open
}

// sealWalk looks at every sealed value of a data folder.
type sealWalk struct {
	e      *Storage
	ring   *secret.Ring
	reseal bool
	found  Seals
}

// walkSeals looks at every sealed value, and seals those anew that stand under another key than the newest, if asked.
func walkSeals(ctx context.Context, e *Storage, ring *secret.Ring, reseal bool) (Seals, error) {
	w := &sealWalk{e: e, ring: ring, reseal: reseal, found: Seals{InUse: map[string]int{}}}
	if err := w.accounts(ctx); err != nil {
		return w.found, err
	}
	err := api.ResealAnswers(ctx, e.Services, func(owner, field, sealed string) (string, error) {
		return w.value("a kept answer of "+owner, owner, field, sealed), ctx.Err()
	})
	if err != nil {
		return w.found, err
	}
	return w.found, w.jobs(ctx)
}

// value looks at one sealed value and gives what is to stand in its place.
func (w *sealWalk) value(where, owner, field, sealed string) string {
	kid := secret.KeyID(sealed)
	if _, err := w.ring.Open(owner, field, sealed); err != nil {
		w.found.Unreadable = append(w.found.Unreadable, where)
		if kid != "" {
			w.found.InUse[kid]++
		}
		return sealed
	}
	now := sealed
	if kid != w.ring.Current() {
		if w.reseal {
			if s, err := w.ring.Reseal(owner, field, sealed); err == nil {
				now = s
				w.found.Resealed++
			}
		} else {
			w.found.left++
		}
	}
	w.found.InUse[secret.KeyID(now)]++
	return now
}

func (w *sealWalk) accounts(ctx context.Context) error {
	r := w.e.Registry(w.ring, slog.New(slog.DiscardHandler), nil, nil)
	for after := ""; ; {
		page, err := r.List(ctx, after, 500)
		if err != nil {
			return err
		}
		for _, a := range page {
			after = a.Code
			if a.Status == tenant.Unreadable {
				w.found.Unreadable = append(w.found.Unreadable, "the document of client "+a.Code)
				continue
			}
			err := r.Reseal(ctx, a.Code, func(field, sealed string) (string, error) {
				return w.value(field+" of client "+a.Code, a.Code, field, sealed), nil
			})
			if err != nil {
				return fmt.Errorf("client %s: %w", a.Code, err)
			}
		}
		if len(page) < 500 {
			return nil
		}
	}
}

func (w *sealWalk) jobs(ctx context.Context) error {
	for after := int64(0); ; {
		page, next, err := w.e.Queue.Payloads(ctx, secret.Prefix, after)
		if err != nil {
			return err
		}
		for _, p := range page {
			var members map[string]json.RawMessage
			fields := sealedPayloads[p.Type]
			if len(fields) == 0 || json.Unmarshal(p.Payload, &members) != nil {
				w.found.Unreadable = append(w.found.Unreadable, "job "+p.JobID+" of type "+p.Type)
				continue
			}
			changed := false
			for _, member := range slices.Sorted(maps.Keys(fields)) {
				var sealed string
				if json.Unmarshal(members[member], &sealed) != nil || !strings.HasPrefix(sealed, secret.Prefix) {
					continue
				}
				now := w.value("job "+p.JobID+" of type "+p.Type, p.Tenant, fields[member], sealed)
				changed = changed || now != sealed
				members[member] = json.RawMessage(strconv.Quote(now)) // of letters, digits and .:_-
			}
			if !changed {
				continue
			}
			b, err := json.Marshal(members)
			if err == nil {
				_, err = w.e.Queue.Rewrite(ctx, p, b)
			}
			if err != nil {
				return fmt.Errorf("job %s: %w", p.JobID, err)
			}
		}
		if after = next; next == 0 {
			return nil
		}
	}
}

// Rotation is what a rotation came to.
type Rotation struct {
	Seals
	Newest   string
	Made     bool     // by this rotation; else it went on with one that was cut short, or took the keys as set
	Unneeded []string // older keys that no stored value needs any more
	Dropped  []string // those of them that were removed
	Wait     time.Duration
	Set      bool // the keys are in ECOD_SECRET_KEYS: what is unneeded is for the operator to take out there
}

// serveHears is how long an engine may take to take up a new key.
const serveHears = 20 * time.Second

// RotateKeys makes a new key and seals every stored value anew under it, beside a running engine. Keys that are set
// (ECOD_SECRET_KEYS) are taken as they are: the first is the newest. Cut short anywhere, it goes on when run again, with
// the key it had made. drop removes the keys that nothing needs, and makes none.
func RotateKeys(ctx context.Context, cfg Config, drop bool) (rot Rotation, err error) {
	if err := HasStorage(cfg); err != nil {
		return rot, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return rot, err
	}
	folder, err := lockFolder(cfg.DataDir, syscall.LOCK_EX)
	if err != nil {
		return rot, err
	}
	defer folder.Close()
	keys, err := cfg.LoadKeys()
	if err != nil {
		return rot, err
	}
	e, err := OpenStorage(ctx, cfg)
	if err != nil {
		return rot, err
	}
	defer e.Close()
	ring, file := keys.Ring, filepath.Join(cfg.DataDir, keysFile)
	rot.Set = cfg.SecretKeys != ""
	if !rot.Set && !drop {
		before, err := walkSeals(ctx, e, ring, false)
		if err != nil {
			return rot, err
		}
		if before.left == 0 { // else the last rotation is not finished
			b, err := os.ReadFile(file)
			if err != nil {
				return rot, err
			}
			line := secret.Generate(newKeyID()) + "," + strings.TrimSpace(string(b))
			newer, err := secret.ParseRing(line)
			if err != nil {
				return rot, err
			}
			if err := replaceFile(file, line+"\n"); err != nil {
				return rot, err
			}
			ring.Become(newer)
			rot.Made = true
		}
	}
	rot.Newest = ring.Current()
	if e.Shared() {
		err = nodesSeal(ctx, e.Services, rot.Newest)
	} else {
		err = waitForServe(ctx, cfg.DataDir, rot.Newest, rot.Set)
	}
	if err != nil {
		return rot, err
	}
	// The second pass meets what was sealed, and not yet stored, while the first went by.
	for range 2 {
		done, err := walkSeals(ctx, e, ring, true)
		done.Resealed += rot.Resealed
		rot.Seals = done
		if err != nil {
			return rot, err
		}
	}
	now, err := walkSeals(ctx, e, ring, false)
	if err != nil {
		return rot, err
	}
	rot.InUse = now.InUse
	for _, kid := range ring.IDs()[1:] {
		if rot.InUse[kid] == 0 {
			rot.Unneeded = append(rot.Unneeded, kid)
		}
	}
	if e.Shared() && len(rot.Unreadable) == 0 {
		for _, kid := range rot.Unneeded { // a node may start without it
			if err := e.Services.Commit(ctx, store.Write{Action: store.Delete, Kind: KeyChecks.Schema.Kind, ID: kid}); err != nil {
				return rot, err
			}
		}
	}
	if !drop || rot.Set || len(rot.Unneeded) == 0 {
		return rot, nil
	}
	// Tokens that let sockets in are sealed, and stand nowhere but with those who have them.
	if st, err := os.Stat(file); err != nil {
		return rot, err
	} else if rot.Wait = time.Until(st.ModTime().Add(auth.SocketTokenFor + time.Minute)); rot.Wait > 0 {
		return rot, nil
	}
	rot.Wait = 0
	if err := dropKeys(file, rot.Unneeded); err != nil {
		return rot, err
	}
	rot.Dropped, rot.Unneeded = rot.Unneeded, nil
	return rot, nil
}

// waitForServe waits until an engine that serves the folder, if one does, seals with the newest key.
func waitForServe(ctx context.Context, dir, newest string, set bool) error {
	for deadline := time.Now().Add(serveHears); ; {
		h, yes := serving(dir)
		if !yes || (len(h.Keys) > 0 && h.Keys[0] == newest) {
			return nil
		}
		switch {
		case set:
			return BadConfig{fmt.Sprintf("The engine that serves %s does not seal with key %s yet: restart it with the same ECOD_SECRET_KEYS, then run this again.", dir, newest)}
		case time.Now().After(deadline):
			return fmt.Errorf("the engine that serves %s does not take up key %s; restart it, then run this again", dir, newest)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// nodesSeal refuses while a node seals with another key than the newest.
func nodesSeal(ctx context.Context, services store.DB, newest string) error {
	nodes, err := present(ctx, services, time.Now())
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if len(n.Keys) == 0 || n.Keys[0] != newest {
			return BadConfig{fmt.Sprintf("The node at %s (%s, process %d) does not seal with key %s yet: restart it with the same ECOD_SECRET_KEYS, then run this again.", n.Addr, n.Host, n.PID, newest)}
		}
	}
	return nil
}

// dropKeys removes keys from the file.
func dropKeys(file string, ids []string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var keep []string
	for entry := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		kid, _, _ := strings.Cut(strings.TrimSpace(entry), ":")
		if !slices.Contains(ids, kid) {
			keep = append(keep, entry)
		}
	}
	return replaceFile(file, strings.Join(keep, ",")+"\n")
}

package crm

import (
	"context"
	"errors"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/id"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
)

// TagJob is the type of the job that takes a tag from all leads, or gives them another in its place.
const TagJob = "crm.tag"

// tagPayload is the payload of TagJob. A job without leads looks for the next ones, and leaves them to one that has them:
// run again, that one changes the same leads and knows what it triggers.
type tagPayload struct {
	Op    string   `json:"op"`           // names the whole work
	Tag   string   `json:"tag"`          // sealed: it is the client's word
	To    string   `json:"to,omitempty"` // of a renaming; sealed
	N     int      `json:"n"`
	After string   `json:"after,omitempty"`
	Leads []string `json:"leads,omitempty"`
}

func (p tagPayload) job(tn *tenant.Tenant) store.NewJob {
	n := job.New(tn.Code, TagJob, p)
	n.UniqueKey = "tag:" + p.Op + ":" + strconv.Itoa(p.N)
	n.KeyHash = n.UniqueKey // sealed twice, it differs
	return n
}

// retag enqueues the first job of the work.
func (b *Book) retag(ctx context.Context, tn *tenant.Tenant, op, from, to string) error {
	p := tagPayload{Op: id.Derived("tgo", tn.Code, op)}
	var err error
	if p.Tag, err = tn.Seal("tag", from); err == nil && to != "" {
		p.To, err = tn.Seal("tag", to)
	}
	if err != nil {
		return err
	}
	_, err = b.Runner.Offer(ctx, p.job(tn))
	return err
}

// names opens the tags of the payload.
func (p tagPayload) names(tn *tenant.Tenant) (from, to string, err error) {
	f, err := tn.Open("tag", p.Tag)
	if err != nil || p.To == "" {
		return f.Reveal(), "", err
	}
	t, err := tn.Open("tag", p.To)
	return f.Reveal(), t.Reveal(), err
}

// TagByID reads a tag; fault.NotFound.
func (b *Book) TagByID(ctx context.Context, tn *tenant.Tenant, tagID string) (*Tag, error) {
	t, err := Tags.Get(ctx, tn.DB, tagID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.Missing("tag")
	}
	return t, err
}

// TagLeads counts the leads that have a tag.
func (b *Book) TagLeads(ctx context.Context, tn *tenant.Tenant, t *Tag) (int64, error) {
	return tn.DB.Count(ctx, store.Query{Kind: Leads.Schema.Kind, Where: []store.Term{store.Where("tag", store.Eq, t.Name)}})
}

// AddTag makes a tag known. fault.Conflict where it is.
func (b *Book) AddTag(ctx context.Context, tn *tenant.Tenant, name string) (*Tag, error) {
	t := &Tag{ID: TagID(tn.Code, name), Name: name, CreatedAt: b.Now().UTC()}
	err := tn.DB.Commit(ctx, Tags.Insert(t))
	if errors.Is(err, store.ErrDuplicate) {
		return nil, tagExists(t.ID)
	}
	t.Version = 1
	return t, err
}

func tagExists(tagID string) error {
	f := fault.New(fault.Conflict, "tag.exists", "There is a tag of this name.")
	f.Extra = map[string]any{"id": tagID, "tagId": tagID}
	return f
}

// RenameTag gives a tag another name, and with it another id; a job gives it to the leads. It is the same tag, so nothing
// is triggered. fault.Conflict where a tag has the name.
func (b *Book) RenameTag(ctx context.Context, tn *tenant.Tenant, op, tagID, name string) (*Tag, error) {
	t, err := b.TagByID(ctx, tn, tagID)
	if err != nil || t.Name == name {
		return t, err
	}
	if _, err := Tags.Get(ctx, tn.DB, TagID(tn.Code, name)); !errors.Is(err, store.ErrNotFound) {
		if err == nil {
			err = tagExists(TagID(tn.Code, name))
		}
		return nil, err
	}
	if err := b.retag(ctx, tn, op, t.Name, name); err != nil {
		return nil, err
	}
	to := &Tag{ID: TagID(tn.Code, name), Name: name, CreatedAt: t.CreatedAt}
	return to, tn.DB.Commit(ctx, Tags.Ensure(to), store.Write{Action: store.Delete, Kind: Tags.Schema.Kind, ID: t.ID})
}

// DeleteTag makes a tag unknown; a job takes it from the leads, and their rules hear of it.
func (b *Book) DeleteTag(ctx context.Context, tn *tenant.Tenant, op, tagID string) error {
	t, err := b.TagByID(ctx, tn, tagID)
	if err != nil {
		return err
	}
	if err := b.retag(ctx, tn, op, t.Name, ""); err != nil {
		return err
	}
	return tn.DB.Commit(ctx, store.Write{Action: store.Delete, Kind: Tags.Schema.Kind, ID: t.ID})
}

// HandleTag is the handler of TagJob.
func (b *Book) HandleTag(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[tagPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	from, to, err := p.names(tn)
	if err != nil {
		return job.Result{}, job.Park("tag_unreadable", err)
	}
	if len(p.Leads) == 0 {
		return b.nextTagged(ctx, tn, p, from, to)
	}
	changes := make([]*Change, len(p.Leads))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8) // those that commit together share a write to the disk
	for i, leadID := range p.Leads {
		g.Go(func() error {
			m := &Mutation{ID: p.Op + "|" + leadID, LeadID: leadID, Cause: ByTag, At: j.CreatedAt.UTC(), Remove: []string{from}}
			if to != "" {
				m.Add, m.Quiet = []string{to}, true
			}
			var err error
			changes[i], err = b.settle(gctx, tn, m)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return job.Result{}, err
	}
	next, err := b.follow(ctx, tn, changes...)
	more := tagPayload{Op: p.Op, Tag: p.Tag, To: p.To, N: p.N + 1, After: p.Leads[len(p.Leads)-1]}
	return job.Result{Next: append(next, more.job(tn))}, err
}

// nextTagged finds the next leads with the tag. Where there are none, the work is done, and the old tag is not known any
// more, unless somebody used it meanwhile.
func (b *Book) nextTagged(ctx context.Context, tn *tenant.Tenant, p tagPayload, from, to string) (job.Result, error) {
	q := store.Query{Where: []store.Term{store.Where("tag", store.Eq, from)}, Limit: window}
	if p.After != "" {
		q.After = &store.Cursor{ID: p.After}
	}
	ls, err := Leads.Find(ctx, tn.DB, q)
	if err != nil {
		return job.Result{}, err
	}
	if len(ls) > 0 {
		p.N++
		for _, l := range ls {
			p.Leads = append(p.Leads, l.ID)
		}
		return job.Result{Next: []store.NewJob{p.job(tn)}}, nil
	}
	old := &Tag{ID: TagID(tn.Code, from), Name: from}
	if n, err := b.TagLeads(ctx, tn, old); err != nil || n > 0 {
		return job.Result{}, err
	}
	writes := []store.Write{{Action: store.Delete, Kind: Tags.Schema.Kind, ID: old.ID}}
	if to != "" {
		writes = append(writes, KnowTags(tn, b.Now().UTC(), to)...)
	}
	return job.Result{}, tn.DB.Commit(ctx, writes...)
}

// TagView is a tag as the API shows it.
type TagView struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Leads     int64   `json:"leads" doc:"How many leads have it."`
	CreatedAt *string `json:"createdAt"`
}

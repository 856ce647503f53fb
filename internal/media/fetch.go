package media

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/news"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// FetchJob is the type of the job that fetches a message's file from Meta.
const FetchJob = "media.fetch"

// fetchPatience is how long a file can be had: Meta keeps what a webhook names for 7 days.
const fetchPatience = 7 * 24 * time.Hour

// FetchTime bounds one execution of a FetchJob; the call for the file ends earlier, so that its end can be written down.
const (
	FetchTime    = 6 * time.Minute
	downloadTime = 5 * time.Minute
)

type fetchPayload struct {
	MessageID string `json:"messageId"`
}

// Arrived gives the job that fetches a message's file, if it has one.
func (a *Archive) Arrived(_ context.Context, tn *tenant.Tenant, m *chat.Message) ([]store.NewJob, error) {
	if m.Media == nil || m.Media.MetaID == "" {
		return nil, nil
	}
	n := job.New(tn.Code, FetchJob, fetchPayload{m.ID})
	n.UniqueKey = "media:" + m.ID
	n.Causation = store.Causation{Message: m.ID}
	return []store.NewJob{n}, nil
}

// refusal is why a file is not taken as it came.
type refusal struct {
	code  string
	final bool // another try gives the same
	err   error
}

// held is a verdict about the job that has nothing to do with the file.
type held struct{ error }

func (r *refusal) Error() string { return fmt.Sprintf("%s: %v", r.code, r.err) }
func (r *refusal) Unwrap() error { return r.err }

// HandleFetch is the handler of FetchJob: fetched, checked, made small, on the shelf; then the message says so. What is
// wrong with the file costs attempts; what is wrong with the world waits, for as long as Meta keeps the file.
func (a *Archive) HandleFetch(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[fetchPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	m, f, err := a.wanted(ctx, tn, p.MessageID)
	if err != nil || m == nil {
		return job.Result{}, err
	}
	if f.Status != Stored {
		begun := j.CreatedAt // an imported message is older than Meta's word of its file
		if begun.IsZero() {
			begun = m.CreatedAt
		}
		if a.cfg.Now().Sub(begun) > fetchPatience {
			err = &refusal{"media.expired", true, errors.New("it is kept no longer at Meta")}
		} else {
			err = a.fetch(ctx, tn, m, f)
		}
		if err != nil {
			return job.Result{}, a.verdict(ctx, tn, j, m, f, err)
		}
	}
	err = a.tell(ctx, tn, f, func(m *chat.Message) bool {
		done := m.Media.Status == Stored
		m.Media.ID, m.Media.MIME, m.Media.SHA256, m.Media.Size, m.Media.Status = f.ID, f.MIME, f.SHA256, f.Size, Stored
		return !done
	}, func(f *File) {
		f.Status, f.Error = Stored, ""
		if f.StoredAt.IsZero() {
			f.StoredAt = a.cfg.Now().UTC()
		}
	})
	if errors.Is(err, store.ErrConflict) {
		err = job.Snooze(time.Second, "media.contention", err)
	}
	return job.Result{Result: map[string]string{"mediaId": f.ID}}, err
}

// fetch brings a message's file to the shelf; f is then recorded, as pending.
func (a *Archive) fetch(ctx context.Context, tn *tenant.Tenant, m *chat.Message, f *File) error {
	select {
	case a.fetching <- struct{}{}:
		defer func() { <-a.fetching }()
	default:
		return held{job.Snooze(2*time.Second, "media.busy", nil)} // workers are there for sends too
	}
	w := tn.Account().WhatsApp
	token, err := tn.Secret("whatsapp.accessToken")
	if err != nil || token == "" || w == nil {
		return held{job.Park("whatsapp.credential", errors.Join(errors.New("no usable access token"), err))}
	}
	acc := whatsapp.Account{PhoneNumberID: m.PhoneNumberID, WABAID: w.WABAID, Token: token}
	dctx, cancel := context.WithTimeout(ctx, downloadTime)
	s, info, err := a.download(dctx, acc, m.Media.MetaID)
	cancel()
	if err != nil {
		return err
	}
	defer s.Close()
	switch sum := s.SHA256(); {
	case info.Size > 0 && info.Size != s.size:
		return &refusal{"media.size_mismatch", false, fmt.Errorf("%d bytes came, %d were told", s.size, info.Size)}
	case info.SHA256 != "" && info.SHA256 != sum, m.Media.SHA256 != "" && m.Media.SHA256 != sum:
		return &refusal{"media.checksum_mismatch", false, errors.New("the bytes are not those that were told of")}
	case s.size == 0:
		return &refusal{"media.empty", false, errors.New("no bytes came")}
	}
	head, err := s.head()
	if err != nil {
		return err
	}
	declared := m.Media.MIME
	if declared == "" {
		declared = info.MIME
	}
	t, ok := agreed(declared, sniff(head, m.Media.Filename))
	if !ok {
		return &refusal{"media.type_mismatch", false, fmt.Errorf("it looks like %s", base(t))}
	}
	f.Status, f.Error, f.MIME, f.Filename = Pending, "", t, cleanName(m.Media.Filename)
	return a.keep(ctx, tn, f, s)
}

// download spools a file of Meta's. A link that has expired on the way is asked for once more.
func (a *Archive) download(ctx context.Context, acc whatsapp.Account, metaID string) (*Spooled, whatsapp.MediaInfo, error) {
	for again := false; ; again = true {
		info, err := a.cfg.Graph.Media(ctx, acc, metaID)
		if err != nil {
			return nil, info, err
		}
		if info.Size > MaxSize {
			return nil, info, &refusal{"media.too_large", true, whatsapp.ErrMediaTooBig}
		}
		s, err := a.spool()
		if err != nil {
			return nil, info, err
		}
		if _, err = a.cfg.Graph.Download(ctx, acc, info.URL, s, MaxSize); err == nil {
			return s, info, nil
		}
		_ = s.Close()
		if !errors.Is(err, whatsapp.ErrMediaExpired) || again {
			return nil, info, err
		}
	}
}

// verdict says what is to become of a fetch that failed, and writes it down where it is the end.
func (a *Archive) verdict(ctx context.Context, tn *tenant.Tenant, j store.Job, m *chat.Message, f *File, err error) error {
	var (
		h     held
		r     *refusal
		graph *whatsapp.APIError
		flt   *fault.Error
	)
	switch {
	case ctx.Err() != nil, errors.Is(err, store.ErrUnavailable):
		return err
	case errors.As(err, &h):
		return h.error
	case errors.As(err, &r):
	case errors.As(err, &graph):
		switch {
		case errors.Is(err, whatsapp.ErrMediaTooBig):
			r = &refusal{"media.too_large", true, err}
		case errors.Is(err, whatsapp.ErrMediaHost):
			r = &refusal{"media.host", true, err}
		case graph.Scope() == whatsapp.ScopeAccount && !graph.Temporary():
			return job.Park("whatsapp.credential", err)
		case graph.Temporary():
			return job.Snooze(max(graph.RetryAfter(), pause(j)), "media.meta_unavailable", err)
		default:
			r = &refusal{"media.gone", false, err}
		}
	case errors.As(err, &flt):
		return job.Snooze(pause(j), flt.Code, err)
	default: // a shelf that cannot be written: the file is as good as before
		return job.Snooze(pause(j), "media.unavailable", err)
	}
	if !r.final && !job.LastAttempt(j) {
		return job.Retry(0, r.code, err)
	}
	if ferr := a.fail(ctx, tn, m, f, r.code); ferr != nil {
		return job.Snooze(pause(j), "media.unavailable", ferr)
	}
	return job.Dead(r.code, err)
}

// fail ends a fetch that will bring nothing. Its blob goes only once the record says so, as it was read: an execution that
// lost its lease takes nothing off the shelf that another has put there, nor may the other say that it has it still.
func (a *Archive) fail(ctx context.Context, tn *tenant.Tenant, m *chat.Message, f *File, code string) error {
	if f.SHA256 != "" {
		if f.Status != Failed {
			f.Status, f.Error = Failed, code
			if err := tn.DB.Commit(ctx, Files.Update(f)); err != nil {
				return err
			}
			f.Version++
		}
		if err := a.drop(ctx, tn, f); err != nil {
			return err
		}
	}
	return a.tell(ctx, tn, f, func(m *chat.Message) bool {
		if m.Media.Status == Stored { // by another execution meanwhile
			return false
		}
		again := m.Media.Status == Failed && f.Status == Failed && f.Error == code && f.SHA256 == ""
		m.Media.ID, m.Media.Status = f.ID, Failed
		return !again
	}, func(f *File) {
		f.Status, f.Error, f.SHA256, f.Thumbnail = Failed, code, "", ""
		f.MIME, f.Filename = base(m.Media.MIME), cleanName(m.Media.Filename)
	})
}

// MissJob is the type of the job that ends a fetch whose own job was cancelled, or given up, and could not do it.
const MissJob = "media.miss"

// Abandoned gives the job that ends a fetch which will not be tried again.
func (a *Archive) Abandoned(j store.Job) []store.NewJob {
	n := store.NewJob{Tenant: j.Tenant, Type: MissJob, Payload: j.Payload, UniqueKey: "media.miss:" + j.ID, Causation: j.Causation}
	return []store.NewJob{n}
}

// HandleMiss is the handler of MissJob.
func (a *Archive) HandleMiss(ctx context.Context, tn *tenant.Tenant, j store.Job) (job.Result, error) {
	p, err := job.Payload[fetchPayload](j)
	if err != nil {
		return job.Result{}, err
	}
	m, f, err := a.wanted(ctx, tn, p.MessageID)
	if err != nil || m == nil || f.Status == Stored {
		return job.Result{}, err
	}
	return job.Result{}, a.fail(ctx, tn, m, f, "media.given_up")
}

// wanted reads a message whose file is not there yet, and the file as far as it got; nil if nothing is wanted.
func (a *Archive) wanted(ctx context.Context, tn *tenant.Tenant, messageID string) (*chat.Message, *File, error) {
	m, err := chat.Messages.Get(ctx, tn.DB, messageID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case m.Media == nil || m.Media.Status == Stored:
		return nil, nil, nil
	}
	f, err := Files.Get(ctx, tn.DB, fileID(tn.Code, m.ID))
	if errors.Is(err, store.ErrNotFound) {
		return m, &File{ID: fileID(tn.Code, m.ID), MessageID: m.ID, CreatedAt: m.CreatedAt}, nil
	}
	return m, f, err
}

// pause grows from seconds to an hour: an outage of days costs no file and no storm of calls.
func pause(j store.Job) time.Duration {
	return min(time.Hour, 2*time.Second<<min(max(j.Starts-1, 0), 12))
}

// tell ends a fetch in one commit: the file, the news of it, and last the message, which decides that it is over.
// store.ErrConflict: another execution changed the file meanwhile, and what this one knows of it is not true any more.
func (a *Archive) tell(ctx context.Context, tn *tenant.Tenant, f *File, show func(*chat.Message) bool, end func(*File)) error {
	for range 20 {
		m, err := chat.Messages.Get(ctx, tn.DB, f.MessageID)
		if err != nil {
			return err
		}
		if m.Media == nil || !show(m) {
			return nil
		}
		end(f)
		now := a.cfg.Now()
		err = tn.DB.Commit(ctx,
			Files.Update(f),
			news.Write(now, news.MediaReady, f.ID+"|"+f.Status, "media", f.View()),
			news.Write(now, news.MessageStatus, m.ID+"|media|"+f.Status, "message", m.View()),
			chat.Messages.Update(m))
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		again, err := Files.Get(ctx, tn.DB, f.ID)
		switch {
		case errors.Is(err, store.ErrNotFound) && f.Version == 0:
		case err == nil && again.Version == f.Version:
		case err == nil || errors.Is(err, store.ErrNotFound):
			return store.ErrConflict
		default:
			return err
		}
	}
	return store.ErrConflict
}

package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ecodrix/ecod/internal/chat"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/rule"
	"github.com/ecodrix/ecod/internal/store"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

// do runs a handler by hand and gives the jobs that it leaves, by type.
func (w *world) do(h job.Handler, j store.Job) (map[string]store.NewJob, error) {
	w.t.Helper()
	res, err := h(context.Background(), w.tn, j)
	next := map[string]store.NewJob{}
	for _, n := range job.Following(res, err) {
		next[n.Type] = n
	}
	return next, err
}

// claimed is a job that was asked for, as a runner has it.
func claimed(n store.NewJob, token int64) store.Job {
	return store.Job{ID: "job_" + n.UniqueKey, Type: n.Type, Tenant: n.Tenant, Token: token, MaxAttempts: 8, Payload: n.Payload}
}

// plan has an event plan the one text of a rule, and gives its job.
func (w *world) plan(eventID, rest string) store.NewJob {
	w.t.Helper()
	w.rule(`{"trigger":"form_submitted","reenrol":"every_event","actions":[{"type":"whatsapp.text","text":"Hello"` + rest + `}]}`)
	next, err := w.do(w.engine.HandleEvent, w.eventJobOf("form_submitted", eventID, nil))
	w.must(err)
	n, ok := next[chat.SendJob]
	if !ok {
		w.t.Fatalf("no send: %v", next)
	}
	return n
}

func (w *world) messageOf(n store.NewJob) *chat.Message {
	w.t.Helper()
	var p struct{ MessageID string }
	w.must(json.Unmarshal(n.Payload, &p))
	m, err := chat.Messages.Get(context.Background(), w.db, p.MessageID)
	w.must(err)
	return m
}

// prove has another message of the number go out and be told of by Meta: webhooks arrive.
func (w *world) prove() {
	w.t.Helper()
	next, err := w.do(w.engine.HandleEvent, w.eventJobOf("form_submitted", "proof", nil))
	w.must(err)
	_, err = w.do(w.desk.HandleSend, claimed(next[chat.SendJob], 1))
	w.must(err)
	a := w.meta.Accepted()
	_, err = w.ingest(whatsapptest.Batch(w.meta.StatusFor(a[len(a)-1], "sent")), "dlv_proof")(w)
	w.must(err)
}

const onceMore = `,"onUnconfirmed":"resend"`

// A send whose answer was lost goes out once more only if its rule says so, only when it is known that webhooks arrive
// and its own did not, and only once.
func TestResend(t *testing.T) {
	lost := whatsapptest.GatewayHTML(502) // Meta never had it, which nobody can know
	lose := func(t *testing.T, rest string) (w *world, send, resend store.NewJob) {
		t.Helper()
		w = newWorld(t)
		send = w.plan("e1", rest)
		w.meta.Next(1, lost)
		next, err := w.do(w.desk.HandleSend, claimed(send, 5))
		w.must(err)
		if m := w.messageOf(send); m.Status != chat.Unconfirmed {
			t.Fatalf("the message is %s", m.Status)
		}
		if next[rule.AdvanceJob].UniqueKey == "" {
			t.Error("the run waits for an answer that was lost")
		} else { // it goes on, and this was its last step
			_, err := w.do(w.engine.HandleAdvance, claimed(next[rule.AdvanceJob], 1))
			w.must(err)
		}
		return w, send, next[chat.ResendJob]
	}
	noEvidence := func(t *testing.T, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "no_evidence") {
			t.Errorf("without evidence: %v", err)
		}
	}

	t.Run("not asked for", func(t *testing.T) {
		if _, _, resend := lose(t, ""); resend.UniqueKey != "" {
			t.Errorf("a second try is planned: %+v", resend)
		}
	})
	t.Run("once more", func(t *testing.T) {
		w, send, resend := lose(t, onceMore)
		if wait := resend.RunAt.Sub(w.now); wait < time.Minute || wait > 5*time.Minute {
			t.Errorf("looked at again after %s", wait)
		}
		w.now = resend.RunAt
		_, err := w.do(w.desk.HandleResend, claimed(resend, 1))
		noEvidence(t, err)
		w.now = w.now.Add(time.Minute)
		w.prove()
		next, err := w.do(w.desk.HandleResend, claimed(resend, 2))
		w.must(err)
		second, ok := next[chat.SendJob]
		if !ok || second.UniqueKey == send.UniqueKey {
			t.Fatalf("no second try: %v", next)
		}
		repeated, err := w.do(w.desk.HandleResend, claimed(resend, 3)) // after a crash before its end
		w.must(err)
		if repeated[chat.SendJob].UniqueKey != second.UniqueKey {
			t.Errorf("repeated, it gives %v", repeated)
		}
		_, err = w.do(w.desk.HandleSend, claimed(second, 1))
		w.must(err)
		if m := w.messageOf(send); m.Status != chat.Sent || m.WAMID == "" {
			t.Errorf("the message is %s", m.Status)
		}
		if n := len(w.meta.Accepted()); n != 2 { // the proof, and it
			t.Errorf("Meta accepted %d", n)
		}
		_, err = w.do(w.desk.HandleSend, claimed(second, 2)) // again, after a crash
		w.must(err)
		if n := len(w.meta.Accepted()); n != 2 {
			t.Errorf("Meta accepted %d", n)
		}
	})
	t.Run("lost twice", func(t *testing.T) {
		w, send, resend := lose(t, onceMore)
		w.now = resend.RunAt
		w.prove()
		next, err := w.do(w.desk.HandleResend, claimed(resend, 1))
		w.must(err)
		w.meta.Next(1, lost)
		after, err := w.do(w.desk.HandleSend, claimed(next[chat.SendJob], 1))
		w.must(err)
		if after[chat.ResendJob].UniqueKey != "" {
			t.Error("a third try is planned")
		}
		if m := w.messageOf(send); m.Status != chat.Unconfirmed {
			t.Errorf("the message is %s", m.Status)
		}
	})
	t.Run("its status came", func(t *testing.T) {
		w := newWorld(t)
		send := w.plan("e1", onceMore)
		w.meta.Next(1, whatsapptest.ResetAfterAccepting())
		next, err := w.do(w.desk.HandleSend, claimed(send, 1))
		w.must(err)
		_, err = w.ingest(whatsapptest.Batch(w.meta.StatusFor(w.meta.Accepted()[0], "delivered")), "dlv_1")(w)
		w.must(err)
		w.now = next[chat.ResendJob].RunAt
		w.prove()
		after, err := w.do(w.desk.HandleResend, claimed(next[chat.ResendJob], 1))
		w.must(err)
		if len(after) != 0 {
			t.Errorf("it goes out again: %v", after)
		}
		if m := w.messageOf(send); m.Status != "delivered" {
			t.Errorf("the message is %s", m.Status)
		}
		run, err := w.engine.Run(context.Background(), w.tn, w.messageOf(send).Origin.RunID)
		w.must(err)
		if s := run.Steps[0].State; s == rule.StepUnconfirmed {
			t.Errorf("the step is %s", s)
		}
	})
	t.Run("its status came late", func(t *testing.T) { // between the decision and the second call
		w := newWorld(t)
		send := w.plan("e1", onceMore)
		w.meta.Next(1, whatsapptest.ResetAfterAccepting())
		next, err := w.do(w.desk.HandleSend, claimed(send, 1))
		w.must(err)
		first := w.meta.Accepted()[0]
		w.now = next[chat.ResendJob].RunAt
		w.prove()
		after, err := w.do(w.desk.HandleResend, claimed(next[chat.ResendJob], 1))
		w.must(err)
		_, err = w.ingest(whatsapptest.Batch(w.meta.StatusFor(first, "read")), "dlv_1")(w)
		w.must(err)
		_, err = w.do(w.desk.HandleSend, claimed(after[chat.SendJob], 1))
		w.must(err)
		if n := len(w.meta.Accepted()); n != 2 {
			t.Errorf("Meta accepted %d: it went out again", n)
		}
		if m := w.messageOf(send); m.Status != "read" || m.WAMID != first.ID {
			t.Errorf("the message is %s", m.Status)
		}
	})
	t.Run("no evidence", func(t *testing.T) {
		w, send, resend := lose(t, onceMore)
		for w.now = resend.RunAt; w.now.Sub(w.messageOf(send).Send.At) <= 15*time.Minute; w.now = w.now.Add(time.Minute) {
			_, err := w.do(w.desk.HandleResend, claimed(resend, 1))
			noEvidence(t, err)
		}
		next, err := w.do(w.desk.HandleResend, claimed(resend, 1))
		if err != nil || len(next) != 0 {
			t.Errorf("in the end: %v %v", next, err)
		}
		if m := w.messageOf(send); m.Status != chat.Unconfirmed {
			t.Errorf("the message is %s", m.Status)
		}
	})
	t.Run("they said stop meanwhile", func(t *testing.T) {
		w, send, resend := lose(t, onceMore)
		w.now = resend.RunAt
		w.prove()
		next, err := w.do(w.desk.HandleResend, claimed(resend, 1))
		w.must(err)
		_, err = w.ingest(w.from("918143963821", "IN.1", "wamid.stop", "STOP"), "dlv_1")(w)
		w.must(err)
		if _, err = w.do(w.desk.HandleSend, claimed(next[chat.SendJob], 1)); err == nil || errors.Is(err, job.ErrLeaseLost) {
			t.Errorf("the second send gave %v", err)
		}
		if m := w.messageOf(send); m.Status != chat.FailedSend || len(w.meta.Accepted()) != 1 {
			t.Errorf("the message is %s", m.Status)
		}
	})
}

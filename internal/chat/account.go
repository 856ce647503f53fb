package chat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ecodrix/ecod/internal/fault"
	"github.com/ecodrix/ecod/internal/job"
	"github.com/ecodrix/ecod/internal/tenant"
	"github.com/ecodrix/ecod/internal/whatsapp"
)

// account is a client's account at Meta with its first number; a fault where there is none that can be used.
func (d *Desk) account(tn *tenant.Tenant) (whatsapp.Account, error) {
	w := tn.Account().WhatsApp
	if w == nil || len(w.PhoneNumberIDs) == 0 {
		return whatsapp.Account{}, fault.New(fault.Conflict, "whatsapp.not_configured", "The client has no WhatsApp number yet.")
	}
	token, err := tn.Secret("whatsapp.accessToken")
	if err != nil || token == "" {
		return whatsapp.Account{}, fault.Wrap(err, fault.Conflict, "whatsapp.credential", "The client's access token cannot be used. Set it again.")
	}
	return whatsapp.Account{PhoneNumberID: w.PhoneNumberIDs[0], WABAID: w.WABAID, Token: token}, nil
}

// Configured is a fault where a client has no account at Meta that can be used.
func (d *Desk) Configured(tn *tenant.Tenant) error {
	_, err := d.account(tn)
	return err
}

func codeOfFault(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	return "error"
}

// verdict says what is to become of a job whose call may be made again without harm.
func verdict(err error) error {
	var api *whatsapp.APIError
	switch {
	case !errors.As(err, &api):
		return err
	case api.Scope() == whatsapp.ScopeAccount && !api.Temporary():
		return job.Park("whatsapp.credential", err)
	case api.Outcome == whatsapp.Limited:
		return job.Snooze(max(api.RetryAfter(), time.Second), "whatsapp.limited", err)
	case api.Temporary():
		return job.Retry(api.RetryAfter(), codeOf(api), err)
	}
	return job.Dead(codeOf(api), err)
}

// refusalOf is a failed call as its caller is told. Meta's details may quote the request, which is the caller's own.
func refusalOf(err error) error {
	var api *whatsapp.APIError
	if !errors.As(err, &api) {
		return err
	}
	f := fault.Wrap(err, fault.Invalid, "whatsapp.rejected", "Meta refused it: %s.", api.Class.Meaning)
	switch {
	case api.Ambiguous():
		f = fault.Wrap(err, fault.Unavailable, "whatsapp.unconfirmed", "Meta's answer was lost: it may have been done. Look before you try again.")
	case api.Scope() == whatsapp.ScopeAccount && !api.Temporary():
		return fault.Wrap(err, fault.Conflict, "whatsapp.credential", "Meta refuses the client's access token or account. Set it again.")
	case api.Outcome == whatsapp.Limited:
		f = fault.Wrap(err, fault.Unavailable, "whatsapp.limited", "Meta's limit is reached. Try again later.")
	case api.Temporary():
		f = fault.Wrap(err, fault.Unavailable, "whatsapp.unavailable", "Meta cannot be reached now. Try again.")
	case api.Details != "":
		f.Detail = "Meta refused it: " + api.Details
	}
	f.RetryAfter = api.RetryAfter()
	return f
}

// Numbers lists the client's phone numbers as Meta has them now.
func (d *Desk) Numbers(ctx context.Context, tn *tenant.Tenant) ([]whatsapp.PhoneNumber, error) {
	acc, err := d.account(tn)
	if err != nil {
		return nil, err
	}
	numbers, err := d.Graph.PhoneNumbers(ctx, acc)
	if err != nil {
		return nil, refusalOf(err)
	}
	return numbers, nil
}

// Profile reads what users see of a number's business; "" is the client's first number.
func (d *Desk) Profile(ctx context.Context, tn *tenant.Tenant, phoneNumberID string) (whatsapp.Profile, error) {
	acc, err := d.sender(tn, phoneNumberID)
	if err != nil {
		return whatsapp.Profile{}, err
	}
	p, err := d.Graph.Profile(ctx, acc)
	if err != nil {
		return whatsapp.Profile{}, refusalOf(err)
	}
	return p, nil
}

// SetProfile changes what users see of a number's business. It is no job: done twice it does nothing more, nothing of
// ours follows from it, and the caller hears how it went.
func (d *Desk) SetProfile(ctx context.Context, tn *tenant.Tenant, phoneNumberID string, u whatsapp.ProfileUpdate) (whatsapp.Profile, error) {
	acc, err := d.sender(tn, phoneNumberID)
	if err != nil {
		return whatsapp.Profile{}, err
	}
	if err := d.Graph.SetProfile(ctx, acc, u); err != nil {
		return whatsapp.Profile{}, refusalOf(err)
	}
	p, err := d.Graph.Profile(ctx, acc)
	if err != nil {
		return whatsapp.Profile{}, refusalOf(err)
	}
	return p, nil
}

// sender is the client's account with one of its numbers.
func (d *Desk) sender(tn *tenant.Tenant, phoneNumberID string) (whatsapp.Account, error) {
	acc, err := d.account(tn)
	if err != nil {
		return acc, err
	}
	if acc.PhoneNumberID, err = d.from(tn, phoneNumberID); err != nil {
		return acc, fault.Missing("number")
	}
	return acc, nil
}

// compact is JSON without white space; what is not JSON stays as it is.
func compact(b []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return b
	}
	return out.Bytes()
}

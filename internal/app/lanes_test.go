package app_test

import (
	"fmt"
	"testing"
)

// The operator sees which clients' work waits, and why; nobody else does.
func TestLanes(t *testing.T) {
	t.Parallel()
	meta := newMeta(t)
	e := start(t, t.TempDir(), meta)
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	for _, x := range []*client{c, other} {
		x.call("POST", "/api/crm/automations/rules", helloRule()).want(201)
		meta.SetToken(x.WABA, "another-token")
		x.jobOf(x.tell("918143963821"), "parked")
	}
	// lane gives ACME's lane that is paused, page by page of one.
	lane := func() (found map[string]any, pages int) {
		for at := "/api/admin/lanes?limit=1"; ; pages++ {
			a := e.admin("GET", at, nil).want(200)
			for _, v := range a.get("items").([]any) {
				if l := v.(map[string]any); l["client"] == c.Code && l["pause"] != nil {
					found = l
				}
			}
			next, _ := a.get("nextCursor").(string)
			if next == "" {
				return found, pages + 1
			}
			at = "/api/admin/lanes?limit=1&cursor=" + next
		}
	}
	l, pages := lane()
	if l == nil || pages < 2 {
		t.Fatalf("lane %v on %d pages", l, pages)
	}
	if p := fmt.Sprint(l["pause"]); p != "map[reason:credential until:<nil>]" {
		t.Errorf("paused for %s", p)
	}
	meta.SetToken(c.WABA, c.Token)
	e.admin("PUT", "/api/clients/ACME/secrets/whatsapp", map[string]any{"wabaId": c.WABA, "phoneNumberIds": []string{c.Number}, "accessToken": c.Token}).want(200)
	eventually(t, "the lane goes on", func() string {
		if l, _ := lane(); l != nil {
			return fmt.Sprint(l)
		}
		return ""
	})
	c.call("GET", "/api/admin/lanes", nil).problem(401, "")
	e.admin("GET", "/api/admin/lanes?cursor=x", nil).problem(422, "")
}

// A lead's notes are listed newest first, page by page.
func TestNotesAreListed(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c, other := e.addClient("ACME", 1), e.addClient("BETA", 2)
	path := leadsPath + "/" + c.call("POST", leadsPath, obj{"phone": "918143963821"}).want(201).get("id").(string) + "/notes"
	shows(t, "none", c.call("GET", path, nil).want(200), "items.0", nil, "nextCursor", nil)
	made := map[any]bool{}
	for i := range 5 {
		made[c.call("POST", path, obj{"text": fmt.Sprint("note ", i)}).want(201).get("id")] = true
	}
	last, at := "", path+"?limit=2"
	for pages := 0; at != ""; pages++ {
		a := c.call("GET", at, nil).want(200)
		for _, v := range a.get("items").([]any) {
			n := v.(map[string]any)
			if created := n["createdAt"].(string); last != "" && created > last {
				t.Errorf("%v after one of %s", n, last)
			} else {
				last = created
			}
			if !made[n["id"]] {
				t.Errorf("%v is not there, or twice", n)
			}
			delete(made, n["id"])
		}
		at = ""
		if next, ok := a.get("nextCursor").(string); ok {
			at = path + "?limit=2&cursor=" + next
		}
	}
	if len(made) != 0 {
		t.Errorf("not listed: %v", made)
	}
	other.call("GET", path, nil).problem(404, "lead.not_found")
	c.call("GET", path+"?cursor=x", nil).problem(422, "")
}

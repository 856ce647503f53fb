package app_test

import (
	"fmt"
	"strings"
	"testing"
)

// A lead's owner is whom the client's own system names, or a user of this client's; by whatever door the lead comes.
func TestOwners(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	user, stranger := c.addUser("agent@example.com", "agent"), e.addClient("BETA", 2).addUser("agent@example.com", "agent")
	lead := c.call("POST", leadsPath, obj{"phone": "918143963800"}).want(201).get("id").(string)
	tell := func(n int, owner string) *answer {
		return c.call("POST", "/api/crm/automations/events", obj{"trigger": "custom.x", "phone": fmt.Sprint("918143963", 810+n), "createLeadIfMissing": true, "leadData": obj{"ownerId": owner}})
	}
	for i, owner := range []string{stranger, "usr_" + strings.Repeat("0", 32), "a\x00b", "a\nb", strings.Repeat("x", 101)} {
		shows(t, "create", c.call("POST", leadsPath, obj{"phone": "918143963801", "ownerId": owner}).problem(422, ""), "errors.0.pointer", "/ownerId")
		shows(t, "patch", c.call("PATCH", leadsPath+"/"+lead, obj{"ownerId": owner}).problem(422, ""), "errors.0.pointer", "/ownerId")
		shows(t, "event", tell(i, owner).problem(422, ""), "errors.0.pointer", "/leadData/ownerId")
	}
	if n := len(c.all(leadsPath)); n != 1 {
		t.Errorf("%d leads", n)
	}
	for i, owner := range []string{user, "usr_1", "Dana (desk 4)"} {
		want(t, "patch", c.call("PATCH", leadsPath+"/"+lead, obj{"ownerId": owner}).want(200), "ownerId", owner)
		made := tell(i, owner).want(202).get("leadId")
		want(t, "told", c.call("GET", fmt.Sprint(leadsPath, "/", made), nil).want(200), "ownerId", owner)
	}
	ended := c.imported(c.sheet("phone,ownerId\n918143963820," + user + "\n918143963821," + stranger + "\n918143963822,own7\n"))
	members(t, ended, "progress.done", 2, "progress.failed", 1)
	if rows := c.file(ended.get("result.errorsUrl").(string)); len(rows) != 2 || fmt.Sprint(rows[1]) != "[3 There is no such user.]" {
		t.Errorf("errors %q", rows)
	}
}

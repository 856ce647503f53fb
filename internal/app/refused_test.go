package app_test

import (
	"slices"
	"strings"
	"testing"
)

// What a store could not search, a list could not show, or a clock could not reach is refused where it is said.
func TestInputThatCannotBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir(), newMeta(t))
	c := e.addClient("ACME", 1)
	tags := func(n int) map[string]any {
		return map[string]any{"filter": map[string]any{"tag": slices.Repeat([]string{"vip"}, n)}}
	}
	path := c.campaign(mailing(tags(10), nil))
	if pre := c.call("POST", path+"/preflight", nil).want(200); pre.get("audience") != 0.0 {
		t.Errorf("preflight %s", pre.Body)
	}
	lead := c.call("POST", leadsPath, map[string]any{"phone": "8143963821", "name": " Ana Maria "}).want(201).get("id").(string)
	contact := c.call("POST", "/api/crm/contacts", map[string]any{"phone": "8143963822"}).want(201).get("id").(string)
	const profile = "/api/whatsapp/profile"
	for _, bad := range []struct {
		method, path string
		body         any
		pointer      string
	}{
		{"POST", "/api/campaigns", mailing(tags(1000), nil), "/audience/filter/tag"},
		{"PATCH", path, map[string]any{"audience": tags(11)}, "/audience/filter/tag"},
		{"POST", "/api/campaigns", mailing(tags(1), map[string]any{"schedule": "0001-01-01T00:00:00Z"}), "/schedule"},
		{"PATCH", path, map[string]any{"schedule": "0001-01-01T00:00:00Z"}, "/schedule"},
		{"POST", "/api/campaigns", mailing(tags(1), map[string]any{"ratePerSecond": 1e-300}), "/ratePerSecond"},
		{"POST", leadsPath, map[string]any{"phone": "8143963823", "name": "Ana\r\nBcc: x"}, "/name"},
		{"POST", leadsPath, map[string]any{"phone": "8143963823", "source": "a\x00b"}, "/source"},
		{"PATCH", leadsPath + "/" + lead, map[string]any{"name": "a\nb"}, "/name"},
		{"POST", "/api/crm/contacts", map[string]any{"phone": "8143963823", "name": "a\nb"}, "/name"},
		{"PATCH", "/api/crm/contacts/" + contact, map[string]any{"name": "a\x7fb"}, "/name"},
		{"PUT", profile, map[string]any{"about": "a\x00b"}, "/about"},
		{"PUT", profile, map[string]any{"description": "line\nline\x1b[2J"}, "/description"},
		{"PUT", profile, map[string]any{"websites": []string{"https://example.com", "javascript:alert(1)"}}, "/websites/1"},
	} {
		a := c.call(bad.method, bad.path, bad.body)
		if p, _ := a.get("errors.0.pointer").(string); a.Status != 422 || !strings.HasPrefix(p, bad.pointer) {
			t.Errorf("%s %s %v: %d %s", bad.method, bad.path, bad.pointer, a.Status, a.Body)
		}
	}
	ended := c.imported(c.sheet("phone,name\n8143963824,\"a\nb\"\n8143963825,ok\n8143963826" + strings.Repeat(",", 400) + "\n8143963827,last\n"))
	members(t, ended, "progress.done", 2, "progress.failed", 2)
	if rows := c.file(ended.get("result.errorsUrl").(string)); len(rows) != 3 || rows[1][0] != "2" || rows[2][1] != "The row has more than 300 cells." {
		t.Errorf("errors %v", rows)
	}
}

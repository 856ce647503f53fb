package whatsapp_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/ecodrix/ecod/internal/whatsapp"
	"github.com/ecodrix/ecod/internal/whatsapp/whatsapptest"
)

func TestTemplates(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{PageSize: 3})
	ctx := t.Context()
	d := whatsapp.TemplateDraft{Name: "order_update", Language: "pt_BR", Category: "UTILITY", Components: json.RawMessage(`[{"type":"BODY","text":"Pedido {{1}}.","example":{"body_text":[["1"]]}}]`)}
	made, err := c.CreateTemplate(ctx, acc, d)
	if err != nil || made.ID == "" || made.Status != "PENDING" || made.Category != "UTILITY" {
		t.Fatalf("%+v %v", made, err)
	}
	if _, err := c.CreateTemplate(ctx, acc, d); apiError(t, err).Subcode != 2388024 || apiError(t, err).Scope() != whatsapp.ScopeTemplate {
		t.Fatalf("twice: %v", err)
	}
	read := func(limit int) (names []string, pages int) {
		after := ""
		for {
			p, err := c.Templates(ctx, acc, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, x := range p.Templates {
				names = append(names, x.Name+"/"+x.Language+"/"+x.Status)
				if x.ID == "" || x.Components == nil || x.Quality != "GREEN" || x.ParameterFormat != "POSITIONAL" || x.RejectedReason != "" {
					t.Errorf("%+v", x)
				}
			}
			if p.After == "" {
				return names, pages
			}
			after = p.After
		}
	}
	want := []string{"appointment_confirmed/en/APPROVED", "plain/en_US/APPROVED", "paused/en/PAUSED", "waiting/en/PENDING", "order_update/pt_BR/PENDING"}
	for limit, wantPages := range map[int]int{0: 2, 2: 3, 5: 2} {
		if names, pages := read(limit); !reflect.DeepEqual(names, want) || pages != wantPages {
			t.Errorf("limit %d: %v in %d pages", limit, names, pages)
		}
	}
	if err := c.DeleteTemplate(ctx, acc, "order_update", "1"); apiError(t, err).Code != 100 {
		t.Error(err)
	}
	if err := c.DeleteTemplate(ctx, acc, "order_update", made.ID); err != nil {
		t.Error(err)
	}
	if names, _ := read(0); len(names) != 4 {
		t.Errorf("after the deletion: %v", names)
	}
	for _, r := range s.Requests() {
		if r.InQuery {
			t.Error("followed paging.next")
		}
	}
}

func TestNumbersAndProfile(t *testing.T) {
	_, c := graph(t, whatsapptest.Config{})
	ctx := t.Context()
	n, err := c.PhoneNumber(ctx, acc)
	if err != nil || n.ID != acc.PhoneNumberID || n.Display != "12025550170" || n.VerifiedName != "Example Shop" || n.Throughput != "STANDARD" || n.MessagingLimit != "TIER_2K" {
		t.Fatalf("%+v %v", n, err)
	}
	if all, err := c.PhoneNumbers(ctx, acc); err != nil || len(all) != 1 || all[0] != n {
		t.Fatalf("%+v %v", all, err)
	}
	about, sites := "We sell", []string{"https://example.com"}
	if err := c.SetProfile(ctx, acc, whatsapp.ProfileUpdate{About: &about, Websites: &sites}); err != nil {
		t.Fatal(err)
	}
	none := ""
	if err := c.SetProfile(ctx, acc, whatsapp.ProfileUpdate{Address: &none}); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Profile(ctx, acc); err != nil || p.About != about || !reflect.DeepEqual(p.Websites, sites) {
		t.Fatalf("%+v %v", p, err)
	}
}

func TestPhoneNumbersAcrossPages(t *testing.T) {
	s, c := graph(t, whatsapptest.Config{PageSize: 2})
	many := whatsapptest.Account{WABAID: "200000000000009", Token: token}
	for i := range 5 {
		many.Numbers = append(many.Numbers, whatsapptest.Number{ID: fmt.Sprintf("30000000000010%d", i)})
	}
	s.AddAccount(many)
	other := acc
	other.WABAID = many.WABAID
	if all, err := c.PhoneNumbers(t.Context(), other); err != nil || len(all) != 5 || all[4].ID != "300000000000104" {
		t.Fatalf("%+v %v", all, err)
	}
}

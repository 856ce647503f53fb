package app

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ecodrix/ecod/"

// plan is who may import whom: a package may import those named on its line, and nothing else of ours. A package that is
// not here may not exist. Tests may import anything below app.
var plan = map[string][]string{
	"internal/fault":  {},
	"internal/id":     {},
	"internal/clock":  {},
	"internal/secret": {},

	"internal/bus":         {},
	"internal/bus/bustest": {},

	"internal/store":           {},
	"internal/store/turn":      {"internal/store"},
	"internal/store/sqlite":    {"internal/store", "internal/store/turn", "internal/id"},
	"internal/store/mongo":     {"internal/store", "internal/store/turn", "internal/id"},
	"internal/store/storetest": {"internal/store", "internal/id"},

	"internal/whatsapp":              {"internal/secret"},
	"internal/whatsapp/whatsapptest": {"internal/whatsapp", "internal/secret"},
	"internal/socketio":              {},
	"internal/socketio/sockettest":   {},

	"internal/smtp":              {"internal/secret"},
	"internal/smtp/smtptest":     {},
	"internal/google":            {"internal/secret"},
	"internal/google/googletest": {},
	"internal/s3":                {"internal/secret"},
	"internal/s3/s3test":         {},

	"internal/tenant": {"internal/clock", "internal/fault", "internal/id", "internal/secret", "internal/store"},
	"internal/auth":   {"internal/fault", "internal/id", "internal/secret", "internal/store", "internal/tenant"},
	"internal/job":    {"internal/clock", "internal/fault", "internal/id", "internal/store", "internal/tenant"},
	"internal/news":   {"internal/id", "internal/store"},
	"internal/crm":    {"internal/clock", "internal/fault", "internal/id", "internal/job", "internal/news", "internal/store", "internal/tenant"},
	"internal/chat": {"internal/crm", "internal/fault", "internal/id", "internal/job", "internal/news", "internal/store", "internal/tenant",
		"internal/whatsapp"},
	"internal/meeting": {"internal/clock", "internal/crm", "internal/fault", "internal/google", "internal/id", "internal/job", "internal/news", "internal/store",
		"internal/tenant"},
	"internal/mail": {"internal/crm", "internal/id", "internal/job", "internal/smtp", "internal/store", "internal/tenant"},
	"internal/campaign": {"internal/chat", "internal/crm", "internal/fault", "internal/id", "internal/job", "internal/mail", "internal/news",
		"internal/secret", "internal/smtp", "internal/store", "internal/tenant", "internal/whatsapp"},
	"internal/rule": {"internal/chat", "internal/clock", "internal/crm", "internal/fault", "internal/id", "internal/job", "internal/mail", "internal/meeting", "internal/news", "internal/secret",
		"internal/store", "internal/tenant", "internal/whatsapp"},
	"internal/realtime": {"internal/auth", "internal/bus", "internal/fault", "internal/id", "internal/news", "internal/socketio", "internal/store", "internal/tenant"},
	"internal/media": {"internal/chat", "internal/fault", "internal/id", "internal/job", "internal/news", "internal/s3", "internal/secret",
		"internal/store", "internal/tenant", "internal/whatsapp"},
	"internal/api": {"internal/auth", "internal/campaign", "internal/chat", "internal/clock", "internal/crm", "internal/fault", "internal/id", "internal/job", "internal/media", "internal/meeting", "internal/news", "internal/rule",
		"internal/secret", "internal/store", "internal/tenant", "internal/whatsapp"},
	"internal/servertest": {}, // of tests alone, see testsOnly
	"internal/web":        {},
	"internal/sandbox":    {"internal/google/googletest", "internal/smtp/smtptest", "internal/whatsapp/whatsapptest"},

	"internal/app": {"*"},
	"cmd/ecod":     {"internal/app", "internal/fault", "internal/job", "internal/sandbox", "internal/secret", "internal/tenant"},
}

// testsOnly are the packages that no program is built with.
var testsOnly = []string{"internal/servertest"}

// TestImportPlan parses the source files themselves: a cached `go list` would go on saying ok.
func TestImportPlan(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bench" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		allowed, known := plan[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the import plan", rel, pkg)
			return nil
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, im := range f.Imports {
			p, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			ours, ok := strings.CutPrefix(p, module)
			if slices.Contains(testsOnly, ours) {
				t.Errorf("%s imports %s, which only tests may", rel, ours)
			}
			if ok && !slices.Contains(allowed, ours) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s, which the plan does not allow", rel, ours)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !seen["internal/app"] || len(seen) < 10 {
		t.Fatalf("only %d packages were looked at", len(seen))
	}
	for pkg, allowed := range plan {
		for _, a := range allowed {
			if _, ok := plan[a]; !ok && a != "*" {
				t.Errorf("the plan lets %s import %s, which does not exist", pkg, a)
			}
		}
	}
	acyclic(t)
}

// acyclic checks that every package stands above what it imports.
func acyclic(t *testing.T) {
	state := map[string]int{}
	var visit func(string)
	visit = func(p string) {
		if state[p] == 1 {
			t.Errorf("the plan has a cycle through %s", p)
		}
		if state[p] != 0 {
			return
		}
		state[p] = 1
		for _, a := range plan[p] {
			visit(a)
		}
		state[p] = 2
	}
	for p := range plan {
		visit(p)
	}
}

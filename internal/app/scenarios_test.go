package app_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/scenarios.md names is there, in the package that it names.
func TestScenarioTable(t *testing.T) {
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "scenarios.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{} // by package
	named := 0
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		pkg := strings.Trim(cells[len(cells)-1], " `")
		if !strings.HasPrefix(line, "|") || !strings.HasPrefix(pkg, "internal/") {
			continue
		}
		if _, read := tests[pkg]; !read {
			files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pkg), "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				tests[pkg] += string(b)
			}
		}
		for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(line, -1) {
			if named++; !strings.Contains(tests[pkg], "\nfunc "+m[1]+"(t *testing.T) {") {
				t.Errorf("%s is not in %s", m[1], pkg)
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named", named)
	}
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ecod runs the built binary in an empty folder with these settings.
func ecod(t *testing.T, dir string, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append([]string{"ECOD_TEST_AS_PROGRAM=1"}, env...), &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv("ECOD_TEST_AS_PROGRAM") != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func TestConfigTellsSources(t *testing.T) {
	dir := t.TempDir()
	out, errs, code := ecod(t, dir, []string{"ECOD_LOG_LEVEL=debug", "PORT=1234", "ECOD_ADMIN_TOKEN=0123456789abcdef"}, "config", "--worker-concurrency", "16")
	if code != 0 || errs != "" {
		t.Fatalf("%d: %s", code, errs)
	}
	for name, want := range map[string]string{
		"ECOD_INBOX_RETENTION": "7d default", "ECOD_WORKER_POLL_INTERVAL": "5s default", "ECOD_LOG_LEVEL": "debug environment",
		"ECOD_WORKER_CONCURRENCY": "16 flag", "ECOD_ADDR": "0.0.0.0:1234 environment (PORT)", "ECOD_ADMIN_TOKEN": "*** environment",
		"ECOD_ALLOW_PRIVATE_NETWORKS": "false default",
	} {
		_, rest, _ := strings.Cut(out, name)
		line, _, _ := strings.Cut(rest, "\n")
		if !strings.HasPrefix(strings.Join(strings.Fields(line), " "), want+" ") {
			t.Errorf("%s: %q, want %s", name, line, want)
		}
	}
	// a wrong one is shown with the rest, and told
	out, errs, code = ecod(t, dir, []string{"ECOD_LOG_LEVEL=loud", "ECOD_WORKER_CONCURRENCY=abc"}, "config")
	if code != 2 || !strings.Contains(out, "loud") || errs != "ECOD_WORKER_CONCURRENCY is not a whole number.\nECOD_LOG_LEVEL must be debug, info, warn or error.\n" {
		t.Errorf("%d: %s%s", code, out, errs)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("config made %v", left)
	}
}

// Commands that look at data make none where there is none, and say so; what is wrong with an input is told.
func TestCommandsWithoutData(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"client", "list"}, {"client", "suspend", "ACME"}, {"client", "rotate-key", "ACME"}, {"client", "erase", "ACME", "--confirm", "ACME"},
		{"client", "export", "ACME", "--out", "x.tar"}, {"client", "move", "ACME", "--to", "sqlite"}, {"keys", "rotate"}, {"backup", "x.tar"}} {
		if _, errs, code := ecod(t, dir, nil, args...); code != 1 || !strings.Contains(errs, "no data in ./data") {
			t.Errorf("%v: %d: %s", args, code, errs)
		}
	}
	if out, _, code := ecod(t, dir, nil, "doctor"); code != 1 || !strings.Contains(out, "FAIL  data folder") || !strings.Contains(out, "->") {
		t.Errorf("%d: %s", code, out)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v was made", left)
	}
	if _, errs, code := ecod(t, dir, nil, "client", "add", "b!"); code != 1 || !strings.Contains(errs, "clientCode: must match") {
		t.Errorf("%d: %s", code, errs)
	}
	if _, errs, code := ecod(t, dir, nil, "client", "move", "ACME"); code != 2 || !strings.Contains(errs, "--to must say where") {
		t.Errorf("%d: %s", code, errs)
	}
}

// The doctor names a mend for what it finds wrong: keys that others can read, a configuration that is wrong.
func TestDoctorMends(t *testing.T) {
	dir := t.TempDir()
	if _, errs, code := ecod(t, dir, nil, "client", "add", "ACME"); code != 0 {
		t.Fatal(errs)
	}
	if out, errs, code := ecod(t, dir, nil, "doctor"); code != 0 || strings.Contains(out, "FAIL") {
		t.Errorf("%d: %s%s", code, out, errs)
	}
	if err := os.Chmod(filepath.Join(dir, "data", "secret-keys"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, code := ecod(t, dir, []string{"ECOD_PUBLIC_URL=http://ecod.example", "ECOD_LOG_LEVEL=loud"}, "doctor")
	if code != 1 || !strings.Contains(out, "chmod 600") || !strings.Contains(out, "FAIL  configuration             ECOD_LOG_LEVEL must be") {
		t.Errorf("%d: %s", code, out)
	}
	if err := os.Remove(filepath.Join(dir, "data", "secret-keys")); err != nil {
		t.Fatal(err)
	}
	if out, _, code := ecod(t, dir, nil, "doctor"); code != 1 || !strings.Contains(out, "secret-keys is gone") {
		t.Errorf("%d: %s", code, out)
	}
}

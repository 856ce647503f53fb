package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ecodrix/ecod/internal/app"
)

// settings are the names that an environment may hold for us.
func settings() map[string]bool {
	known := map[string]bool{"PORT": true, "AWS_ACCESS_KEY_ID": true, "AWS_SECRET_ACCESS_KEY": true}
	for f := range reflect.TypeFor[app.Config]().Fields() {
		known[f.Tag.Get("env")] = true
	}
	return known
}

func TestRenderBlueprintNamesSettings(t *testing.T) {
	b, err := os.ReadFile("../../render.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var blueprint struct {
		Services []struct {
			HealthCheckPath         string `yaml:"healthCheckPath"`
			MaxShutdownDelaySeconds int    `yaml:"maxShutdownDelaySeconds"`
			NumInstances            int    `yaml:"numInstances"`
			Disk                    struct {
				MountPath string `yaml:"mountPath"`
			} `yaml:"disk"`
			EnvVars []struct {
				Key   string `yaml:"key"`
				Value string `yaml:"value"`
			} `yaml:"envVars"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal(b, &blueprint); err != nil {
		t.Fatal(err)
	}
	if len(blueprint.Services) != 1 {
		t.Fatalf("%d services", len(blueprint.Services))
	}
	s := blueprint.Services[0]
	values := map[string]string{}
	for _, e := range s.EnvVars {
		if !settings()[e.Key] {
			t.Errorf("%s is not a setting", e.Key)
		}
		values[e.Key] = e.Value
	}
	if values["ECOD_DATA_DIR"] != s.Disk.MountPath || s.Disk.MountPath == "" {
		t.Errorf("data is kept in %q, and the disk is at %q", values["ECOD_DATA_DIR"], s.Disk.MountPath)
	}
	if s.HealthCheckPath != "/readyz" || s.MaxShutdownDelaySeconds < 25 || s.NumInstances != 1 {
		t.Errorf("health %q, shutdown %d s, %d instances", s.HealthCheckPath, s.MaxShutdownDelaySeconds, s.NumInstances)
	}
}

// TestImage does what the Dockerfile's second stage holds: the static binary alone, in a root of its own, as nobody.
func TestImage(t *testing.T) {
	docker, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	env := regexp.MustCompile(`(?m)^ENV (.*)$`).FindSubmatch(docker)
	if env == nil || !regexp.MustCompile(`(?m)^USER 65532:65532$`).Match(docker) || !regexp.MustCompile(`(?m)^FROM scratch$`).Match(docker) {
		t.Fatal("the Dockerfile has another shape")
	}
	for _, kv := range strings.Fields(string(env[1])) {
		if name, _, _ := strings.Cut(kv, "="); !settings()[name] {
			t.Errorf("%s is not a setting", name)
		}
	}
	if os.Getuid() != 0 {
		if os.Getenv("ECOD_TEST_ALL") != "" {
			t.Fatal("only root can change the root folder")
		}
		t.Skip("SKIP: only root can change the root folder")
	}
	root := t.TempDir()
	for p := root; p != "/" && p != "."; p = filepath.Dir(p) { // the other user must get through to it
		if st, err := os.Stat(p); err == nil && st.Mode()&0o005 != 0o005 && strings.HasPrefix(p, os.TempDir()) {
			_ = os.Chmod(p, 0o755)
		}
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w -X main.version=9.9.9 -X main.commit=abc", "-o", filepath.Join(root, "ecod"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for dir, mode := range map[string]fs.FileMode{"data": 0o755, "tmp": 0o1777} {
		if err := os.Mkdir(filepath.Join(root, dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(root, "data"), 65532, 65532); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	command := func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		t.Cleanup(cancel)
		c := exec.CommandContext(ctx, "/ecod", args...)
		c.Dir, c.Env = "/", []string{"ECOD_DATA_DIR=/data", fmt.Sprintf("PORT=%d", port)}
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		return c
	}
	if out, err := command("version").CombinedOutput(); err != nil || !strings.Contains(string(out), "9.9.9 commit abc") {
		t.Fatalf("version: %v: %s", err, out)
	}
	serve := command("serve")
	var log strings.Builder
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/readyz", port)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(url); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			_ = serve.Process.Kill()
			t.Fatalf("not ready: %s", log.String())
		}
	}
	if out, err := command("client", "add", "ACME", "--time-zone", "Asia/Kolkata").CombinedOutput(); err != nil || !strings.Contains(string(out), "client ACME") {
		t.Errorf("a second command: %v: %s", err, out)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := serve.Wait(); err != nil {
		t.Fatalf("after SIGTERM: %v: %s", err, log.String())
	}
	st, err := os.Stat(filepath.Join(root, "data", "secret-keys"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("secret-keys: %v, %v", st, err)
	}
}

package app_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a page in Chromium, and what it did that a page of ours must not do.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	said   []string // errors and warnings of the console
	called []string // hosts
}

// chromium finds the browser; a test that needs it is skipped where there is none.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("ECOD_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	if os.Getenv("ECOD_TEST_ALL") != "" {
		t.Fatal("there is no Chromium: apt-get install -y chromium, or name one in ECOD_TEST_CHROMIUM")
	}
	t.Skip("SKIP: there is no Chromium (apt-get install -y chromium, or name one in ECOD_TEST_CHROMIUM)")
	return ""
}

// open opens a page in a new browser.
func open(t *testing.T, address string) *browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.DisableGPU)
	if os.Getuid() == 0 { // as root, Chromium has no sandbox
		opts = append(opts, chromedp.NoSandbox)
	}
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(endAlloc)
	ctx, end := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_ = chromedp.Cancel(stop)
		end()
	})
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	for _, on := range []func() error{
		func() error { _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); return err },
		func() error {
			return chromedp.Do(ctx, chromedp.EmulateViewport(1280, 1000), chromedp.Navigate(address))
		},
	} {
		if err := on(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *browser) hear(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.called = append(b.called, ev.Request.URL)
	case *network.EventWebSocketCreated:
		b.called = append(b.called, ev.URL)
	case *runtime.EventConsoleAPICalled:
		b.said = append(b.said, fmt.Sprintf("console.%s", ev.Type))
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, ev.ExceptionDetails.Text+" "+fmt.Sprint(ev.ExceptionDetails.Exception))
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError || ev.Entry.Level == log.EntryLevelWarning {
			b.said = append(b.said, fmt.Sprintf("%s %s", ev.Entry.Text, ev.Entry.URL))
		}
	}
}

// do runs steps, and fails with what the page shows.
func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, takeover)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		shown, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		b.shot("failed")
		b.t.Fatalf("%s: %v; the page shows:\n%.2500s", what, err, shown)
	}
}

// until waits until an expression is true in the page.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	b.do(what, waitFor(expression))
}

func waitFor(expression string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		return chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(25*time.Millisecond), chromedp.WithPollingTimeout(takeover))(ctx, t)
	}
}

// eval gives the value of an expression.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// fill types into a field, as a person does.
func (b *browser) fill(selector, text string) {
	b.t.Helper()
	b.do("type into "+selector, chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`document.querySelector(%q).value = ''`, selector)), chromedp.SendKeys(chromedp.CSS(selector), text))
}

// dark lets the page be shown in the dark scheme, or in the light one.
func (b *browser) scheme(name string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}}); err != nil {
		b.t.Fatal(err)
	}
}

// shot keeps a picture of the page where ECOD_TEST_SHOTS names a folder, for people to look at.
func (b *browser) shot(name string) {
	dir := os.Getenv("ECOD_TEST_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600)
	}
	if err != nil {
		b.t.Errorf("the picture %s: %v", name, err)
	}
}

// behaved checks that the page spoke to its own host only, and that its console is empty but for what is expected: texts
// that stand in a message.
func (b *browser) behaved(host string, expected ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.called) < 10 {
		b.t.Errorf("only %d requests were seen", len(b.called))
	}
	for _, c := range b.called {
		if u, err := url.Parse(c); err != nil || u.Host != host {
			b.t.Errorf("the page called %s", c)
		}
	}
next:
	for _, s := range b.said {
		for _, e := range expected {
			if strings.Contains(s, e) {
				continue next
			}
		}
		b.t.Errorf("the console says: %s", s)
	}
}

// readable gives the texts of the page whose contrast with their ground is below 4.5, in the scheme that is on.
const unreadable = `(() => {
  const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.checkVisibility() || e.closest(':disabled') || e.closest('.fresh')) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(ratio.toFixed(2) + ' ' + n.data.trim().slice(0, 40));
  }
  return bad;
})()`

// nameless gives what can be used and has no name for a screen reader.
const nameless = `Array.from(document.querySelectorAll('input, textarea, button, a, progress, img'))
  .filter((e) => e.checkVisibility() && !(e.getAttribute('aria-label') || e.getAttribute('alt') || (e.labels && e.labels.length) || e.textContent.trim() || e.querySelector('img[alt]')))
  .map((e) => e.outerHTML.slice(0, 100))`

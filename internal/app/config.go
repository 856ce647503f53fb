package app

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ecodrix/ecod/internal/bus"
	"github.com/ecodrix/ecod/internal/s3"
	"github.com/ecodrix/ecod/internal/secret"
)

// Config is every setting: an environment variable each, and a flag of the same name. The tags are read by the command
// line, by `ecod config` and by the check for unknown variables.
type Config struct {
	Addr               string   `env:"ECOD_ADDR" help:"Listen address. Port 0 is any free one. Default: 127.0.0.1:8080, or 0.0.0.0:$PORT where PORT is set."`
	DataDir            string   `env:"ECOD_DATA_DIR" default:"./data" help:"The embedded databases, media and generated keys."`
	DatabaseURL        string   `env:"ECOD_DATABASE_URL" secret:"" help:"mongodb:// address of the services database. Empty: SQLite files in the data folder."`
	AdminToken         string   `env:"ECOD_ADMIN_TOKEN" secret:"" help:"Bearer token of the admin API. Default: generated on the first start, kept in <data>/admin-token."`
	SecretKeys         string   `env:"ECOD_SECRET_KEYS" secret:"" help:"id:base64-of-32-bytes,…: the first encrypts, all decrypt. Default: generated on the first start, kept in <data>/secret-keys."`
	PublicURL          string   `env:"ECOD_PUBLIC_URL" help:"Base of links that leave the system. Default: RENDER_EXTERNAL_URL, else http:// and the address."`
	MetaURL            string   `env:"ECOD_META_URL" default:"https://graph.facebook.com" help:"Graph API; https unless on loopback."`
	MetaVersion        string   `env:"ECOD_META_VERSION" default:"v25.0" help:"Graph API version."`
	MetaAppSecret      string   `env:"ECOD_META_APP_SECRET" secret:"" help:"App secret of the operator's own Meta app."`
	MetaVerifyToken    string   `env:"ECOD_META_VERIFY_TOKEN" secret:"" help:"Webhook verify token of the operator's own Meta app."`
	GoogleURL          string   `env:"ECOD_GOOGLE_URL" help:"Base for Calendar and token endpoints when not Google's own."`
	MediaURL           string   `env:"ECOD_MEDIA_URL" help:"file:// folder or s3://bucket?endpoint=…&region=…, with its keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Default: file://<data>/media."`
	RedisURL           string   `env:"ECOD_REDIS_URL" secret:"" help:"Several nodes: live updates and wake-ups through Redis, as redis://host:6379 or rediss://; ?prefix=NAME keeps installations apart that share one."`
	WorkerConcurrency  int      `env:"ECOD_WORKER_CONCURRENCY" default:"16" help:"Jobs at once in this process."`
	WorkerPollInterval Duration `env:"ECOD_WORKER_POLL_INTERVAL" default:"5s" help:"The safety poll of the job queue; a job never waits for it."`
	InboxRetention     Duration `env:"ECOD_INBOX_RETENTION" default:"7d" help:"How long the exact bytes of settled webhooks are kept; unsettled ones 30 days."`
	AllowPrivate       bool     `env:"ECOD_ALLOW_PRIVATE_NETWORKS" name:"allow-private-networks" help:"Let clients name addresses on private networks."`
	LogFormat          string   `env:"ECOD_LOG_FORMAT" help:"text or json. Default: text on a terminal, else json."`
	LogLevel           string   `env:"ECOD_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`

	bucket s3.Config // of MediaURL
}

// Duration is a time.Duration that also reads days: "7d".
type Duration time.Duration

// UnmarshalText reads "90s", "1h30m" or "7d".
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return fmt.Errorf("%q is not a duration such as 5s, 24h or 7d", s)
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration such as 5s, 24h or 7d", s)
	}
	*d = Duration(v)
	return nil
}

// String writes the duration as it is read: days as days.
func (d Duration) String() string {
	if day := 24 * Duration(time.Hour); d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} { // "1h0m0s" is how nobody writes it
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// BadConfig is a start refused for its configuration: one sentence a mistake. The process exits 2.
type BadConfig []string

func (b BadConfig) Error() string { return strings.Join(b, "\n") }

// Resolve fills in what depends on the environment, and tells every mistake (BadConfig).
func (c *Config) Resolve(getenv func(string) string) error {
	var bad BadConfig
	refuse := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if c.Addr == "" {
		c.Addr = "127.0.0.1:8080"
		if port := getenv("PORT"); port != "" {
			c.Addr = "0.0.0.0:" + port
		}
	}
	if _, port, err := net.SplitHostPort(c.Addr); err != nil {
		refuse("ECOD_ADDR must be host:port.")
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		refuse("ECOD_ADDR has a port that is not 0 to 65535.")
	}
	if c.DatabaseURL != "" {
		if !strings.HasPrefix(c.DatabaseURL, "mongodb://") && !strings.HasPrefix(c.DatabaseURL, "mongodb+srv://") {
			refuse("ECOD_DATABASE_URL must begin with mongodb:// or mongodb+srv://, or be empty for the embedded storage.")
		} else {
			if c.AdminToken == "" {
				refuse("ECOD_ADMIN_TOKEN must be set with ECOD_DATABASE_URL; make one with: openssl rand -hex 32")
			}
			if c.SecretKeys == "" {
				refuse("ECOD_SECRET_KEYS must be set with ECOD_DATABASE_URL; make one with: echo k1:$(openssl rand -base64 32)")
			}
			if servers(c.DatabaseURL) == "" {
				refuse("ECOD_DATABASE_URL names no server.")
			}
		}
	}
	if c.SecretKeys != "" {
		if _, err := secret.ParseRing(c.SecretKeys); err != nil {
			refuse("ECOD_SECRET_KEYS: %s.", err)
		}
	}
	if c.AdminToken != "" && len(c.AdminToken) < 16 {
		refuse("ECOD_ADMIN_TOKEN is shorter than 16 characters; make one with: openssl rand -hex 32")
	}
	if c.PublicURL == "" {
		c.PublicURL = getenv("RENDER_EXTERNAL_URL")
	}
	if c.PublicURL != "" && !webURL(c.PublicURL) {
		refuse("ECOD_PUBLIC_URL must be an http:// or https:// address.")
	}
	if u, err := url.Parse(c.MetaURL); err != nil || u.Host == "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))) {
		refuse("ECOD_META_URL must be an https:// address (http:// only on loopback).")
	}
	if err := c.resolveMedia(getenv); err != nil {
		refuse("%s.", err)
	}
	if c.RedisURL != "" {
		if err := bus.CheckRedisURL(c.RedisURL); err != nil {
			refuse("ECOD_REDIS_URL %s.", err)
		}
	}
	if c.WorkerConcurrency < 1 || c.WorkerConcurrency > 1000 {
		refuse("ECOD_WORKER_CONCURRENCY must be 1 to 1000.")
	}
	if p := time.Duration(c.WorkerPollInterval); p < 10*time.Millisecond || p > time.Hour {
		refuse("ECOD_WORKER_POLL_INTERVAL must be 10ms to 1h.")
	}
	if time.Duration(c.InboxRetention) < time.Hour {
		refuse("ECOD_INBOX_RETENTION must be at least 1h.")
	}
	switch c.LogFormat {
	case "", "text", "json":
	default:
		refuse("ECOD_LOG_FORMAT must be text or json.")
	}
	var level slog.Level
	if level.UnmarshalText([]byte(c.LogLevel)) != nil {
		refuse("ECOD_LOG_LEVEL must be debug, info, warn or error.")
	}
	if len(bad) > 0 {
		return bad
	}
	return nil
}

func webURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Level is the log level.
func (c *Config) Level() slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(c.LogLevel)) // checked by Resolve
	return l
}

// Keys are the operator's token and key ring.
type Keys struct {
	AdminToken secret.Text
	TokenFile  string // where it was generated into; "" if it was set
	Ring       *secret.Ring
	Made       bool // by this start
}

// LoadKeys gives the keys that are set, else those of the data folder, made on the first start.
func (c *Config) LoadKeys() (Keys, error) {
	k := Keys{AdminToken: secret.Text(c.AdminToken)}
	if k.AdminToken == "" {
		k.TokenFile = filepath.Join(c.DataDir, "admin-token")
		v, made, err := keep(k.TokenFile, func() string {
			_, b64, _ := strings.Cut(secret.Generate("t"), ":")
			raw, _ := base64.StdEncoding.DecodeString(b64)
			return base64.RawURLEncoding.EncodeToString(raw)
		})
		if err != nil {
			return k, err
		}
		k.AdminToken, k.Made = secret.Text(v), made
	}
	ring := c.SecretKeys
	if ring == "" {
		file := filepath.Join(c.DataDir, keysFile)
		if missing(file) && !missing(filepath.Join(c.DataDir, servicesFile)) {
			return k, BadConfig{fmt.Sprintf("%s is gone, and without it no stored secret can be read: put it back from your backup, or set ECOD_SECRET_KEYS "+
				"(to give the stored secrets up, make it anew with: echo k1:$(openssl rand -base64 32)).", file)}
		}
		v, _, err := keep(file, func() string {
			return secret.Generate(newKeyID())
		})
		if err != nil {
			return k, err
		}
		ring = v
	}
	var err error
	if k.Ring, err = secret.ParseRing(ring); err != nil {
		return k, BadConfig{fmt.Sprintf("The keys in %s cannot be read: %s.", filepath.Join(c.DataDir, keysFile), err)}
	}
	return k, nil
}

func missing(path string) bool {
	st, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist) || (err == nil && st.Size() == 0)
}

// keep reads a generated value from its file, making the file with mode 0600 if it is not there. It is there whole or
// not at all.
func keep(path string, generate func() string) (value string, made bool, err error) {
	b, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(b)) != "" {
		return strings.TrimSpace(string(b)), false, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", false, err
	}
	value = generate()
	err = replaceFile(path, value+"\n")
	return value, true, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

package s3

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/ecodrix/ecod/internal/secret"
)

// Config says which bucket, and who asks.
type Config struct {
	Endpoint string // "https://host[:port]"; "" is Amazon's
	Region   string // "auto" for R2; "" asks Amazon, and is "us-east-1" elsewhere
	Bucket   string
	Prefix   string // put before every key: "" or "a/b/"
	Style    string // where the bucket stands in the address: "path", "host"; "" is host at Amazon, path elsewhere

	AccessKeyID     string
	SecretAccessKey secret.Text
	SessionToken    secret.Text // of temporary keys; mostly ""

	Attempts int // how often a call is tried; 0 is 4
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// ParseURL reads "s3://bucket[/prefix]?endpoint=https://…&region=auto[&style=path|host]".
// What the address does not say comes from getenv, which may be nil:
// AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION,
// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. Keys never
// stand in the address: it gets shown. Missing keys are no error here but of New.
func ParseURL(raw string, getenv func(string) string) (Config, error) {
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "s3" || u.Opaque != "" || u.Fragment != "" {
		return Config{}, errors.New("not an address of the form s3://bucket?endpoint=https://…&region=auto")
	}
	if u.User != nil {
		return Config{}, errors.New("an s3:// address holds no keys; they go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("the part of the s3:// address after ? cannot be read")
	}
	for name, values := range q {
		switch name {
		case "endpoint", "region", "style":
		default:
			return Config{}, fmt.Errorf("an s3:// address knows endpoint, region and style, not %q", name)
		}
		if len(values) > 1 {
			return Config{}, fmt.Errorf("%s stands twice in the s3:// address", name)
		}
	}
	cfg := Config{
		Bucket:          u.Host,
		Prefix:          strings.Trim(u.Path, "/"),
		Endpoint:        first(q.Get("endpoint"), getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL")),
		Region:          first(q.Get("region"), getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION")),
		Style:           q.Get("style"),
		AccessKeyID:     getenv("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: secret.Text(getenv("AWS_SECRET_ACCESS_KEY")),
		SessionToken:    secret.Text(getenv("AWS_SESSION_TOKEN")),
	}
	if cfg.Prefix != "" {
		cfg.Prefix += "/"
	}
	_, _, err = cfg.check()
	return cfg, err
}

// check gives the host that is called and whether over TLS.
func (c Config) check() (host string, tls bool, err error) {
	if !bucketName.MatchString(c.Bucket) || strings.Contains(c.Bucket, "..") || net.ParseIP(c.Bucket) != nil {
		return "", false, errors.New("the bucket's name is 3 to 63 lower-case letters, digits, hyphens and single dots")
	}
	if c.Prefix != "" {
		if !strings.HasSuffix(c.Prefix, "/") {
			return "", false, errors.New("the prefix ends in a slash")
		}
		for part := range strings.SplitSeq(strings.TrimSuffix(c.Prefix, "/"), "/") {
			if part == "" || part == "." || part == ".." {
				return "", false, errors.New("a part of the prefix is empty or dots")
			}
		}
	}
	switch c.Style {
	case "", "path", "host":
	default:
		return "", false, errors.New("style is path or host")
	}
	if c.Endpoint == "" {
		return "s3.amazonaws.com", true, nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", false, errors.New("the endpoint is not of the form https://host")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", false, errors.New("the endpoint is scheme and host only: the bucket stands before the ?")
	}
	return u.Host, u.Scheme == "https", nil
}

// String tells where it leads, without keys.
func (c Config) String() string {
	endpoint := c.Endpoint
	if endpoint == "" {
		endpoint = "Amazon"
	}
	return "s3://" + c.Bucket + "/" + c.Prefix + " at " + endpoint
}

package s3_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ecodrix/ecod/internal/s3"
)

func TestParseURL(t *testing.T) {
	env := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_SESSION_TOKEN": "tok", "AWS_REGION": "eu-west-1"}
	get := func(k string) string { return env[k] }
	base := s3.Config{Bucket: "media", AccessKeyID: "id", SecretAccessKey: "hidden", SessionToken: "tok", Region: "eu-west-1"}
	with := func(f func(*s3.Config)) s3.Config { c := base; f(&c); return c }
	for raw, want := range map[string]s3.Config{
		"s3://media": base,
		"s3://media?endpoint=https://acc.r2.cloudflarestorage.com&region=auto": with(func(c *s3.Config) {
			c.Endpoint, c.Region = "https://acc.r2.cloudflarestorage.com", "auto"
		}),
		"s3://media/a/b/?endpoint=http%3A%2F%2Fminio%3A9000%2F&style=path": with(func(c *s3.Config) {
			c.Endpoint, c.Prefix, c.Style = "http://minio:9000/", "a/b/", "path"
		}),
	} {
		got, err := s3.ParseURL(raw, get)
		if err != nil || got != want {
			t.Errorf("%s: %#v %v", raw, got, err)
		}
		if _, err := s3.New(got, nil); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if text := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(text, "hidden") || strings.Contains(text, "tok\"") {
			t.Errorf("keys are printed: %s", text)
		}
	}
	env["AWS_ENDPOINT_URL"], env["AWS_ENDPOINT_URL_S3"] = "https://all.example", "https://s3.example"
	if c, err := s3.ParseURL("s3://media", get); err != nil || c.Endpoint != "https://s3.example" {
		t.Errorf("%+v %v", c, err)
	}
	for _, bad := range []string{"", "media", "file:///x", "s3:media", "s3://", "s3://UPPER", "s3://ab", "s3://10.0.0.1", "s3://media/../x", "s3://media/a//b",
		"s3://key:secret@media", "s3://media?endpoint=ftp://x", "s3://media?endpoint=nohost", "s3://media?endpoint=https://h/bucket", "s3://media?endpoint=https://u:p@h",
		"s3://media?regoin=auto", "s3://media?region=a&region=b", "s3://media?style=dns", "s3://media?region=%zz"} {
		if c, err := s3.ParseURL(bad, nil); err == nil {
			t.Errorf("%q was taken: %+v", bad, c)
		} else if strings.Contains(err.Error(), "secret@") {
			t.Errorf("%q: the error repeats it: %v", bad, err)
		}
	}
	if _, err := s3.New(s3.Config{Bucket: "media", AccessKeyID: "id"}, nil); err == nil || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("without a secret: %v", err)
	}
}

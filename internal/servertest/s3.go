package servertest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 gives an address of the form s3://bucket/prefix?endpoint=… whose prefix nobody else has. What is stored under it is
// removed when the test ends. The keys are in the environment, as everywhere: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
func S3(t testing.TB) string {
	t.Helper()
	u := server(t, "ECOD_TEST_S3_URL", "s3-test-server")
	id, key := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if id == "" || key == "" {
		t.Fatal("ECOD_TEST_S3_URL names a server, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY no keys")
	}
	prefix := strings.TrimPrefix(strings.TrimSuffix(u.Path, "/")+"/"+fresh(), "/")
	u.Path = "/" + prefix
	bucket, q := u.Host, u.Query()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		host, plain := strings.CutPrefix(q.Get("endpoint"), "http://")
		host = strings.TrimPrefix(host, "https://")
		transport, err := minio.DefaultTransport(!plain)
		if err != nil {
			t.Error(err)
			return
		}
		defer transport.CloseIdleConnections()
		c, err := minio.New(host, &minio.Options{
			Creds: credentials.NewStaticV4(id, key, os.Getenv("AWS_SESSION_TOKEN")), Secure: !plain, Region: q.Get("region"),
			Transport: transport,
		})
		if err != nil {
			t.Errorf("removing the test's objects: %v", err)
			return
		}
		for o := range c.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix + "/", Recursive: true}) {
			err := o.Err
			if err == nil {
				err = c.RemoveObject(ctx, bucket, o.Key, minio.RemoveObjectOptions{})
			}
			if err != nil {
				t.Errorf("removing the test's objects: %v", err)
				return
			}
		}
	})
	return u.String()
}

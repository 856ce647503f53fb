// Package s3 keeps objects in a bucket of any S3-compatible store: Cloudflare
// R2, Amazon, MinIO and their kin.
//
// It speaks the protocol and knows nothing of what an object means. It imports
// nothing of ours but secret. Package media keeps blobs through it, app checks a
// client's own bucket with it; s3test is the server that tests and the demo put
// in front of it.
//
// Of the protocol it uses only what every store has, so that R2 needs no special
// case: one PUT an object with its Content-MD5 and the SHA-256 of its bytes in
// the signature, never aws-chunked framing, trailers or x-amz-checksum headers;
// GET, HEAD, DELETE; DeleteObjects with Content-MD5; ListObjectsV2; signed links.
//
// Calls that failed for a passing reason are made again a few times before they
// fail; every call may safely be made again after that.
package s3

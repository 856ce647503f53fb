package bus

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Redis's address as it is set: redis://[user:password@]host[:port][/db][?prefix=name]. Publishing knows no databases, so
// the number is part of our channels' names: installations that share a server are told apart by it, or by the prefix.
type redisURL struct {
	options *redis.Options
	// prefix begins the names of our channels; key those of Socket.IO's.
	prefix, key string
}

// SocketIOKey is how the channels of Socket.IO servers begin unless somebody says otherwise.
const SocketIOKey = "socket.io"

// CheckRedisURL tells what is wrong with an address, without repeating it.
func CheckRedisURL(raw string) error {
	_, err := parseRedisURL(raw)
	return err
}

// parseRedisURL reads an address. Its errors name nothing of it: there may be a password in it.
func parseRedisURL(raw string) (redisURL, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "redis" && u.Scheme != "rediss") || u.Hostname() == "" {
		return redisURL{}, errors.New("must be redis://host:port or rediss://host:port")
	}
	if u.Fragment != "" {
		return redisURL{}, errors.New("has a #; one within a password is written %23")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return redisURL{}, errors.New("has a port that is not 1 to 65535")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return redisURL{}, errors.New("has parameters that cannot be read")
	}
	prefix := query.Get("prefix")
	query.Del("prefix")
	if len(query) > 0 {
		return redisURL{}, errors.New("has parameters other than prefix")
	}
	if len(prefix) > 64 || strings.ContainsAny(prefix, "*?[]\\ \n\r#:") {
		return redisURL{}, errors.New("has a prefix that is longer than 64 characters, or has one of * ? [ ] \\ # : or a space in it")
	}
	u.RawQuery = ""
	opt, err := redis.ParseURL(u.String())
	if err != nil {
		return redisURL{}, errors.New("must end with /NUMBER, of the database, or without a path")
	}
	r := redisURL{options: opt, prefix: prefix, key: SocketIOKey}
	if prefix == "" {
		r.prefix = "ecod:" + strconv.Itoa(opt.DB)
	} else {
		r.key = prefix + "-" + SocketIOKey
	}
	return r, nil
}

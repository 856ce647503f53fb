// Package id makes identifiers: a three-letter prefix, an underscore and a UUID.
//
// New ids are UUIDv7, so they sort by time of making. Derived ids are UUIDv5: the
// same parts give the same id, for whatever may arrive or be made twice.
// DerivedAt is both: ids that sort by a time that was given.
package id

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// space is the fixed name space of derived ids. Changing it would make every derived id new: never do.
var space = uuid.MustParse("6f1d2c0e-5c1b-5f3a-9a51-8e0c0de0c0d0")

// New gives a fresh, time-ordered id such as "job_0191f0c3…".
func New(prefix string) string {
	u, err := uuid.NewV7()
	if err != nil { // the system's random source is gone: nothing safe can go on
		panic("id: " + err.Error())
	}
	return prefix + "_" + hex.EncodeToString(u[:])
}

// Derived gives the id that the parts always give. Parts are length-prefixed, so ("ab","c") and ("a","bc") differ.
func Derived(prefix string, parts ...string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, p := range parts {
		b.WriteByte('|')
		b.WriteString(strconv.Itoa(len(p)))
		b.WriteByte(':')
		b.WriteString(p)
	}
	u := uuid.NewSHA1(space, []byte(b.String()))
	return prefix + "_" + hex.EncodeToString(u[:])
}

// DerivedAt gives the id that the parts always give at that time, to the millisecond; it sorts among new ids by it.
func DerivedAt(prefix string, at time.Time, parts ...string) string {
	h, _ := hex.DecodeString(Derived(prefix, parts...)[len(prefix)+1:])
	u := uuid.UUID(h)
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	copy(u[:6], ms[2:])
	u[6] = 0x70 | u[6]&0x0f // version 7
	return prefix + "_" + hex.EncodeToString(u[:])
}

package crm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// records cuts a CSV file into its records as encoding/csv with lazy quotes does, and never holds one that is too large:
// to its reader, a csv.Reader, each is a file of its own.
type records struct {
	r      *bufio.Reader
	offset int64 // of the next record in the file
	comma  byte
	record []byte // the one at hand
	rest   []byte // what of it was not read yet
}

// Read gives the record at hand, and io.EOF behind it.
func (c *records) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// spot is where in a record a byte stands.
type spot int

const (
	cellStart spot = iota
	inPlain
	inQuotes
	afterQuote  // the last of the cell, or the first of two, or one that is meant as it is
	afterReturn // behind such a quote: the end if a newline follows
	recordEnd
)

// after is the spot behind a byte.
func (p spot) after(b, comma byte) spot {
	switch {
	case p == inQuotes && b == '"':
		return afterQuote
	case p == inQuotes:
		return inQuotes
	case p == afterReturn && b != '\n': // the quote was none
		return inQuotes.after(b, comma)
	case b == '\n':
		return recordEnd
	case p == afterQuote && b == '\r':
		return afterReturn
	case b == comma:
		return cellStart
	case p == cellStart && b == '"', p == afterQuote:
		return inQuotes
	}
	return inPlain
}

// next takes the next record in hand; io.EOF if there is none. One of more than most bytes, or of more than maxColumns
// cells, is passed over; wrong says which.
func (c *records) next(most int) (wrong string, err error) {
	c.record = c.record[:0]
	size, cells := 0, 1
	for at := cellStart; at != recordEnd; {
		b, err := c.r.ReadByte()
		if errors.Is(err, io.EOF) && size > 0 {
			break
		}
		if err != nil {
			return "", err
		}
		c.offset++
		size++
		if at = at.after(b, c.comma); at == cellStart {
			cells++
		}
		if size <= most && cells <= maxColumns {
			c.record = append(c.record, b)
		}
	}
	c.rest = c.record
	switch {
	case cells > maxColumns:
		wrong = fmt.Sprintf("The row has more than %d cells.", maxColumns)
	case size > most:
		wrong = fmt.Sprintf("The row is longer than %d KiB: is a quote not closed?", most>>10)
	}
	if wrong != "" {
		c.rest = nil
	}
	return wrong, nil
}

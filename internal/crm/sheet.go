package crm

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ecodrix/ecod/internal/fault"
)

// sheet reads the rows of a CSV file, as spreadsheets write them: with a byte order mark or not, separated by commas,
// semicolons or tabs, with line ends of any kind, also inside of quotes.
type sheet struct {
	columns []string // what each column is: a known name, "fields.…", or "" for one that is passed over
	records *records
	csv     *csv.Reader // reads one record at a time, of which records has made sure that it is small
}

// What a file may have: a cell costs many times its bytes once it is read.
const (
	maxHeader  = 64 << 10 // bytes
	maxRow     = 256 << 10
	maxColumns = 300
)

// readOnly are the columns of an export that an import passes over.
var readOnly = []string{"id", "contactid", "status", "score", "grade", "version", "createdat", "updatedat", "lastactivityat"}

// writable are the columns that are members of a lead.
var writable = map[string]string{
	"name": "name", "phone": "phone", "email": "email", "source": "source", "tags": "tags", "stage": "stage", "pipeline": "pipeline",
	"ownerid": "ownerId", "value": "value", "currency": "currency",
}

var bom = []byte("\xef\xbb\xbf")

// openSheet reads the header of a file; what it lacks is a fault.
func openSheet(r io.Reader) (*sheet, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(64 << 10)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	s, begin := &sheet{}, int64(0)
	if bytes.HasPrefix(head, bom) {
		if _, err := br.Discard(len(bom)); err != nil {
			return nil, err
		}
		head, begin = head[len(bom):], int64(len(bom))
	}
	s.reader(br, begin, separator(head))
	names, wrong, err := s.read(maxHeader)
	switch {
	case errors.Is(err, io.EOF):
		return nil, badFile("The file is empty.")
	case err != nil:
		return nil, err
	case wrong != "":
		return nil, badFile(fmt.Sprintf("The first row has at most %d columns and %d KiB.", maxColumns, maxHeader>>10))
	}
	seen := map[string]bool{}
	for _, name := range names {
		name = strings.TrimSpace(name)
		column, ok := writable[strings.ToLower(name)]
		switch {
		case ok, name == "":
		case slices.Contains(readOnly, strings.ToLower(name)):
		case len(name) > 100, !Line(name):
			return nil, badFile("A column's name has at most 100 bytes, and no control characters.")
		default:
			column = "fields." + strings.TrimPrefix(name, "fields.")
		}
		if column != "" && seen[column] {
			return nil, badFile("Two columns have the same name.")
		}
		seen[column] = true
		s.columns = append(s.columns, column)
	}
	if !seen["phone"] && !seen["email"] {
		return nil, badFile("The first row must name the columns, phone or email among them.")
	}
	return s, nil
}

func badFile(detail string) error {
	f := fault.New(fault.Invalid, "import.file", "%s", detail)
	f.Fields = []fault.Field{{Pointer: "/file", Detail: detail}}
	return f
}

func (s *sheet) reader(r *bufio.Reader, offset int64, comma rune) {
	s.records = &records{r: r, offset: offset, comma: byte(comma)}
	s.csv = csv.NewReader(s.records)
	s.csv.Comma, s.csv.LazyQuotes, s.csv.FieldsPerRecord, s.csv.ReuseRecord = comma, true, -1, true
}

// read gives the cells of the next record, none for an empty line; wrong: it is more than may be read, and was passed over.
func (s *sheet) read(most int) (cells []string, wrong string, err error) {
	for {
		if wrong, err = s.records.next(most); err != nil || wrong != "" {
			return nil, wrong, err
		}
		if cells, err = s.csv.Read(); !errors.Is(err, io.EOF) { // an empty line is no record
			return cells, "", err
		}
	}
}

// separator finds out what separates the columns: what the header has most of, outside of quotes.
func separator(head []byte) rune {
	counts, quoted := map[byte]int{}, false
	for _, c := range head {
		if c == '"' {
			quoted = !quoted
		}
		if quoted {
			continue
		}
		if c == '\n' || c == '\r' {
			break
		}
		counts[c]++
	}
	best := byte(',')
	for _, c := range []byte{';', '\t'} {
		if counts[c] > counts[best] {
			best = c
		}
	}
	return rune(best)
}

// seek goes on reading at a place that offset gave.
func (s *sheet) seek(f io.ReadSeeker, offset int64) error {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	s.reader(bufio.NewReaderSize(f, 64<<10), offset, s.csv.Comma)
	return nil
}

// offset is where the next row begins.
func (s *sheet) offset() int64 { return s.records.offset }

// next gives the cells of the next row that has any; they are good until the next call. wrong is why it has them, and
// cannot be read. io.EOF after the last.
func (s *sheet) next() (cells []string, wrong string, err error) {
	for {
		cells, wrong, err := s.read(maxRow)
		if err != nil || wrong != "" {
			return nil, wrong, err
		}
		if slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) != "" }) {
			return cells, "", nil
		}
	}
}

// ScanSheet tells how many rows a file has. What cannot be imported at all is a fault.
func ScanSheet(r io.Reader) (rows int, err error) {
	s, err := openSheet(r)
	if err != nil {
		return 0, err
	}
	for ; ; rows++ {
		cells, _, err := s.next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, badFile("The file cannot be read as CSV.")
		}
		if slices.ContainsFunc(cells, func(c string) bool { return !utf8.ValidString(c) }) {
			return rows, badFile("The file is not in UTF-8. Save it as CSV UTF-8.")
		}
	}
}

// lead makes a lead of a row; why not, in words for the one who made the file.
func (s *sheet) lead(cells []string, country string, stages Stages) (n *NewLead, reason string) {
	n = &NewLead{}
	for i, cell := range cells {
		cell = plainCell(strings.TrimSpace(cell))
		if cell == "" {
			continue
		}
		if i >= len(s.columns) {
			return nil, "The row has more cells than there are columns."
		}
		ok, what := true, ""
		switch column := s.columns[i]; column {
		case "":
		case "name":
			n.Name, ok, what = cell, len(cell) <= 200 && Line(cell), "The name has at most 200 bytes, and no control characters."
		case "phone":
			n.Phone, ok = Phone(cell, country)
			what = "The phone is not a phone number."
		case "email":
			n.Email, ok = Email(cell)
			what = "The e-mail is not an e-mail address."
		case "source":
			n.Source, ok, what = cell, len(cell) <= 100 && Line(cell), "The source has at most 100 bytes, and no control characters."
		case "tags":
			n.Tags, ok = CleanTags(nonEmpty(strings.Split(cell, ";")))
			what = "A tag has 1 to 100 characters."
		case "stage":
			n.Stage = cell
		case "pipeline":
			n.Pipeline = cell
		case "ownerId":
			n.OwnerID, ok, what = cell, len(cell) <= 100 && Line(cell), "The owner has at most 100 bytes, and no control characters."
		case "value":
			v, err := strconv.ParseFloat(strings.ReplaceAll(cell, ",", ""), 64)
			n.Value, ok, what = v, err == nil && v-v == 0, "The value is not a number."
		case "currency":
			n.Currency, ok, what = strings.ToUpper(cell), len(cell) == 3, "The currency has three letters."
		default:
			if n.Fields == nil {
				n.Fields = map[string]any{}
			}
			n.Fields[strings.TrimPrefix(column, "fields.")] = cell
		}
		if !ok {
			return nil, what
		}
	}
	if n.Phone == "" && n.Email == "" {
		return nil, "The row has neither a phone nor an e-mail."
	}
	return n, n.stand(stages)
}

// stand finds the row's stage by its id or name; why not.
func (n *NewLead) stand(stages Stages) string {
	p := stages.Pipeline(DefaultPipeline)
	if n.Pipeline != "" {
		if p = stages.Pipeline(n.Pipeline); p == nil {
			return "There is no such pipeline."
		}
	}
	if n.Stage == "" {
		return ""
	}
	i := slices.IndexFunc(p.Stages, func(s Stage) bool { return s.ID == n.Stage || strings.EqualFold(s.Name, n.Stage) })
	if i < 0 {
		return "The pipeline has no such stage."
	}
	n.Stage = p.Stages[i].ID
	return ""
}

// Line tells whether a text has no control characters: neither line ends nor what a terminal would act on.
func Line(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' })
}

func nonEmpty(texts []string) []string {
	return slices.DeleteFunc(texts, func(s string) bool { return strings.TrimSpace(s) == "" })
}

// formula tells whether a spreadsheet would compute a text instead of showing it.
func formula(s string) bool { return s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) }

// Cell is a text as it may stand in a CSV file: one that a spreadsheet would take for a formula is marked as text.
func Cell(s string) string {
	if formula(strings.TrimLeft(s, "'")) { // also one that has the mark by itself, lest it be lost on the way back
		return "'" + s
	}
	return s
}

// plainCell undoes Cell.
func plainCell(s string) string {
	if rest, ok := strings.CutPrefix(s, "'"); ok && formula(strings.TrimLeft(rest, "'")) {
		return rest
	}
	return s
}

package vsecm

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrNoValue: a record names a secret, and has no value for it.
var ErrNoValue = errors.New("without a value")

// A Record is one secret, opened. It holds plaintext; Wipe it after use.
type Record struct {
	// Name is VSecM's, with its prefix.
	Name string
	// Namespaces that it was registered for. An export does not tell them.
	Namespaces []string
	// Values of the secret: one, or, up to VSecM 0.28.0, several.
	Values [][]byte
	// Transformed is what VSecM gave to the workload; nil where that is not known.
	Transformed []byte
	// Template and OutputFormat are those of -t and -f.
	Template, OutputFormat string
	// Created and Updated are VSecM's clock; NotBefore and ExpiresAfter the validity, which it never enforced. The
	// zero time is none.
	Created, Updated, NotBefore, ExpiresAfter time.Time
	// Algorithm that it was encrypted with.
	Algorithm Algorithm
	// Notes say what is to be known of it.
	Notes []string
}

// Wipe overwrites the values.
func (r *Record) Wipe() {
	for _, value := range r.Values {
		clear(value)
	}
	clear(r.Transformed)
}

// String keeps the values out of logs and errors.
func (r *Record) String() string {
	return fmt.Sprintf("secret %q with %d values", r.Name, len(r.Values))
}

// Format is as String for every verb.
func (r *Record) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.String()) }

func (r *Record) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// readTimes reads the four times. What cannot be read of the validity is an error, for it would be enforced.
func (r *Record) readTimes(fields map[string]json.RawMessage) (err error) {
	if r.Created, err = moment(fields["created"], "created"); err != nil {
		r.note("created is no time that can be read, and was left out")
	}
	if r.Updated, err = moment(fields["updated"], "updated"); err != nil {
		r.note("updated is no time that can be read, and was left out")
	}
	if r.NotBefore, err = moment(fields["notbefore"], "notBefore"); err != nil {
		return err
	}
	r.ExpiresAfter, err = moment(fields["expiresafter"], "expiresAfter")
	return err
}

// noteUnknown says which fields of a record are read by nobody.
func (r *Record) noteUnknown(where string, fields map[string]json.RawMessage, known ...string) {
	var others []string
	for name := range fields {
		if !slices.Contains(known, name) {
			others = append(others, where+name)
		}
	}
	const most = 5
	slices.Sort(others)
	if n := len(others); n > most {
		r.note("fields that VSecM does not have were left out: %d of them", n)
	} else if n > 0 {
		r.note("fields that VSecM does not have were left out: %s", strings.Join(others, ", "))
	}
}

// What VSecM keeps of a secret, core/entity/v1/data: SecretStored, SecretMeta. Names of versions before 0.28.1 are
// among them, and of those that kept one namespace for each.
var (
	recordFields = []string{"name", "value", "values", "valuetransformed", "valuestransformed", "meta", "created", "updated", "notbefore", "expiresafter"}
	metaFields   = []string{"namespaces", "namespace", "template", "format", "correlationid", "k8s", "storage"}
)

// readRecord reads the JSON that a file of the data folder opens to. Plaintext in data is the caller's to wipe. What Go's
// decoder made of it is let go of.
func readRecord(data []byte, algorithm Algorithm) (*Record, error) {
	fields, err := members(data)
	if err != nil {
		return nil, err
	}
	r := &Record{Algorithm: algorithm}
	if r.Name, err = text(fields["name"], "name"); err != nil {
		return nil, err
	}
	if err := r.readValues(fields); err != nil {
		return nil, err
	}
	if err := r.readMeta(fields["meta"]); err != nil {
		return nil, err
	}
	if err := r.readTimes(fields); err != nil {
		return nil, err
	}
	r.noteUnknown("", fields, recordFields...)
	return r, nil
}

func (r *Record) readValues(fields map[string]json.RawMessage) error {
	if !isNull(fields["value"]) && !isNull(fields["values"]) {
		return fmt.Errorf("%w: both value and values", ErrMalformed)
	}
	list, err := texts(fields["values"], "values")
	if err == nil && isNull(fields["values"]) {
		list, err = texts(fields["value"], "value")
	}
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return ErrNoValue
	}
	for _, value := range list {
		r.Values = append(r.Values, []byte(value))
	}
	transformed, err := text(fields["valuetransformed"], "valueTransformed")
	if err == nil && transformed == "" {
		transformed, err = text(fields["valuestransformed"], "valuesTransformed")
	}
	if transformed != "" { // VSecM gives the value itself otherwise (route/base/extract, SecretValue)
		r.Transformed = []byte(transformed)
	}
	return err
}

func (r *Record) readMeta(raw json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	meta, err := members(raw)
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	field := "namespaces"
	if isNull(meta[field]) {
		field = "namespace"
	}
	if r.Namespaces, err = texts(meta[field], "meta.namespaces"); err != nil {
		return err
	}
	if r.Template, err = text(meta["template"], "meta.template"); err != nil {
		return err
	}
	if r.OutputFormat, err = text(meta["format"], "meta.format"); err != nil {
		return err
	}
	r.noteUnknown("meta.", meta, metaFields...)
	return nil
}

// plausible judges a value of which nothing else tells that it is what was encrypted. VSecM's values are JSON strings, so
// they are UTF-8.
func (r *Record) plausible(value []byte) error {
	if !utf8.Valid(value) {
		return ErrImplausible
	}
	odd := func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t' }
	if strings.ContainsFunc(string(value), odd) {
		r.note("it opens to text with control characters, as a damaged value would: look at it")
	}
	return nil
}

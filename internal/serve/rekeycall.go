package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// maxRekeyBody bounds, in bytes, the body of POST /v1/rekey: a root key, whose lines take one more byte each in
// JSON, or the recipients of an archive.
const maxRekeyBody = 2 * unseal.MaxTextSize

// noArchive is what finish says in the place of an archive's digest.
const noArchive = "none"

var errRekeyBody = errors.New(`the body is not {"do":"stage|unstage|start|abort|check|archive|finish",…} with the members of that`)

// rekeyMembers are those of each call beside "do".
var rekeyMembers = map[string][]string{
	"stage": {"key"}, "unstage": nil, "start": {"key"}, "abort": nil, "check": nil,
	"archive": {"to"}, "finish": {"from", "to", "archive", "force"},
}

// A rekeyCall is the body of POST /v1/rekey.
type rekeyCall struct {
	do string
	// key is the text of a root key, of stage and start; nil: none was given. It is to be wiped.
	key   wiped
	keyID encrypt.KeyID // its
	// recipients of an archive.
	recipients []encrypt.Recipient
	// Of finish: the keys, the archive's SHA-256 or noArchive, and whether to ignore what is in the way.
	from, to encrypt.KeyID
	archive  string
	force    bool
}

// knowsKey tells whether the caller has a root key of Safe's after it: one that they give is to be Safe's own, and opens
// all that is sealed from then on.
func (q rekeyCall) knowsKey() bool { return q.do == "archive" || q.key != nil }

// onRecord is what the audit log says of it.
func (q rekeyCall) onRecord() string {
	var b strings.Builder
	b.WriteString("root-key rekey " + q.do)
	if q.keyID != "" {
		b.WriteString(" key=" + string(q.keyID))
	}
	for _, r := range q.recipients {
		b.WriteString(" recipient=" + string(r.KeyID()))
	}
	if q.do == "finish" {
		fmt.Fprintf(&b, " from=%s to=%s archive=%s", q.from, q.to, q.archive)
	}
	if q.force {
		b.WriteString(" force")
	}
	return b.String()
}

// parseRekeyCall reads a body. What it returns is to be wiped also beside an error. Of what encoding/json says of one
// that is malformed nothing is repeated: it quotes.
func parseRekeyCall(body []byte) (q rekeyCall, err error) {
	var which struct {
		Do string `json:"do"`
	}
	var names map[string]ignored
	if json.Unmarshal(body, &which) != nil || json.Unmarshal(body, &names) != nil {
		return q, errRekeyBody
	}
	members, known := rekeyMembers[which.Do]
	if !known {
		return q, errRekeyBody
	}
	for name := range names {
		if name != "do" && !slices.Contains(members, name) {
			return q, errRekeyBody
		}
	}
	q.do = which.Do
	switch q.do {
	case "stage", "start":
		err = q.parseKey(body)
	case "archive":
		err = q.parseArchive(body)
	case "finish":
		err = q.parseFinish(body)
	}
	return q, err
}

func (q *rekeyCall) parseKey(body []byte) error {
	var in struct {
		Key wiped `json:"key"`
	}
	err := json.Unmarshal(body, &in)
	q.key = in.Key
	switch {
	case err != nil:
		return errRekeyBody
	case len(q.key) == 0 && q.do == "start":
		q.key = nil
		return nil
	}
	key, err := unseal.Parse(q.key)
	if err != nil {
		return err // it quotes nothing
	}
	q.keyID = key.KeyID()
	key.Wipe()
	return nil
}

func (q *rekeyCall) parseArchive(body []byte) error {
	var in struct {
		To []string `json:"to"`
	}
	if json.Unmarshal(body, &in) != nil {
		return errRekeyBody
	}
	if len(in.To) > encrypt.MaxRecipients {
		return fmt.Errorf("to: %d recipients, of at most %d", len(in.To), encrypt.MaxRecipients)
	}
	for _, text := range in.To {
		r, err := encrypt.ParseRecipient(text)
		if err != nil {
			return fmt.Errorf("to: %w", err)
		}
		q.recipients = append(q.recipients, r)
	}
	var err error
	if q.recipients, err = encrypt.UniqueRecipients(q.recipients); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	return nil
}

func (q *rekeyCall) parseFinish(body []byte) error {
	var in struct {
		From    string `json:"from"`
		To      string `json:"to"`
		Archive string `json:"archive"`
		Force   bool   `json:"force"`
	}
	if json.Unmarshal(body, &in) != nil {
		return errRekeyBody
	}
	for name, id := range map[string]string{"from": in.From, "to": in.To} {
		if _, err := parseKeyID(id); err != nil {
			return fmt.Errorf("%s: a key id has 32 hex digits, in lower case", name)
		}
	}
	if in.Archive != noArchive && !isSHA256(in.Archive) {
		return errors.New(`archive: want the SHA-256 of the archive that was written, 64 hex digits in lower case, or "none"`)
	}
	q.from, q.to, q.archive, q.force = encrypt.KeyID(in.From), encrypt.KeyID(in.To), in.Archive, in.Force
	return nil
}

func isSHA256(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

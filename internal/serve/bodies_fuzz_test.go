package serve

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A call of a re-key holds a key only where it may, and neither its errors nor the audit log repeat
// what came.
func FuzzRekeyCall(f *testing.F) {
	key, err := unseal.Generate(true)
	if err != nil {
		f.Fatal(err)
	}
	text, id, to := strings.ReplaceAll(string(key.Text()), "\n", `\n`), string(key.KeyID()), key.Recipient().String()
	for _, seed := range []string{
		"", "{}", "null", `{"do":"check"}`, `{"do":"check","force":true}`, `{"do":"start"}`, `{"do":"start","key":""}`, `{"do":"start","key":"` + text + `"}`,
		`{"do":"stage","key":"` + text + `","key":"x"}`, `{"do":"stage"}`, `{"do":"unstage"}`, `{"do":"abort"}`, `{"do":"abort","key":"` + text + `"}`, `{"do":"start","KEY":"x"}`,
		`{"do":"archive","to":["` + to + `"]}`, `{"do":"archive","to":["` + to + `","` + to + `"]}`, `{"do":"archive","to":[]}`, `{"do":"archive","to":"x"}`,
		`{"do":"finish","from":"` + id + `","to":"` + id + `","archive":"none","force":true}`, `{"do":"finish","from":"` + id + `","to":"x","archive":"none"}`, `{"do":"finish"}`,
		`{"do":"finish","from":"` + id + `","to":"` + strings.Repeat("0a", 16) + `","archive":"` + strings.Repeat("0a", 32) + `"}`, `{"do":"check"}{}`, `{"do":"check","do":"abort"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := parseRekeyCall(bytes.Clone(body))
		defer clear(q.key)
		if err != nil {
			if len(q.key) >= 16 && strings.Contains(err.Error(), string(q.key)) {
				t.Errorf("an error quotes what was given for a key: %v", err)
			}
			return
		}
		if _, known := rekeyMembers[q.do]; !known {
			t.Errorf("%q is taken for a call", q.do)
		}
		if q.key != nil && (q.do != "start" && q.do != "stage" || q.keyID == "") || q.do == "stage" && q.key == nil {
			t.Errorf("%s, with a key of id %q", q.do, q.keyID)
		}
		if (len(q.recipients) > 0) != (q.do == "archive") || q.force && q.do != "finish" || (q.from != "" && q.to != "") != (q.do == "finish") {
			t.Errorf("%+v", q.onRecord())
		}
		if text := q.onRecord(); strings.Trim(text, " -=abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(text) > 4096 {
			t.Errorf("on record %q", text)
		}
	})
}

// What is to be sealed anew is bounded, and each value has a place or is refused.
func FuzzReencryptRequest(f *testing.F) {
	key, err := unseal.Generate(true)
	if err != nil {
		f.Fatal(err)
	}
	to := key.Recipient()
	sealed, err := encrypt.Seal([]byte("a value"), encrypt.Binding{Scope: encrypt.Strict, Namespace: "shop", Name: "db", Key: "password"}, []encrypt.Recipient{to}, time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"", "{}", "null", `{"values":[]}`, `{"values":[null]}`, `{"values":[{}]}`, `{"values":[{"sealed":"` + sealed + `","recipients":["` + to.String() + `"]}]}`,
		`{"values":[{"sealed":"` + sealed + `","recipients":["x"]}]}`, `{"values":[{"sealed":"eA==","recipients":[]},{"sealed":"` + sealed + `"}]}`, `{"values":[]}{}`, `{"values":[{"namespace":"x"}]}`,
		`{"values":[` + strings.Repeat(`{},`, maxReencryptValues) + `{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		values, err := parseReencrypt(body)
		if err != nil {
			return
		}
		if len(values) == 0 || len(values) > maxReencryptValues {
			t.Errorf("%d values", len(values))
		}
		for _, v := range values {
			if v.namespace == "" && !v.refused() || len(v.to) > encrypt.MaxRecipients {
				t.Errorf("a value of namespace %q, to %d", v.namespace, len(v.to))
			}
		}
		_ = countValues(values)
	})
}

// A request for a backup says for whom it is, and of which namespaces.
func FuzzBackupRequest(f *testing.F) {
	key, err := unseal.Generate(true)
	if err != nil {
		f.Fatal(err)
	}
	to := key.Recipient().String()
	for _, seed := range []string{
		"", "{}", "null", `{"recipients":["` + to + `"]}`, `{"recipients":["` + to + `"],"passphrase":"a"}`, `{"passphrase":"a"}`, `{"passphrase":""}`, `{"recipients":[]}`,
		`{"recipients":["` + to + `"],"namespaces":[]}`, `{"recipients":["` + to + `"],"namespaces":["shop","bank","shop"],"includeRootKey":true}`,
		`{"recipients":["` + to + `"],"namespaces":[""]}`, `{"recipients":["` + to + `"],"namespaces":null}`, `{"recipients":["x"]}`, `{"recipients":["` + to + `"]} {}`, `{"more":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := parseBackup(body)
		if err != nil {
			if len(q.Passphrase) >= 16 && strings.Contains(err.Error(), q.Passphrase) {
				t.Errorf("an error quotes the passphrase: %v", err)
			}
			return
		}
		if (len(q.Recipients) > 0) == (q.Passphrase != "") {
			t.Errorf("%d recipients and a passphrase: %v", len(q.Recipients), q.Passphrase != "")
		}
		if len(q.Recipients) > 0 {
			if _, err := backup.ParseRecipients(q.Recipients); err != nil {
				t.Errorf("taken, and %v", err)
			}
		}
		rights := q.rights()
		if want := 1 + max(1, len(q.Namespaces)); len(rights) != want && len(rights) != want+1 || q.IncludeRootKey != (len(rights) == want+1) {
			t.Errorf("rights %v", rights)
		}
	})
}

package safe_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/backup"
)

// In local mode, an operator backs everything up over the socket: with the revision that it came from, and the root
// key if that is wanted.
func TestALocalSafeIsBackedUpOverItsSocket(t *testing.T) {
	w := local(t)
	w.push(map[string]string{"db.yaml": w.seal("db", password("one")), "api.yaml": w.seal("api", map[string]string{"token": "\x00\xff"})})
	w.start()
	src := w.applied(0)
	w.workload("db").wants(one)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	archive := w.archive(t, fmt.Sprintf(`{"recipients":[%q],"includeRootKey":true}`, identity.Recipient()))
	r, err := backup.NewReader(bytes.NewReader(archive), identity)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if string(r.RootKeyText()) != string(w.key.Text()) {
		t.Error("another root key is in it")
	}
	got := make(map[string]string)
	for {
		o, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range o.Data {
			got[o.Namespace+"/"+o.Name+"/"+key] = string(value)
		}
	}
	if len(got) != 2 || got["shop/db/password"] != "one" || got["shop/api/token"] != "\x00\xff" {
		t.Errorf("got %d values", len(got))
	}
	s := r.Summary()
	if len(s.Sources) != 1 || s.Sources[0].Revision != src.Revision || s.Secrets[0].Revision != src.Revision || s.Secrets[0].Source != s.Sources[0].Name || s.Safe.KeyID != w.key.KeyID() {
		t.Errorf("the summary: %+v", s)
	}
	// Neither the log nor the audit log has anything of it.
	secret, _, _ := strings.Cut(string(w.key.Text()), "\n")
	if said := w.process.stderr.String() + w.process.stdout.String(); strings.Contains(said, secret) || strings.Contains(said, identity.String()) || !strings.Contains(said, `"verb":"backup"`) {
		t.Errorf("said:\n%s", said)
	}
}

// archive asks for one over the socket.
func (w *world) archive(t *testing.T, body string) []byte {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.at.Operator)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Post("http://safe/v1/backup", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	archive, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Trailer.Get("Vsecm-Backup-Sha256") == "" {
		t.Fatalf("%s, %v, trailers %v", resp.Status, err, resp.Trailer)
	}
	return archive
}

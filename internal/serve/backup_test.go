package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/backup"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// archived is a Safe whose archives a test can open.
type archived struct {
	*safe
	who      *operators
	gate     *unseal.Gate
	identity *age.X25519Identity
}

func newArchived(t *testing.T, options ...safeOption) *archived {
	t.Helper()
	a := &archived{gate: unseal.NewGate(), identity: must(age.GenerateX25519Identity())(t)}
	t.Cleanup(a.gate.Shut)
	a.safe, a.who = newOperated(t, append(options, func(s *safe) {
		a.gate.Open(must(unseal.NewKeyring(must(unseal.Parse(s.key.Text()))(t)))(t))
		s.Archive, s.Namespace = a.gate, "vsecm-system"
		s.Status = func() Status {
			return Status{Version: "v1.2.3", Sources: []reconcile.Status{{Source: "shop.config", URL: "https://git.example.org/shop", Branch: "main", Revision: "5f1bd606"}}}
		}
	})...)
	a.allow("backup safes /", "reveal encryptedsecrets /")
	return a
}

func (a *archived) allow(rights ...string) {
	a.who.set(func(o *operators) { o.rights[adminName] = rights })
}

// wants is a request's body.
func (a *archived) wants(also string) string {
	return fmt.Sprintf(`{"recipients":[%q]%s}`, a.identity.Recipient(), also)
}

func (a *archived) ask(body string) reply {
	a.t.Helper()
	return send(a.t, a.anyServer(), http.MethodPost, a.url+"/v1/backup", strings.NewReader(body), bearer(adminToken)...)
}

// open reads an archive to its end: OBJECT/KEY → value.
func (a *archived) open(archive []byte) (map[string]string, backup.Summary) {
	a.t.Helper()
	r := must(backup.NewReader(bytes.NewReader(archive), a.identity))(a.t)
	defer r.Close()
	got := make(map[string]string)
	for {
		o, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got, r.Summary()
		}
		check(a.t, err)
		for key, value := range o.Data {
			got[o.Namespace+"/"+o.Name+"/"+key] = string(value)
		}
	}
}

func TestBackupIsOfWhatWasAskedFor(t *testing.T) {
	a := newArchived(t)
	a.apply("shop", "db", map[string]string{"password": theValue, "empty": ""})
	a.apply("shop", "api", map[string]string{"token": "t\x00\xff"})
	a.apply("bank", "db", map[string]string{"pin": "1"})
	wait.Until(t, "the objects are in", func() bool { return a.Cache.Objects() == 3 })
	all := map[string]string{"shop/db/password": theValue, "shop/db/empty": "", "shop/api/token": "t\x00\xff", "bank/db/pin": "1"}

	r := a.ask(a.wants(""))
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/age" || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v %s", r.Status, r.Header, r.body)
	}
	sum := sha256.Sum256(r.body)
	if r.Trailer.Get(BackupDigest) != hex.EncodeToString(sum[:]) {
		t.Errorf("trailers %v", r.Trailer)
	}
	var result backup.Result
	check(t, json.Unmarshal([]byte(r.Trailer.Get(BackupResult)), &result))
	if result.Objects != 3 || result.Values != 4 || result.UnreadableCount != 0 {
		t.Errorf("result %+v", result)
	}
	got, summary := a.open(r.body)
	if !equal(got, all) {
		t.Errorf("got %d values", len(got))
	}
	want := backup.Safe{Version: "v1.2.3", KeyID: a.key.KeyID(), Recipient: a.key.Recipient().String(), Namespace: "vsecm-system"}
	if summary.Safe != want || len(summary.Sources) != 1 || summary.Sources[0].Ref != "refs/heads/main" || summary.Sources[0].Revision != "5f1bd606" || time.Since(summary.Created) > time.Hour {
		t.Errorf("summary %+v", summary)
	}

	a.allow("backup safes /", "reveal encryptedsecrets shop/", "reveal encryptedsecrets nowhere/")
	got, summary = a.open(a.ask(a.wants(`,"namespaces":["shop","nowhere","shop"]`)).body)
	delete(all, "bank/db/pin")
	if !equal(got, all) || len(summary.Namespaces) != 2 {
		t.Errorf("of shop: %d values, namespaces %q", len(got), summary.Namespaces)
	}

	// By the socket, and with a passphrase.
	body := `{"passphrase":"correct horse","namespaces":["bank"]}`
	r = send(t, a.operatorClient(), http.MethodPost, "http://safe/v1/backup", strings.NewReader(body))
	read := must(backup.NewReader(bytes.NewReader(r.body), must(age.NewScryptIdentity("correct horse"))(t)))(t)
	if o := must(read.Next())(t); string(o.Data["pin"]) != "1" {
		t.Errorf("got %s", o)
	}
	if _, err := read.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for _, e := range a.onRecord() {
		if e.Verb != "backup" || !strings.HasPrefix(e.Object, "backup of ") || strings.Contains(e.Object, "correct horse") {
			t.Errorf("on record: %+v", e)
		}
	}
}

func TestPromise01_ABackupShowsNothingInTheClear(t *testing.T) {
	a := newArchived(t)
	a.withDB(theValue)
	a.allow("backup safes /", "reveal encryptedsecrets /", "exportkey safes /")
	r := a.ask(a.wants(`,"includeRootKey":true`))
	lines := a.onRecord()
	secret, _, _ := strings.Cut(string(a.key.Text()), "\n")
	for where, text := range map[string]string{"the answer": string(r.body), "its trailers": fmt.Sprint(r.Trailer), "the log": a.log.String(), "the audit log": a.audit.String()} {
		for _, value := range []string{theValue, secret, a.identity.String()} {
			if form := leak(text, value); form != "" {
				t.Errorf("%s has it as %s", where, form)
			}
		}
	}
	opened := must(backup.NewReader(bytes.NewReader(r.body), a.identity))(t)
	defer opened.Close()
	if must(unseal.Parse(opened.RootKeyText()))(t).KeyID() != a.key.KeyID() {
		t.Error("another root key")
	}
	want := "backup of all namespaces with the root key for "
	if len(lines) != 2 || lines[0].Outcome != audit.Allowed || lines[1].Outcome != audit.OK || !strings.HasPrefix(lines[0].Object, want) || lines[0].Object != lines[1].Object {
		t.Errorf("on record: %+v", lines)
	}
}

func TestBackupNeedsEveryRight(t *testing.T) {
	for name, test := range map[string]struct {
		rights []string
		also   string
		want   bool
	}{
		"none":                        {nil, "", false},
		"backup alone":                {[]string{"backup safes /"}, "", false},
		"reveal alone":                {[]string{"reveal encryptedsecrets /"}, "", false},
		"both":                        {[]string{"backup safes /", "reveal encryptedsecrets /"}, "", true},
		"reveal of one, and all":      {[]string{"backup safes /", "reveal encryptedsecrets shop/"}, "", false},
		"reveal of one":               {[]string{"backup safes /", "reveal encryptedsecrets shop/"}, `,"namespaces":["shop"]`, true},
		"reveal of one, and two":      {[]string{"backup safes /", "reveal encryptedsecrets shop/"}, `,"namespaces":["shop","bank"]`, false},
		"no export of the key":        {[]string{"backup safes /", "reveal encryptedsecrets /"}, `,"includeRootKey":true`, false},
		"export of the key":           {[]string{"backup safes /", "reveal encryptedsecrets /", "exportkey safes /"}, `,"includeRootKey":true`, true},
		"export of the key, not more": {[]string{"exportkey safes /"}, `,"includeRootKey":true`, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchived(t)
			a.withDB(theValue)
			a.allow(test.rights...)
			r := a.ask(a.wants(test.also))
			lines := a.onRecord()
			if test.want {
				if r.StatusCode != http.StatusOK || len(lines) != 2 {
					t.Errorf("%s, %+v", r.Status, lines)
				}
				return
			}
			r.is(t, problem.Forbidden)
			if len(lines) != 1 || lines[0].Outcome != string(problem.Forbidden) {
				t.Errorf("on record: %+v", lines)
			}
		})
	}
}

func TestABackupThatMakesNoSense(t *testing.T) {
	a := newArchived(t)
	hybrid := must(age.GenerateHybridIdentity())(t)
	for name, body := range map[string]string{
		"nothing":           "",
		"for nobody":        `{}`,
		"for an empty list": `{"recipients":[]}`,
		"for both":          a.wants(`,"passphrase":"x"`),
		"for no recipient":  `{"recipients":["hunter2"]}`,
		"for a private key": fmt.Sprintf(`{"recipients":[%q]}`, a.identity),
		"mixed":             fmt.Sprintf(`{"recipients":[%q,%q]}`, a.identity.Recipient(), hybrid.Recipient()),
		"of no namespace":   a.wants(`,"namespaces":[]`),
		"of a bad one":      a.wants(`,"namespaces":["../x"]`),
		"unknown":           a.wants(`,"force":true`),
		"two":               a.wants("") + "{}",
		"too long":          a.wants(`,"passphrase":"` + strings.Repeat("x", maxBackupBody) + `"`),
	} {
		r := a.ask(body)
		r.is(t, problem.BadRequest)
		if strings.Contains(string(r.body), "AGE-SECRET-KEY") {
			t.Errorf("%s: it quotes a private key", name)
		}
	}
}

func TestASealedSafeMakesNoBackup(t *testing.T) {
	a := newArchived(t)
	a.Cache.Seal()
	a.ask(a.wants("")).is(t, problem.Sealed)
}

func TestNoBackupIsMadeBeforeTheCacheIsFilled(t *testing.T) {
	who := newOperators()
	who.rights[adminName] = []string{"backup safes /", "reveal encryptedsecrets /"}
	s := startSafe(t, false, func(s *safe) { s.Operators = who })
	a := &archived{safe: s, who: who, identity: must(age.GenerateX25519Identity())(t)}
	a.ask(a.wants("")).is(t, problem.Unavailable)
}

// large gives a Safe objects whose archive no socket has room for.
func (a *archived) large() {
	a.t.Helper()
	value := strings.Repeat("x", 600<<10)
	for i := range 24 {
		a.apply("shop", fmt.Sprintf("db-%02d", i), map[string]string{"password": value})
	}
	wait.Until(a.t, "the objects are in", func() bool { return a.Cache.Objects() == 24 })
}

// begin asks for an archive of which the caller reads what they like.
func (a *archived) begin(ctx context.Context, c *http.Client) *http.Response {
	a.t.Helper()
	req := must(http.NewRequestWithContext(ctx, http.MethodPost, "http://safe/v1/backup", strings.NewReader(a.wants(""))))(a.t)
	resp := must(c.Do(req))(a.t)
	a.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		a.t.Fatal(resp.Status)
	}
	must(io.ReadFull(resp.Body, make([]byte, 1000)))(a.t)
	return resp
}

func (a *archived) failed(t *testing.T) {
	t.Helper()
	wait.Until(t, "the backup has ended", func() bool { return strings.Contains(a.audit.String(), audit.Failed) })
	lines := a.onRecord()
	if len(lines) < 2 || lines[0].Outcome != audit.Allowed || lines[len(lines)-1].Outcome != audit.Failed {
		t.Errorf("on record: %+v", lines)
	}
}

// A rekeyedOnce has its active key replaced right after that was read for the first time.
type rekeyedOnce struct {
	*unseal.Gate
	once sync.Once
	then func()
}

func (r *rekeyedOnce) ActiveText() []byte {
	text := r.Gate.ActiveText()
	r.once.Do(r.then)
	return text
}

func TestARekeyWhileABackupBeginsLeavesNoKeyOut(t *testing.T) {
	next := must(unseal.Generate(true))(t)
	text := next.Text()
	a := newArchived(t)
	a.Archive = &rekeyedOnce{Gate: a.gate, then: func() {
		a.gate.Open(must(unseal.NewKeyring(must(unseal.Parse(text))(t), must(unseal.Parse(a.key.Text()))(t)))(t))
	}}
	active, retired := a.rootKeys()
	if string(active) != string(text) || string(retired) != string(a.key.Text()) {
		t.Error("a key is missing, or in the place of another")
	}
}

func TestASealInTheMiddleEndsABackup(t *testing.T) {
	a := newArchived(t)
	a.large()
	resp := a.begin(t.Context(), a.operatorClient())
	a.gate.Shut()
	rest, err := io.ReadAll(resp.Body)
	if err == nil || resp.Trailer.Get(BackupDigest) != "" {
		t.Errorf("%d bytes more, and then %v, trailers %v", len(rest), err, resp.Trailer)
	}
	a.failed(t)
}

func TestAReaderThatGoesEndsABackup(t *testing.T) {
	a := newArchived(t)
	a.large()
	ctx, cancel := context.WithCancel(t.Context())
	a.begin(ctx, a.operatorClient())
	cancel()
	a.failed(t)
}

func TestAReaderThatStallsEndsABackup(t *testing.T) {
	a := newArchived(t, func(s *safe) { s.backupStall = 300 * time.Millisecond })
	a.large()
	resp := a.begin(t.Context(), a.operatorClient())
	wait.Until(t, "the backup has ended", func() bool { return strings.Contains(a.audit.String(), audit.Failed) })
	if _, err := io.ReadAll(resp.Body); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	a.failed(t)
}

func TestBackupsAreBoundedInNumber(t *testing.T) {
	a := newArchived(t)
	a.large()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := a.operatorClient()
	for range maxBackups {
		a.begin(ctx, c)
	}
	post := func() reply {
		return send(t, c, http.MethodPost, "http://safe/v1/backup", strings.NewReader(a.wants(`,"namespaces":["nowhere"]`)))
	}
	post().is(t, problem.TooManyRequests)
	cancel()
	wait.Until(t, "there is room again", func() bool { return post().StatusCode == http.StatusOK })
}

func TestALongListOfWhatDoesNotOpenHasRoomInATrailer(t *testing.T) {
	result := backup.Result{UnreadableCount: 100}
	for range 100 {
		result.Unreadable = append(result.Unreadable, backup.Unreadable{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("x", 253), Key: strings.Repeat("k", 253), Why: "not bound to this place"})
	}
	var got backup.Result
	text := shortResult(result)
	check(t, json.Unmarshal([]byte(text), &got))
	if len(text) > maxResult || got.UnreadableCount != 100 || len(got.Unreadable) == 0 {
		t.Errorf("%d bytes, %d listed", len(text), len(got.Unreadable))
	}
}

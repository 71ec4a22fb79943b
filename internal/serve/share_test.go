package serve

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil/bech32"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestSharesUnsealOverTLSAndOnTheSocket(t *testing.T) {
	for name, memory := range map[string]bool{"in memory": true, "kept": false} {
		t.Run(name, func(t *testing.T) {
			over := newCeremonyOf(t, memory, 5, 3)
			socket := over.onSocket()
			st := over.gives(over.shares[3].Text(), over.set.Text(), "").status(t)
			if p := st.Progress; st.State != rootkey.Sealed || p.Given != 1 || p.Needed != 3 || p.Set != over.set.ID() || !slices.Equal(p.Indices, []int{4}) {
				t.Errorf("status %+v", st)
			}
			socket.gives(over.shares[0].Text(), nil, "").status(t)
			// Anyone may know how far it is, and the answer is what the plugin reads.
			var raw struct{ Progress map[string]any }
			for url, c := range map[string]*ceremony{"/v1/seal-status": over, "/v1/status": over} {
				r := do(t, c.client, http.MethodGet, c.url+url, c.header...)
				check(t, json.Unmarshal(r.body, &raw))
				expires, err := time.Parse(time.RFC3339, fmt.Sprint(raw.Progress["expires"]))
				delete(raw.Progress, "expires")
				if got := fmt.Sprint(raw.Progress); err != nil || !expires.After(time.Now()) || got != fmt.Sprintf("map[given:2 indices:[1 4] needed:3 set:%s]", over.set.ID()) {
					t.Errorf("%s: %s, %v", url, r.body, err)
				}
			}
			if st := over.gives(over.shares[4].Text(), nil, "").status(t); st.State != rootkey.Unsealed || st.Progress.Given != 1 || st.KeyID != over.key.KeyID() {
				t.Errorf("status %+v", st)
			}
			// The share of whoever comes late is not looked at.
			for _, late := range []string{string(over.shares[1].Text()), "noise"} {
				if st := socket.gives([]byte(late), nil, "").status(t); st.State != rootkey.Unsealed {
					t.Errorf("status %+v", st)
				}
			}

			share := func(i int) string { return fmt.Sprintf("root-key share %d of set %s", i, over.set.ID()) }
			admin := audit.Entry{Actor: adminName, Credential: credentialOf + adminName, Verb: "unseal"}
			local := audit.Entry{Actor: fmt.Sprintf("uid:%d", os.Getuid()), Verb: "unseal"}
			line := func(e audit.Entry, object, outcome string) audit.Entry {
				e.Object, e.Outcome = object, outcome
				return e
			}
			want := []audit.Entry{
				line(admin, share(4), audit.Allowed), line(admin, share(4), audit.OK),
				line(local, share(1), audit.Allowed), line(local, share(1), audit.OK),
				line(admin, share(5), audit.Allowed), line(admin, share(5), audit.OK),
				line(local, "root-key share", audit.OK), line(local, "root-key share", audit.OK),
			}
			got := slices.DeleteFunc(over.onRecord(), func(e audit.Entry) bool { return e.Verb != "unseal" })
			if !slices.Equal(got, want) {
				t.Errorf("on record:\n%+v, want\n%+v", got, want)
			}
		})
	}
}

func TestSharesThatDoNotCountAreNamed(t *testing.T) {
	c := newCeremony(t, 5, 3)
	set, id := c.set.Text(), c.set.ID()
	other := *c
	other.deal(3, 2)
	foreign := *c
	var err error
	foreign.set, foreign.shares, err = unseal.Split(must(generate())(t), 3, 2)
	check(t, err)
	typo := c.shares[0].Text()
	if typo[40]++; !strings.ContainsRune("qpzry9x8gf2tvdw0s3jn54khce6mua7l", rune(typo[40])) {
		typo[40] = 'q'
	}
	number := func(p []byte) { p[len(p)-32]++ }

	// The reason gets its time when Safe next looks at its mark.
	counts := func(st rootkey.Status) string {
		st.Reason = ""
		return fmt.Sprint(st)
	}
	first := c.gives(c.shares[1].Text(), set, "").status(t)
	for _, tt := range []struct {
		name       string
		share, set []byte
		want       problem.Type
		says       []string
	}{
		{"a typo", typo, nil, problem.WrongShare, []string{"typo"}},
		{"a half", c.shares[0].Text()[:50], nil, problem.WrongShare, []string{"typo"}},
		{"nothing like it", []byte("hunter2"), nil, problem.WrongShare, []string{"not a share"}},
		{"of another set", other.shares[0].Text(), set, problem.WrongShare, []string{"share 1", "another set", other.set.ID().String()}},
		{"given already", c.shares[1].Text(), nil, problem.WrongShare, []string{"share 2", "already"}},
		{"forged", forge(t, c.shares[2], number), nil, problem.WrongShare, []string{"share 3", "forged"}},
		{"forged, its index none", forge(t, c.shares[2], func(p []byte) { p[17] = 0 }), nil, problem.WrongShare, []string{"forged"}},
		{"of a later version", forge(t, c.shares[2], func(p []byte) { p[0] = 2 }), nil, problem.WrongShare, []string{"newer version"}},
		{"the whole key", c.key.Text(), nil, problem.WrongShare, []string{"whole private key", "text/plain"}},
		{"of another key", foreign.shares[0].Text(), foreign.set.Text(), problem.WrongKey, []string{string(c.key.KeyID()), foreign.set.ID().String()}},
		{"its set is missing", other.shares[0].Text(), nil, problem.ShareSetNeeded, []string{other.set.ID().String(), "1 of 3 of set " + id.String()}},
		{"its set is malformed", other.shares[0].Text(), bytes.Replace(other.set.Text(), []byte("threshold: 2"), []byte("threshold: 1"), 1), problem.BadRequest, []string{"vsecm-shares.yaml"}},
		{"its set is noise", other.shares[0].Text(), []byte("{}"), problem.BadRequest, []string{"vsecm-shares.yaml"}},
	} {
		for _, c := range []*ceremony{c, c.onSocket()} {
			r := c.gives(tt.share, tt.set, "")
			r.is(t, tt.want)
			for _, says := range tt.says {
				if !strings.Contains(string(r.body), says) {
					t.Errorf("%s: %s, want %q", tt.name, r.body, says)
				}
			}
			if st := c.RootKey.Status(); counts(st) != counts(first) {
				t.Errorf("%s: %+v, before it %+v", tt.name, st, first)
			}
		}
	}
	// Bodies and queries that make no sense.
	share := string(must(json.Marshal(string(c.shares[0].Text())))(t))
	for _, body := range []string{
		"", "{}", "null", share, `{"share":` + share, `{"share":null}`, `{"share":[` + share + `]}`, `{"share":` + share + `,"set":1}`,
		`{"share":` + share + `,"more":1}`, `{"Share":` + share + `}`, `{"share":` + share + `}{}`, string(c.shares[0].Text()),
		`{"share":` + share + `,"set":"` + strings.Repeat("#", maxShareBody) + `"}`,
	} {
		c.json("", body).is(t, problem.BadRequest)
	}
	for _, query := range []string{"?reset=1", "?set=" + id.String(), "?accept-key-id=x", "?share=" + string(c.shares[0].Text())} {
		c.json(query, `{"share":`+share+`}`).is(t, problem.BadRequest)
	}
	for _, query := range []string{"?reset=0", "?reset=1&set=x", "?reset=1&reset=1", "?reset=1&accept-key-id=" + string(c.key.KeyID())} {
		c.post("/v1/unseal"+query, nil).is(t, problem.BadRequest)
	}
	// A share where a whole key belongs.
	r := c.post("/v1/unseal", c.shares[0].Text())
	if r.is(t, problem.BadRequest); !strings.Contains(string(r.body), "application/json") {
		t.Errorf("as text: %s", r.body)
	}
	if st := c.RootKey.Status(); counts(st) != counts(first) {
		t.Errorf("%+v, before %+v", st, first)
	}
	// With line breaks and blanks, as it was copied.
	text := string(c.shares[0].Text())
	c.gives([]byte(strings.ToUpper(text[:30]+"\r\n\t "+text[30:])), nil, "").status(t)
	if st := c.gives(c.shares[4].Text(), nil, "").status(t); st.State != rootkey.Unsealed {
		t.Errorf("status %+v", st)
	}
}

func TestCeremoniesAreToldApartResetAndLapse(t *testing.T) {
	c := newCeremony(t, 5, 3)
	now := time.Now()
	c.stopped.Store(&now)
	sets := []*ceremony{c}
	for range rootkey.MaxCeremonies {
		next := *c
		next.deal(3, 3)
		sets = append(sets, &next)
	}
	c.gives(c.shares[0].Text(), c.set.Text(), "").status(t)
	c.gives(c.shares[1].Text(), nil, "").status(t)
	st := sets[1].gives(sets[1].shares[0].Text(), sets[1].set.Text(), "").status(t)
	if len(st.Ceremonies) != 2 || st.Progress.Set != c.set.ID() || st.Ceremonies[1].Set != sets[1].set.ID() {
		t.Errorf("status %+v", st)
	}
	for _, next := range sets[2:4] {
		next.gives(next.shares[0].Text(), next.set.Text(), "").status(t)
	}
	r := sets[4].gives(sets[4].shares[0].Text(), sets[4].set.Text(), "")
	if r.is(t, problem.TooManySets); !strings.Contains(string(r.body), "reset one") {
		t.Errorf("a fifth: %s", r.body)
	}
	if st := c.post("/v1/unseal?reset=1&set="+sets[1].set.ID().String(), nil).status(t); len(st.Ceremonies) != 3 || st.Progress.Given != 2 {
		t.Errorf("after a reset of one: %+v", st)
	}
	later := now.Add(rootkey.ShareLifetime)
	c.stopped.Store(&later)
	st = c.gives(c.shares[2].Text(), nil, "").status(t)
	if p := st.Progress; p.Given != 1 || !slices.Equal(p.Lapsed, []int{1, 2}) || !p.Expires.Equal(later.Add(rootkey.ShareLifetime).UTC().Truncate(time.Second)) {
		t.Errorf("after a quarter of an hour: %+v", st)
	}
	if st := c.onSocket().post("/v1/unseal?reset=1", nil).status(t); st.Ceremonies != nil || st.Progress.Given != 0 || st.State != rootkey.Sealed {
		t.Errorf("after a reset: %+v", st)
	}
	c.gives(c.shares[0].Text(), nil, "").is(t, problem.ShareSetNeeded)
	var objects []string
	for _, e := range c.onRecord() {
		if strings.Contains(e.Object, "reset") {
			objects = append(objects, e.Object+" "+e.Outcome)
		}
	}
	one := "root-key shares of set " + sets[1].set.ID().String() + " reset "
	if want := []string{one + "allowed", one + "ok", "root-key shares reset allowed", "root-key shares reset ok"}; !slices.Equal(objects, want) {
		t.Errorf("on record: %q", objects)
	}
}

// TestPromise05_ASealedSafeServesNothingWhileSharesCome stays one share short.
func TestPromise05_ASealedSafeServesNothingWhileSharesCome(t *testing.T) {
	c := newCeremony(t, 5, 3)
	c.withDB(theValue)
	c.gives(c.shares[0].Text(), c.set.Text(), "").status(t)
	c.gives(c.shares[1].Text(), nil, "").status(t)
	db := c.safe.client(svc("shop", "db"))
	do(t, db, http.MethodGet, c.safe.url+"/v1/secrets").is(t, problem.Sealed)
	for _, name := range []string{"reveal", "sync"} {
		call := c.operatorCalls()[name]
		c.operate(c.client, call, bearer(call.token)...).is(t, problem.Sealed)
	}
	if got := c.probe(c.readiness); got != http.StatusServiceUnavailable {
		t.Errorf("readiness: %d", got)
	}
	// A seal in the middle takes what was given.
	c.post("/v1/seal", nil).is(t, problem.Sealed)
	if st := c.RootKey.Status(); st.Progress.Given != 0 {
		t.Errorf("after a seal: %+v", st)
	}
	for i, set := range [][]byte{c.set.Text(), nil, nil} {
		c.gives(c.shares[i].Text(), set, "").status(t)
	}
	if got := do(t, db, http.MethodGet, c.safe.url+"/v1/secrets").values(t); got["db/password"] != theValue {
		t.Errorf("served %v", got)
	}
}

func TestSharesAreNotTakenFromThoseWhoMayNotOrOffTheRecordOrTooOften(t *testing.T) {
	c := newCeremony(t, 3, 2)
	body := func() io.Reader {
		in := map[string]string{"share": string(c.shares[0].Text()), "set": string(c.set.Text())}
		return bytes.NewReader(must(json.Marshal(in))(t))
	}
	try := func(client *http.Client, url string, headers ...string) reply {
		return send(t, client, http.MethodPost, url+"/v1/unseal", body(), append(headers, "Content-Type", "application/json")...)
	}
	try(c.client, c.url, bearer(nobodyToken)...).is(t, problem.Forbidden)
	try(c.client, c.url).is(t, problem.Unauthorized)
	do(t, c.client, http.MethodPost, c.url+"/v1/unseal?reset=1", bearer(nobodyToken)...).is(t, problem.Forbidden)

	c.audit.setBroken(true)
	try(c.client, c.url, bearer(adminToken)...).is(t, problem.Unavailable)
	try(c.operatorClient(), "http://safe").is(t, problem.Unavailable)
	c.audit.setBroken(false)
	if st := c.RootKey.Status(); st.Progress.Given != 0 {
		t.Fatalf("status %+v", st)
	}
	c.gives(c.shares[1].Text(), c.set.Text(), "").status(t)
	c.audit.setBroken(true)
	c.post("/v1/unseal?reset=1", nil).is(t, problem.Unavailable)
	c.audit.setBroken(false)
	if st := c.RootKey.Status(); st.Progress.Given != 1 {
		t.Fatalf("a reset off the record: %+v", st)
	}

	now := time.Now().Add(time.Minute)
	c.stopped.Store(&now)
	wrong := func(client *http.Client, url string, headers ...string) reply {
		return send(t, client, http.MethodPost, url+"/v1/unseal", strings.NewReader(`{"share":"no"}`), append(headers, "Content-Type", "application/json")...)
	}
	for range unsealBurst {
		wrong(c.client, c.url, bearer(adminToken)...).is(t, problem.WrongShare)
		wrong(c.operatorClient(), "http://safe").is(t, problem.WrongShare)
	}
	for _, r := range []reply{wrong(c.client, c.url, bearer(adminToken)...), wrong(c.operatorClient(), "http://safe")} {
		if r.is(t, problem.TooManyRequests); r.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
}

// Holders come at once over both listeners, each more than once: it is unsealed once there
// are enough, and everyone is told what theirs did.
func TestHoldersMayComeAtOnce(t *testing.T) {
	c := newCeremony(t, 8, 5)
	var holders sync.WaitGroup
	c.gives(c.shares[0].Text(), c.set.Text(), "").status(t)
	for i, share := range c.shares[1:] {
		for _, c := range []*ceremony{c, c.onSocket()} {
			holders.Go(func() {
				switch r := c.gives(share.Text(), nil, ""); {
				case r.StatusCode == http.StatusOK:
				case strings.Contains(string(r.body), "already"):
					r.is(t, problem.WrongShare)
				case c.RootKey.Status().State != rootkey.Unsealed:
					t.Errorf("share %d: %s %s", i+2, r.Status, r.body)
				}
			})
		}
	}
	holders.Wait()
	if st := c.RootKey.Status(); st.State != rootkey.Unsealed || c.Cache.Sealed() {
		t.Errorf("status %+v", st)
	}
}

// TestPromise01_SharesThatAreGivenAreNowhere gives shares in every way, and looks for them in all
// that Safe writes.
func TestPromise01_SharesThatAreGivenAreNowhere(t *testing.T) {
	c := newCeremony(t, 3, 3)
	other := *c
	other.deal(3, 2)
	given := [][]byte{c.shares[0].Text(), c.shares[1].Text(), c.shares[2].Text(), other.shares[0].Text(), forge(t, c.shares[0], func(p []byte) { p[20]++ })}
	var answers strings.Builder
	ask := func(r reply) { answers.Write(r.body) }
	for _, share := range given {
		ask(c.gives(share[:90], nil, ""))
		ask(c.gives(append(slices.Clone(share), "b"...), nil, ""))
		ask(c.post("/v1/unseal", share))
		ask(c.json("", `{"share":`+string(share)+`}`))
		ask(c.json("", `{"set":"`+string(share)+`"}`))
		ask(c.json("", `{"share":"vsecm-share1","set":"`+string(share)+`"}`))
		ask(c.json("?"+string(share), `{"share":"`+string(share)+`"}`))
	}
	for _, share := range given {
		ask(c.gives(share, c.set.Text(), ""))
	}
	if st := c.RootKey.Status(); st.State != rootkey.Unsealed {
		t.Fatalf("status %+v", st)
	}
	scraper := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	metrics := string(do(t, scraper, http.MethodGet, c.metricsURL).body)
	c.auditLines()
	for where, text := range map[string]string{"audit log": c.audit.String(), "log": c.log.String(), "metrics": metrics, "answers": answers.String()} {
		if len(text) == 0 {
			t.Errorf("%s: there is nothing", where)
		}
		for i, share := range given {
			_, symbols, err := bech32.DecodeNoLimit(string(share))
			check(t, err)
			payload := must(bech32.ConvertBits(symbols, 5, 8, false))(t)
			number := payload[len(payload)-32:]
			secret := string(share[len("vsecm-share1")+29:]) // what stands before is set and index
			for at := 0; at+16 <= len(secret); at++ {
				if leak(text, secret[at:at+16]) != "" {
					t.Fatalf("%s: a part of share %d is there", where, i)
				}
			}
			for _, form := range []string{hex.EncodeToString(number), base64.StdEncoding.EncodeToString(number), fmt.Sprint(number)} {
				if strings.Contains(text, form[1:20]) {
					t.Errorf("%s: the number of share %d is there", where, i)
				}
			}
		}
	}
	if !strings.Contains(c.log.String(), "a share of the root key was taken") || !strings.Contains(c.audit.String(), `"outcome":"wrong-share"`) {
		t.Error("what was to be searched is not there")
	}
}

func TestSharesInARealCluster(t *testing.T) {
	cp := cluster.Start(t)
	client := must(kube.NewClient(cp.Config()))(t)
	s := newInCluster(t, cp, "shared", withKeeper(false, func(*safe) rootkey.Place {
		return rootkey.NewSecretPlace(client, "shared", "vsecm-root-key", "")
	}))
	c := &ceremony{safe: s, client: s.anyServer(), url: s.url}
	c.header = bearer(cp.Token(t, "shared", "vsecm-operator", AudienceOf(s.shown())))
	c.deal(5, 3)
	if r := c.post("/v1/seal", nil); r.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	marked := func() bool {
		var secret kube.Secret
		check(t, client.Core.Get().Namespace("shared").Resource("secrets").Name("vsecm-root-key").Do(t.Context()).Into(&secret))
		if !bytes.Equal(secret.Data[rootkey.DataKey], s.key.Text()) {
			t.Error("another key is kept")
		}
		return secret.Annotations[rootkey.AnnotationSealed] != ""
	}
	viewer := *c
	viewer.header = bearer(cp.Token(t, "shared", "vsecm-viewer", AudienceOf(s.shown())))
	viewer.gives(c.shares[0].Text(), c.set.Text(), "").is(t, problem.Forbidden)
	c.gives(c.shares[4].Text(), c.set.Text(), "").status(t)
	c.gives(c.shares[0].Text(), nil, "").status(t)
	c.gives(forge(t, c.shares[1], func(p []byte) { p[30]++ }), nil, "").is(t, problem.WrongShare)
	if !marked() || !s.Cache.Sealed() {
		t.Error("two of three undid the seal")
	}
	if st := c.gives(c.shares[1].Text(), nil, "").status(t); st.State != rootkey.Unsealed || marked() || s.Cache.Sealed() {
		t.Errorf("status %+v", st)
	}
	// What is published, and what the API server has on record, has none of it.
	var cm kube.ConfigMap
	check(t, client.Core.Get().Namespace("shared").Resource("configmaps").Name(publication.Name).Do(t.Context()).Into(&cm))
	text := fmt.Sprint(cm) + string(must(os.ReadFile(cp.AuditLog()))(t))
	for i, share := range c.shares {
		if secret := string(share.Text()[len("vsecm-share1")+29:]); leak(text, secret[:16]) != "" || leak(text, secret[16:32]) != "" {
			t.Errorf("share %d went to the API server", i+1)
		}
	}
}

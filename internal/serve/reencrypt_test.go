package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/internal/audit"
	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/internal/rootkey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	renewToken = "aGVhZA.cmVuZXc.c2lnbmF0dXJlLW9mLXJlbmV3ZXI"
	renewName  = "system:serviceaccount:vsecm-system:renewer"
)

// A rekeyed Safe holds a key that is retired, beside its own.
type rekeyed struct {
	*safe
	old  *unseal.RootKey
	gate *unseal.Gate
	who  *operators
}

// newRekeyed starts a Safe after a re-key, one of whose operators may re-encrypt in namespace shop.
func newRekeyed(t *testing.T, options ...safeOption) *rekeyed {
	t.Helper()
	k := &rekeyed{old: must(generate())(t), gate: unseal.NewGate()}
	k.safe, k.who = newOperated(t, append([]safeOption{func(s *safe) {
		copied := func(key *unseal.RootKey) *unseal.RootKey { return must(unseal.Parse(key.Text()))(t) }
		k.gate.Open(must(unseal.NewKeyring(copied(s.key), copied(k.old)))(t))
		s.Keys, s.Rekey = k.gate, &rekeys{Gate: k.gate}
	}}, options...)...)
	k.who.set(func(o *operators) {
		o.names[renewToken] = renewName
		o.rights[renewName] = []string{"reencrypt encryptedsecrets shop/"}
	})
	return k
}

func dbIn(namespace string) encrypt.Binding {
	return encrypt.Binding{Scope: encrypt.Strict, Namespace: namespace, Name: "db", Key: "password"}
}

// stale is a value, sealed to the retired key and others.
func (k *rekeyed) stale(t *testing.T, b encrypt.Binding, others ...encrypt.Recipient) string {
	t.Helper()
	return must(encrypt.Seal([]byte(theValue), b, append(others, k.old.Recipient()), time.Now().Add(-time.Hour)))(t)
}

func (k *rekeyed) value(sealed string, others ...encrypt.Recipient) map[string]any {
	to := []string{k.key.Recipient().String()}
	for _, r := range others {
		to = append(to, r.String())
	}
	return map[string]any{"sealed": sealed, "recipients": to}
}

type renewedAnswer struct {
	Values []struct {
		Sealed string
		Error  struct{ Type, Detail string }
	}
}

func (k *rekeyed) post(t *testing.T, token string, values ...map[string]any) reply {
	t.Helper()
	body := must(json.Marshal(map[string]any{"values": values}))(t)
	return send(t, k.client(""), http.MethodPost, k.url+"/v1/reencrypt", strings.NewReader(string(body)), bearer(token)...)
}

func (k *rekeyed) renewed(t *testing.T, r reply) renewedAnswer {
	t.Helper()
	if r.StatusCode != http.StatusOK || r.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v: %s", r.Status, r.Header, r.body)
	}
	if leak(string(r.body), theValue) != "" {
		t.Errorf("the value is in the answer: %s", r.body)
	}
	var answer renewedAnswer
	check(t, json.Unmarshal(r.body, &answer))
	return answer
}

func TestValuesAreSealedAnewInTheirOrder(t *testing.T) {
	k := newRekeyed(t)
	breakGlass := must(generate())(t).Recipient()
	both := must(encrypt.Seal([]byte(theValue), dbIn("shop"), []encrypt.Recipient{k.old.Recipient(), k.key.Recipient()}, time.Now()))(t)
	anywhere := encrypt.Binding{Scope: encrypt.Namespace, Namespace: "shop", Name: "any", Key: "any", SecretType: "Opaque"}
	templated := dbIn("shop")
	templated.TemplateSHA256 = strings.Repeat("0a", 32)
	given := []map[string]any{
		k.value(k.stale(t, dbIn("shop"))), k.value(k.stale(t, dbIn("shop"), breakGlass), breakGlass), k.value(both), k.value(k.stale(t, anywhere)),
		k.value(k.stale(t, templated)),
	}
	answer := k.renewed(t, k.post(t, renewToken, given...))
	if len(answer.Values) != len(given) {
		t.Fatalf("%d values of %d", len(answer.Values), len(given))
	}
	for i, v := range answer.Values {
		was, is := must(encrypt.Inspect(given[i]["sealed"].(string)))(t), must(encrypt.Inspect(v.Sealed))(t)
		if is.Binding.Scope != was.Binding.Scope || is.Binding.Namespace != "shop" || is.Binding.SecretType != was.Binding.SecretType || !is.SealedAt.Equal(was.SealedAt) || slices.Contains(is.KeyIDs, k.old.KeyID()) {
			t.Errorf("value %d was %+v, is %+v", i, was, is)
		}
		place := dbIn("shop")
		switch i {
		case 3:
			place = anywhere
		case 4:
			place = templated
		}
		alone := must(unseal.NewKeyring(k.key))(t)
		if value, err := encrypt.Open(v.Sealed, place, alone, time.Now()); err != nil || string(value) != theValue {
			t.Errorf("value %d opens to %q, %v", i, value, err)
		}
	}
	if ids := must(encrypt.Inspect(answer.Values[1].Sealed))(t).KeyIDs; len(ids) != 2 || !slices.Contains(ids, breakGlass.KeyID()) {
		t.Errorf("the break-glass key is gone: %v", ids)
	}
	want := []audit.Entry{{Actor: renewName, Credential: credentialOf + renewName, Verb: "reencrypt", Object: "values shop 5", Outcome: audit.OK}}
	if got := k.onRecord(); !slices.Equal(got, want) {
		t.Errorf("on record: %+v", got)
	}
}

func TestOneValueThatCannotBeDoneHarmsNoOther(t *testing.T) {
	k := newRekeyed(t)
	foreign := must(generate())(t).Recipient()
	sealed := k.stale(t, dbIn("shop"))
	future := must(encrypt.Seal([]byte(theValue), dbIn("shop"), []encrypt.Recipient{k.old.Recipient()}, time.Now().Add(time.Hour)))(t)
	current := must(encrypt.Seal([]byte(theValue), dbIn("shop"), []encrypt.Recipient{k.key.Recipient()}, time.Now()))(t)
	given := []map[string]any{
		k.value("YWdl"), k.value(sealed), k.value(current), k.value(sealed, foreign), k.value(future),
		{"sealed": sealed, "recipients": []string{k.old.Recipient().String()}}, {"sealed": sealed, "recipients": []string{"age1x"}}, {"sealed": sealed},
		k.value(sealed[:len(sealed)-8] + "AAAAAAA="), k.value(k.stale(t, dbIn("bank"))),
	}
	answer := k.renewed(t, k.post(t, renewToken, given...))
	for i, want := range []problem.Type{problem.Unreadable, "", problem.Current, problem.OtherRecipients, problem.Unreadable, problem.OtherRecipients, problem.OtherRecipients, problem.OtherRecipients, problem.Unreadable, problem.Forbidden} {
		v := answer.Values[i]
		if want == "" && (v.Sealed == "" || v.Error.Type != "") || want != "" && (v.Sealed != "" || v.Error.Type != want.URI() || v.Error.Detail == "") {
			t.Errorf("value %d: %+v, want %s", i, v, want)
		}
	}
	lines := k.onRecord()
	if len(lines) != 1 || lines[0].Object != "values bank 1, shop 8, unreadable 1; forbidden in bank; not sealed anew 9" || lines[0].Outcome != audit.OK {
		t.Errorf("on record: %+v", lines)
	}
}

// Where a value may be used is read from its own stanza, which its caller cannot change.
func TestNothingIsSealedAnewWithoutTheRightInItsOwnNamespace(t *testing.T) {
	anywhere := encrypt.Binding{Scope: encrypt.Cluster, Namespace: "shop", Name: "any", Key: "any", SecretType: "Opaque"}
	for name, test := range map[string]struct {
		token  string
		b      encrypt.Binding
		right  string // that would do
		object string
	}{
		"no right at all":        {nobodyToken, dbIn("shop"), "", "values shop 1"},
		"an admin":               {adminToken, dbIn("shop"), "", "values shop 1"},
		"another namespace":      {renewToken, dbIn("bank"), "bank/", "values bank 1"},
		"a value for everywhere": {renewToken, anywhere, "/", "values * 1"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newRekeyed(t)
			value := k.value(k.stale(t, test.b))
			k.post(t, test.token, value).is(t, problem.Forbidden)
			want := []audit.Entry{{Outcome: string(problem.Forbidden)}}
			if test.right != "" {
				k.who.set(func(o *operators) {
					o.rights[renewName] = append(o.rights[renewName], "reencrypt encryptedsecrets "+test.right)
				})
				if answer := k.renewed(t, k.post(t, renewToken, value)); answer.Values[0].Sealed == "" {
					t.Errorf("with the right: %+v", answer)
				}
				want = append(want, audit.Entry{Outcome: audit.OK})
			}
			lines := k.onRecord()
			for i, e := range lines {
				if i >= len(want) || e.Verb != "reencrypt" || e.Object != test.object || e.Outcome != want[i].Outcome {
					t.Errorf("on record: %+v", e)
				}
			}
			if len(lines) != len(want) {
				t.Errorf("%d lines", len(lines))
			}
		})
	}
}

func TestASealedSafeSealsNothingAnew(t *testing.T) {
	k := newRekeyed(t)
	value := k.value(k.stale(t, dbIn("shop")))
	k.gate.Shut()
	k.post(t, renewToken, value).is(t, problem.Sealed)
	k.Cache.Seal()
	k.post(t, renewToken, value).is(t, problem.Sealed)
	k.post(t, nobodyToken, value).is(t, problem.Forbidden)
}

func TestReencryptTakesNoMoreThanItSays(t *testing.T) {
	k := newRekeyed(t)
	sealed := k.stale(t, dbIn("shop"))
	value := string(must(json.Marshal(k.value(sealed)))(t))
	many := strings.Repeat(value+",", maxReencryptValues)
	for name, body := range map[string]string{
		"nothing":             "",
		"no JSON":             "values=" + sealed,
		"no values":           `{"values":[]}`,
		"null":                `{"values":[null]}`,
		"another member":      `{"values":[` + value + `],"active":"x"}`,
		"a binding":           `{"values":[{"sealed":"` + sealed + `","recipients":[],"namespace":"bank"}]}`,
		"two objects":         `{"values":[` + value + `]}{}`,
		"a number":            `{"values":[1]}`,
		"one value too many":  `{"values":[` + many + value + `]}`,
		"too many recipients": `{"values":[{"sealed":"` + sealed + `","recipients":["` + strings.Repeat(`x","`, encrypt.MaxRecipients) + `x"]}]}`,
		"a million strings":   `{"values":[{"recipients":[` + strings.Repeat(`"",`, 1_000_000) + `""]}]}`,
		"a million values":    `{"values":[` + strings.Repeat(`{},`, 1_000_000) + `{}]}`,
		"too much":            `{"values":[` + value + `]}` + strings.Repeat(" ", maxReencrypt),
	} {
		t.Run(name, func(t *testing.T) {
			send(t, k.client(""), http.MethodPost, k.url+"/v1/reencrypt", strings.NewReader(body), bearer(renewToken)...).is(t, problem.BadRequest)
		})
	}
	all := make([]map[string]any, maxReencryptValues)
	for i := range all {
		all[i] = k.value(sealed)
	}
	answer := k.renewed(t, k.post(t, renewToken, all...))
	for i, v := range answer.Values {
		if v.Sealed == "" {
			t.Errorf("value %d: %+v", i, v)
		}
	}
}

// A key that was handed out for a re-key, and the new one where this replica has yet to follow, only open, as retired
// keys do. To put the active key in their place would undo what was done.
func TestAKeyThatIsToBeTheActiveOneIsNotReplaced(t *testing.T) {
	next := must(generate())(t)
	for name, tt := range map[string]struct {
		is   *rekeys
		want problem.Type
	}{
		"retired":         {is: &rekeys{}},
		"staged":          {is: &rekeys{staged: []encrypt.KeyID{next.KeyID()}}, want: problem.Current},
		"begun elsewhere": {is: &rekeys{under: &rootkey.Rekey{To: next.KeyID()}}, want: problem.Current},
	} {
		t.Run(name, func(t *testing.T) {
			k := newRekeyed(t, func(s *safe) { s.Rekey = tt.is })
			ring := must(unseal.NewKeyring(must(unseal.Parse(k.key.Text()))(t), must(unseal.Parse(next.Text()))(t)))(t)
			k.gate.Open(ring)
			sealed := must(encrypt.Seal([]byte(theValue), dbIn("shop"), []encrypt.Recipient{next.Recipient()}, time.Now()))(t)
			got := k.renewed(t, k.post(t, renewToken, k.value(sealed))).Values[0]
			if tt.want == "" && got.Sealed == "" || tt.want != "" && got.Error.Type != tt.want.URI() {
				t.Errorf("%+v", got)
			}
		})
	}
}

// brittleKeys break over a value.
type brittleKeys struct{ *unseal.Gate }

func (brittleKeys) Identity(encrypt.KeyID) (age.Identity, bool) { panic(theValue) }

func TestAValueThatBreaksItsReaderHarmsNoOther(t *testing.T) {
	k := newRekeyed(t, func(s *safe) { s.Keys = brittleKeys{s.Keys.(*unseal.Gate)} })
	current := must(encrypt.Seal([]byte(theValue), dbIn("shop"), []encrypt.Recipient{k.key.Recipient()}, time.Now()))(t)
	answer := k.renewed(t, k.post(t, renewToken, k.value(k.stale(t, dbIn("shop"))), k.value(current)))
	for i, want := range []problem.Type{problem.Unreadable, problem.Current} {
		if got := answer.Values[i]; got.Error.Type != want.URI() {
			t.Errorf("value %d: %+v", i, got)
		}
	}
}

// The operator's socket needs no right but to be opened.
func TestTheSocketSealsAnew(t *testing.T) {
	k := newRekeyed(t)
	body := fmt.Sprintf(`{"values":[%s]}`, must(json.Marshal(k.value(k.stale(t, dbIn("anywhere")))))(t))
	r := send(t, k.operatorClient(), http.MethodPost, "http://safe/v1/reencrypt", strings.NewReader(body))
	if answer := k.renewed(t, r); answer.Values[0].Sealed == "" {
		t.Errorf("got %+v", answer)
	}
}

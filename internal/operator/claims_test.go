package operator

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/attempts"
)

// here is where callers of tests are that do not say otherwise.
const here = attempts.Loopback

// forged returns a token that nobody signed.
func forged(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

var forgedToken = forged(fmt.Sprintf(`{"aud":[%q]}`, audience))

func TestWhatIsNotForThisSafeCostsNoQuestion(t *testing.T) {
	asked := 0
	r := answering(t, func(w http.ResponseWriter, _ *http.Request) { asked++ })
	now := time.Unix(1_800_000_000, 0)
	r.now = func() time.Time { return now }
	for name, token := range map[string]string{
		"no token":                    "",
		"noise":                       "a.b.c",
		"two parts":                   forgedToken[:strings.LastIndexByte(forgedToken, '.')],
		"four parts":                  forgedToken + ".e30",
		"padding":                     "e30." + base64.URLEncoding.EncodeToString([]byte(`{"aud":"`+audience+`"} `)) + "=.c2ln",
		"no object":                   forged(`["` + audience + `"]`),
		"null":                        forged(`null`),
		"no audience":                 forged(`{}`),
		"another audience":            forged(`{"aud":["https://kubernetes.default.svc"]}`),
		"another audience, alone":     forged(`{"aud":"https://kubernetes.default.svc"}`),
		"a part of the audience":      forged(`{"aud":"` + audience[:len(audience)-1] + `"}`),
		"the audience as a number":    forged(`{"aud":5}`),
		"the audience under Aud":      forged(`{"Aud":"` + audience + `"}`),
		"expired":                     forged(fmt.Sprintf(`{"aud":%q,"exp":%d}`, audience, now.Add(-clockSkew).Unix())),
		"expired long ago":            forged(`{"aud":"` + audience + `","exp":0}`),
		"an expiry that is no number": forged(`{"aud":"` + audience + `","exp":"2100"}`),
		"an expiry that is null":      forged(`{"aud":"` + audience + `","exp":null}`),
		"more than is looked at":      forged(`{"aud":"` + audience + `","x":"` + strings.Repeat("x", maxToken) + `"}`),
	} {
		for range 2 * loopbackBurst {
			if _, err := r.Authenticate(t.Context(), token, audience, here); !errors.Is(err, ErrUnauthenticated) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if asked != 0 {
		t.Errorf("the API server was asked %d times", asked)
	}
}

func TestWhatMayBeForThisSafeIsTheAPIServersToJudge(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, claims := range map[string]string{
		"an audience":               fmt.Sprintf(`{"aud":%q,"exp":%d}`, audience, now.Add(time.Minute).Unix()),
		"one of several":            fmt.Sprintf(`{"aud":["x",%q],"exp":%d}`, audience, now.Add(time.Minute).Unix()),
		"expired by Safe's clock":   fmt.Sprintf(`{"aud":%q,"exp":%d}`, audience, now.Add(time.Second-clockSkew).Unix()),
		"without an expiry":         fmt.Sprintf(`{"aud":%q}`, audience),
		"a fraction of a second":    fmt.Sprintf(`{"aud":%q,"exp":%d.5}`, audience, now.Unix()),
		"with much else":            fmt.Sprintf(`{"kubernetes.io":{"namespace":"x"},"aud":%q,"sub":null}`, audience),
		"no matter what is to come": fmt.Sprintf(`{"aud":%q,"exp":1e300}`, audience),
	} {
		if !mayBeFor(audience, forged(claims), now) {
			t.Errorf("%s was refused unasked", name)
		}
	}
}

func FuzzClaims(f *testing.F) {
	for _, claims := range []string{"", "{}", `{"aud":"vsecm-safe/5e3f"}`, `{"aud":["vsecm-safe/5e3f"],"exp":1}`, `{"aud":{},"exp":[]}`, "[[[[", `{"aud":"a","aud":"b"}`} {
		f.Add(forged(claims))
	}
	for _, token := range []string{"", ".", "..", "...", "e30.e30.e30", "e30.=.e30", forgedToken + "."} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if !mayBeFor(audience, token, time.Unix(1_800_000_000, 0)) {
			return
		}
		parts := strings.Split(token, ".")
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil || len(parts) != 3 || len(token) > maxToken || !strings.Contains(string(payload), "aud") {
			t.Errorf("%q may be for this Safe", token)
		}
	})
}

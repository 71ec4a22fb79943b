package operator

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// A judge is an API server to which tokens are good that end in "good", and whose
// accounts may do what does not end in "seal". Each token is an account's with its own name.
type judge struct {
	*Reviewer
	tokens, accesses atomic.Int32
	at               time.Time
}

func newJudge(t *testing.T) *judge {
	t.Helper()
	j := &judge{at: time.Now()}
	j.Reviewer = answering(t, func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "subjectaccessreviews") {
			j.accesses.Add(1)
			var review authorizationv1.SubjectAccessReview
			read(t, req, &review)
			review.Status.Allowed = review.Spec.ResourceAttributes.Verb != "seal"
			write(t, w, review)
			return
		}
		j.tokens.Add(1)
		var review authenticationv1.TokenReview
		read(t, req, &review)
		if strings.HasSuffix(review.Spec.Token, "good") {
			review.Status = authenticationv1.TokenReviewStatus{
				Authenticated: true, Audiences: []string{audience},
				User: authenticationv1.UserInfo{Username: "viewer", Extra: map[string]authenticationv1.ExtraValue{credentialIDKey: {review.Spec.Token}}},
			}
		}
		write(t, w, review)
	})
	j.now = func() time.Time { return j.at }
	return j
}

// token returns the i-th of a kind: "good" or "bad".
func token(kind string, i int) string { return forgedToken + fmt.Sprint(i) + kind }

func pod(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250) }

// flood sends a token often, and returns how often that came to a review.
func (j *judge) flood(t *testing.T, times int, each func(i int) (token, from string)) int {
	t.Helper()
	before := j.tokens.Load()
	for i := range times {
		token, from := each(i)
		_, err := j.Authenticate(t.Context(), token, audience, from)
		if err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrUnauthenticated) {
			t.Fatal(err)
		}
	}
	return int(j.tokens.Load() - before)
}

func (j *judge) served(t *testing.T, what, token, from string) Operator {
	t.Helper()
	o, err := j.Authenticate(t.Context(), token, audience, from)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return o
}

func TestAFloodOfTokensIsNoFloodOnTheAPIServer(t *testing.T) {
	for name, each := range map[string]func(int) (string, string){
		"from loopback":         func(i int) (string, string) { return token("bad", i), here },
		"from a pod":            func(i int) (string, string) { return token("bad", i), pod(0) },
		"from many pods":        func(i int) (string, string) { return token("bad", i), pod(i) },
		"of good ones":          func(i int) (string, string) { return token("good", i), pod(i % 100) },
		"of one good one":       func(i int) (string, string) { return token("good", 0), pod(i) },
		"from everywhere":       func(i int) (string, string) { return token("bad", i), []string{here, pod(i)}[i%2] },
		"from too many to know": func(i int) (string, string) { return token("bad", i), fmt.Sprint("2001:db8::", i) },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJudge(t)
			for range 2 {
				n := j.flood(t, 2000, each)
				if n > loopbackBurst+cleanBurst+refusedBurst {
					t.Errorf("%d tokens were asked about at once", n)
				}
				j.at = j.at.Add(time.Minute)
			}
			for range 2 { // until nothing is left of any share
				j.flood(t, 2000, each)
			}
			j.at = j.at.Add(time.Second)
			if n := j.flood(t, 2000, each); n > loopbackRate+cleanRate+refusedRate {
				t.Errorf("%d tokens were asked about in a second", n)
			}
		})
	}
}

// Nobody who can merely connect to Safe keeps the API server from being asked about others.
func TestAFloodOfTokensTakesNobodyElsesReviews(t *testing.T) {
	for name, each := range map[string]func(int) (string, string){
		"worthless ones of a pod": func(i int) (string, string) { return token("bad", i), pod(0) },
		// As those of each pod's own account are, that may nothing.
		"good ones of a pod":          func(i int) (string, string) { return token("good", i), pod(0) },
		"worthless ones of many pods": func(i int) (string, string) { return token("bad", i), pod(i % 20) },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJudge(t)
			for second := range 60 {
				j.flood(t, 100, each)
				j.served(t, "by a port-forward", token("good", 1000+second), here)
				j.at = j.at.Add(time.Second)
				if second > 0 { // then it is known whose are refused
					j.served(t, "from another address", token("good", 2000+second), pod(500+second))
				}
			}
		})
	}
}

func TestATokenThatIsRefusedAtLoopbackIsNotHeldAgainstOthersThere(t *testing.T) {
	j := newJudge(t)
	for i := range 10 * refusalBurst {
		if _, err := j.Authenticate(t.Context(), token("bad", i), audience, here); !errors.Is(err, ErrUnauthenticated) {
			t.Fatal(err)
		}
		j.at = j.at.Add(time.Second / loopbackRate)
	}
	j.at = j.at.Add(time.Second / loopbackRate)
	j.served(t, "another", token("good", 0), here)
}

func TestOneTokenDoesNotTakeTheReviewsOfOthers(t *testing.T) {
	j := newJudge(t)
	for i := range 60 {
		j.flood(t, 100, func(int) (string, string) { return token("good", 0), here })
		j.at = j.at.Add(time.Second)
		if i > 0 {
			j.served(t, "another operator", token("good", 1+i), here)
		}
	}
}

func TestWhoIsForbiddenTooOftenIsNotAskedAboutAndOthersAre(t *testing.T) {
	j := newJudge(t)
	seal, get := Attributes{Verb: "seal", Resource: Safes}, Attributes{Verb: "get", Resource: Safes}
	viewer := j.served(t, "a viewer", token("good", 1), here)
	other := j.served(t, "another with the same account", token("good", 2), here)
	if other.Name != viewer.Name || other.CredentialID == viewer.CredentialID {
		t.Fatalf("%+v and %+v", viewer, other)
	}
	for range 2 * denialBurst { // what is allowed does not count
		if allowed, err := j.Authorize(t.Context(), viewer, get); err != nil || !allowed {
			t.Fatal(allowed, err)
		}
	}
	before := j.accesses.Load()
	for i := range 10 * denialBurst {
		allowed, err := j.Authorize(t.Context(), viewer, seal)
		if allowed || errors.Is(err, ErrBusy) != (i >= denialBurst) {
			t.Fatalf("call %d: %v, %v", i, allowed, err)
		}
	}
	if n := j.accesses.Load() - before; n != denialBurst {
		t.Errorf("the API server was asked %d times", n)
	}
	if allowed, err := j.Authorize(t.Context(), other, get); err != nil || !allowed {
		t.Errorf("another: %v, %v", allowed, err)
	}
	j.at = j.at.Add(denialEvery)
	if allowed, err := j.Authorize(t.Context(), viewer, get); err != nil || !allowed {
		t.Errorf("later: %v, %v", allowed, err)
	}
}

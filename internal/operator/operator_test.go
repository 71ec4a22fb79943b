package operator

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/controlplane"
	"github.com/vsecm/kubectl-vsecm/internal/testenv/wait"
)

func TestATokenForThisSafeTellsWhoseItIs(t *testing.T) {
	s := newSite(t, cluster.Start(t), "who")
	who, err := s.reviewer.Authenticate(t.Context(), s.Token(t, "who", "operator", audience), audience, here)
	if err != nil {
		t.Fatal(err)
	}
	if who.Name != s.user("operator") || who.UID == "" || !slices.Contains(who.Groups, "system:serviceaccounts:who") {
		t.Errorf("got %+v", who)
	}
	if !strings.HasPrefix(who.CredentialID, "JTI=") {
		t.Errorf("credential id %q", who.CredentialID)
	}
	// A token for several audiences is for this one as well. One for all replicas is not
	// what our plugin asks for, but it is the caller's to ask.
	if _, err := s.reviewer.Authenticate(t.Context(), s.Token(t, "who", "operator", "elsewhere", audience), audience, here); err != nil {
		t.Error(err)
	}
}

func TestTokensThatProveNothingAreRefused(t *testing.T) {
	s := newSite(t, cluster.Start(t), "refused")
	good := s.Token(t, "refused", "operator", audience)
	deleted := func() string {
		s.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: gone, namespace: refused}}")
		if _, err := s.reviewer.Authenticate(t.Context(), s.Token(t, "refused", "gone", audience), audience, here); err != nil {
			t.Fatal(err)
		}
		// Another one: the API server remembers for ten seconds what it has judged.
		token := s.Token(t, "refused", "gone", audience)
		s.kubectl("", "delete", "-n", "refused", "serviceaccount", "gone")
		wait.Until(t, "the token is worthless", func() bool {
			_, err := s.reviewer.Authenticate(t.Context(), token, audience, here)
			return errors.Is(err, ErrUnauthenticated)
		})
		return token
	}
	// What the cases change is what makes them refused: signed anew as it is, and with the
	// cluster's own key, the token is good.
	resigned := resign(t, good, s.accountsKey(), issuedAgo(time.Minute))
	if _, err := s.reviewer.Authenticate(t.Context(), resigned, audience, here); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"for another audience":          s.Token(t, "refused", "operator", "vsecm-safe/0000"),
		"for the API server":            s.Token(t, "refused", "operator"),
		"for a part of the audience":    s.Token(t, "refused", "operator", audience[:len(audience)-1]),
		"expired":                       resign(t, good, s.accountsKey(), issuedAgo(2*time.Hour)),
		"not valid yet":                 resign(t, good, s.accountsKey(), issuedAgo(-time.Hour)),
		"of an account that is gone":    deleted(),
		"of another cluster":            resign(t, good, otherKey(t), unchanged),
		"with another account in it":    doctored(t, good),
		"with no signature to speak of": good[:strings.LastIndexByte(good, '.')+1] + "AAAA",
		"with a broken signature":       good[:len(good)-8] + "AAAAAAAA",
		"noise":                         "a.b.c",
		"empty":                         "",
	} {
		t.Run(name, func(t *testing.T) {
			who, err := s.reviewer.Authenticate(t.Context(), token, audience, here)
			if !errors.Is(err, ErrUnauthenticated) || who.Name != "" {
				t.Errorf("got %+v, %v", who, err)
			}
			if err != nil && len(token) > 5 && strings.Contains(err.Error(), token) {
				t.Error("the error quotes the token")
			}
		})
	}
	// Without an audience the API server would ask for its own.
	if _, err := s.reviewer.Authenticate(t.Context(), s.Token(t, "refused", "operator"), "", here); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("without an audience: %v", err)
	}
	// Whom a client certificate names is nobody here: the token alone counts, and there
	// is none in it. (The API server knows Safe itself by one; that is not the caller's.)
	asPerson := New(s.client(s.UserKubeconfig(t, "jane", "system:masters")), "refused")
	if _, err := asPerson.Authenticate(t.Context(), forgedToken, audience, here); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("noise, with Safe known by a certificate: %v", err)
	}
}

// doctored returns a token whose claims were changed under its old signature.
func doctored(t *testing.T, token string) string {
	changed := resign(t, token, otherKey(t), func(claims map[string]any) {
		claims["sub"] = "system:serviceaccount:refused:safe"
	})
	old := strings.Split(token, ".")
	return strings.Join([]string{old[0], strings.Split(changed, ".")[1], old[2]}, ".")
}

func TestRolesOfTheClusterDecide(t *testing.T) {
	s := newSite(t, cluster.Start(t), "roles")
	onSafe := func(verb string) Attributes { return Attributes{Verb: verb, Resource: Safes} }
	reveal := func(namespace, name string) Attributes {
		return Attributes{Verb: "reveal", Resource: EncryptedSecrets, Namespace: namespace, Name: name}
	}
	for _, tt := range []struct {
		account string
		wants   Attributes
		allowed bool
	}{
		{"viewer", onSafe("get"), true},
		{"viewer", onSafe("unseal"), false},
		{"viewer", onSafe("seal"), false},
		{"operator", onSafe("get"), true},
		{"operator", onSafe("unseal"), true},
		{"operator", onSafe("seal"), true},
		{"operator", onSafe("sync"), true},
		{"operator", onSafe("override"), false},
		{"operator", onSafe("*"), false},
		{"operator", onSafe(""), false},
		{"operator", reveal("roles-shop", "db"), true},
		{"operator", reveal("roles-shop", "api"), false},
		{"operator", reveal("roles", "db"), false},
		{"operator", Attributes{Verb: "get", Resource: EncryptedSecrets, Namespace: "roles-shop", Name: "db"}, false},
		{"nobody", onSafe("get"), false},
		{"nobody", reveal("roles-shop", "db"), false},
		// Safe itself operates nothing.
		{"safe", onSafe("get"), false},
		{"safe", reveal("roles-shop", "db"), false},
	} {
		who, err := s.reviewer.Authenticate(t.Context(), s.Token(t, "roles", tt.account, audience), audience, here)
		if err != nil {
			t.Fatal(err)
		}
		if allowed, err := s.reviewer.Authorize(t.Context(), who, tt.wants); err != nil || allowed != tt.allowed {
			t.Errorf("%s may %s %s %s/%s: %v, %v", tt.account, tt.wants.Verb, tt.wants.Resource, tt.wants.Namespace, tt.wants.Name, allowed, err)
		}
	}
	// A right in another Safe's namespace is none here, and a right that was taken away is
	// gone at once.
	who, err := s.reviewer.Authenticate(t.Context(), s.Token(t, "roles", "operator", audience), audience, here)
	if err != nil {
		t.Fatal(err)
	}
	if allowed, err := New(s.reviewer.client, "roles-shop").Authorize(t.Context(), who, onSafe("unseal")); err != nil || allowed {
		t.Errorf("in another namespace: %v, %v", allowed, err)
	}
	s.kubectl("", "delete", "-n", "roles", "rolebinding", "operator")
	wait.Until(t, "the right is gone", func() bool {
		allowed, err := s.reviewer.Authorize(t.Context(), who, onSafe("unseal"))
		return err == nil && !allowed
	})
}

func TestWithoutTheRightToAskNobodyIsLetIn(t *testing.T) {
	s := newSite(t, cluster.Start(t), "mute")
	mute := New(s.client(s.ServiceAccountKubeconfig(t, "mute", "nobody")), "mute")
	token := s.Token(t, "mute", "operator", audience)
	if _, err := mute.Authenticate(t.Context(), token, audience, here); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), token) {
		t.Errorf("authenticate: %v", err)
	}
	if allowed, err := mute.Authorize(t.Context(), Operator{Name: s.user("operator")}, Attributes{Verb: "get", Resource: Safes}); !errors.Is(err, ErrUnavailable) || allowed {
		t.Errorf("authorize: %v, %v", allowed, err)
	}
}

func TestNobodyIsLetInWhileTheAPIServerIsAway(t *testing.T) {
	s := newSite(t, controlplane.Start(t), "away")
	token := s.Token(t, "away", "operator", audience)
	who, err := s.reviewer.Authenticate(t.Context(), token, audience, here)
	if err != nil {
		t.Fatal(err)
	}
	s.StopAPIServer(t)
	if _, err := s.reviewer.Authenticate(t.Context(), token, audience, here); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), token) {
		t.Errorf("authenticate: %v", err)
	}
	if allowed, err := s.reviewer.Authorize(t.Context(), who, Attributes{Verb: "get", Resource: Safes}); !errors.Is(err, ErrUnavailable) || allowed {
		t.Errorf("authorize: %v, %v", allowed, err)
	}
	s.StartAPIServer(t)
	if _, err := s.reviewer.Authenticate(t.Context(), token, audience, here); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// An API server in front of an authenticator that knows no audiences accepts a token
// for whomever, and says so by returning none. Ours always returns them.
func TestATokenThatIsAcceptedForWhomeverIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		status authenticationv1.TokenReviewStatus
		want   error
	}{
		"for us":                  {authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{audience}, User: named("jane")}, nil},
		"no audiences":            {authenticationv1.TokenReviewStatus{Authenticated: true, User: named("jane")}, ErrUnauthenticated},
		"another audience":        {authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{"https://kubernetes"}, User: named("jane")}, ErrUnauthenticated},
		"not authenticated":       {authenticationv1.TokenReviewStatus{Audiences: []string{audience}, User: named("jane")}, ErrUnauthenticated},
		"anonymous":               {authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{audience}, User: named("system:anonymous")}, ErrUnauthenticated},
		"nobody":                  {authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{audience}}, ErrUnauthenticated},
		"an error and a user too": {authenticationv1.TokenReviewStatus{Error: "broken", Audiences: []string{audience}, User: named("jane")}, ErrUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			var asked authenticationv1.TokenReview
			r := answering(t, func(w http.ResponseWriter, req *http.Request) {
				if err := json.NewDecoder(req.Body).Decode(&asked); err != nil {
					t.Error(err)
				}
				answer(t, w, authenticationv1.TokenReview{Status: tt.status})
			})
			if _, err := r.Authenticate(t.Context(), forgedToken, audience, here); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if asked.Spec.Token != forgedToken || !slices.Equal(asked.Spec.Audiences, []string{audience}) {
				t.Errorf("asked about %+v", asked.Spec)
			}
		})
	}
}

func TestAnAPIServerThatDoesNotAnswerIsNotWaitedForLong(t *testing.T) {
	release := make(chan struct{})
	r := answering(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	r.timeout = 10 * time.Millisecond
	if _, err := r.Authenticate(t.Context(), forgedToken, audience, here); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("authenticate: %v", err)
	}
	if _, err := r.Authorize(t.Context(), Operator{Name: "jane"}, Attributes{Verb: "get", Resource: Safes}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("authorize: %v", err)
	}
}

func named(name string) authenticationv1.UserInfo {
	return authenticationv1.UserInfo{Username: name}
}

// answering returns a reviewer of an API server that answers everything so.
func answering(t *testing.T, handler http.HandlerFunc) *Reviewer {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return New(newClient(t, &rest.Config{Host: server.URL}), "vsecm-system")
}

func answer(t *testing.T, w http.ResponseWriter, review authenticationv1.TokenReview) {
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(review); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, req *http.Request, into any) {
	if err := json.NewDecoder(req.Body).Decode(into); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}

package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

const maxTokenSize = 64 << 10

// The service accounts that Safe is installed with, in whose name the verbs act.
const (
	viewerAccount   = "vsecm-viewer"
	operatorAccount = "vsecm-operator"
	adminAccount    = "vsecm-admin"
)

// tokenHint says what a person lacks who may not have a token of the account.
func tokenHint(namespace, account string) string {
	switch account {
	case viewerAccount, operatorAccount, adminAccount:
		return fmt.Sprintf("ask for a binding to ClusterRole %ss in namespace %s, or name your team's account with --service-account", account, namespace)
	}
	return fmt.Sprintf("ask for the right to create serviceaccounts/token of %s in namespace %s", account, namespace)
}

// A tokenSource says in whose name Safe is asked.
type tokenSource struct {
	cluster   *cluster
	namespace string
	account   string
	file      string
}

// get returns a token for the Safe whose public key has the fingerprint, and which is of no
// use to another.
func (s tokenSource) get(ctx context.Context, fingerprint string) (string, error) {
	audience := publication.AudiencePrefix + fingerprint
	if s.file == "" {
		return s.request(ctx, audience)
	}
	data, err := readFile(s.file, maxTokenSize)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	defer clear(data)
	token := string(bytes.TrimSpace(data))
	// One that is for the API server would be refused, and need not be seen by Safe.
	is, err := claimsOf(token)
	if err != nil {
		return "", fmt.Errorf("--token-file: %s: %w", s.file, err)
	}
	if !slices.Contains(is.Audience, audience) {
		return "", fmt.Errorf("--token-file: %s: %w", s.file, errForAnother)
	}
	return token, nil
}

// errForAnother says that a file's token is not for the Safe that it was to be sent to.
var errForAnother = errors.New("its token is not for this Safe")

// adviseTokens says, with the errors of a token that is not for all of the replicas, how one is made
// that is.
func (s *safes) adviseTokens(errs []error) {
	var of tokenSource
	var wanted []string
	for _, r := range s.replicas {
		fingerprint := r.known()
		if option := " --audience " + publication.AudiencePrefix + fingerprint; fingerprint != "" && !slices.Contains(wanted, option) {
			of, wanted = r.source, append(wanted, option)
		}
	}
	for i, err := range errs {
		if errors.Is(err, errForAnother) {
			errs[i] = withHint(err, "kubectl create token %s -n %s%s", of.account, of.namespace, strings.Join(wanted, ""))
		}
	}
}

// request has the cluster issue a token. Safe is sent no other than was asked for: it might be good
// for more.
func (s tokenSource) request(ctx context.Context, audience string) (string, error) {
	token, err := s.cluster.token(ctx, s.namespace, s.account, audience)
	if err != nil {
		return "", err
	}
	is, err := claimsOf(token)
	if err != nil || !slices.Equal(is.Audience, audiences{audience}) || is.Subject != "system:serviceaccount:"+s.namespace+":"+s.account {
		return "", fmt.Errorf("asking %s: what it issued is not a token of service account %s/%s for this Safe alone", s.cluster, s.namespace, s.account)
	}
	return token, nil
}

var errNoToken = errors.New("not a service account's token")

// claims are what a JWT says of itself.
type claims struct {
	Audience audiences `json:"aud"`
	Subject  string    `json:"sub"`
}

// claimsOf reads a JWT. Nothing is verified: that is Safe's to do.
func claimsOf(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, errNoToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, errNoToken
	}
	var is claims
	if err := json.Unmarshal(payload, &is); err != nil {
		return claims{}, errNoToken
	}
	return is, nil
}

// audiences are one or several (RFC 7519, section 4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

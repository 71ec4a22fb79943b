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
		return s.cluster.token(ctx, s.namespace, s.account, audience)
	}
	data, err := readFile(s.file, maxTokenSize)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	defer clear(data)
	token := string(bytes.TrimSpace(data))
	// One that is for the API server would be refused, and need not be seen by Safe.
	audiences, err := audiencesOf(token)
	if err != nil {
		return "", fmt.Errorf("--token-file: %s: %w", s.file, err)
	}
	if !slices.Contains(audiences, audience) {
		return "", withHint(fmt.Errorf("--token-file: %s: its token is not for this Safe", s.file),
			"kubectl create token %s -n %s --audience %s", s.account, s.namespace, audience)
	}
	return token, nil
}

var errNoToken = errors.New("not a service account's token")

// audiencesOf reads a JWT's audiences. Nothing is verified: that is Safe's to do.
func audiencesOf(token string) ([]string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errNoToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, errNoToken
	}
	var claims struct {
		Audience audiences `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, errNoToken
	}
	return claims.Audience, nil
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

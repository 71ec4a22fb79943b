package gitsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/condition"
	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/store"
)

// Why a Secret that a source names cannot be used. Each is a reason of condition Ready.
const (
	reasonMissing     = "CredentialsMissing"
	reasonNotLabelled = "CredentialsNotLabelled"
	reasonForbidden   = "CredentialsForbidden"
	reasonBad         = "CredentialsInvalid"
	reasonUnread      = "CredentialsUnreadable"
)

// A secretError says why a Secret cannot be used. It quotes nothing of the Secret.
type secretError struct {
	reason, message string
}

func (e *secretError) Error() string { return e.message }

// passes tells whether another try may help by itself.
func (e *secretError) passes() bool { return e.reason == reasonUnread }

func (e *secretError) verdict() condition.Verdict {
	state := condition.Failed
	if e.passes() {
		state = condition.Progressing
	}
	return condition.Verdict{State: state, Reason: e.reason, Message: e.message}
}

// A secret is a Secret that was read.
type secret struct {
	// version is its resource version, also of one that is not labelled; empty if it could not be read.
	version  string
	labelled bool
	data     map[string][]byte
}

// readSecret reads the Secret that field of a source names. Its errors are secretErrors; the version of what was read is
// returned beside them.
func (c *Controller) readSecret(ctx context.Context, field string, key store.Key) (secret, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var s kube.Secret
	err := c.config.Client.Core.Get().Namespace(key.Namespace).Resource("secrets").Name(key.Name).Do(ctx).Into(&s)
	what := fmt.Sprintf("%s: Secret %s", field, key)
	switch {
	case apierrors.IsNotFound(err):
		return secret{}, &secretError{reasonMissing, fmt.Sprintf("%s does not exist: create it, with label %s", what, v1alpha1.LabelGitCredentials)}
	case apierrors.IsForbidden(err):
		return secret{}, &secretError{reasonForbidden, what + " may not be read by Safe: " + c.grant(key.Namespace)}
	case err != nil:
		return secret{}, &secretError{reasonUnread, fmt.Sprintf("%s could not be read: %v", what, kube.Plain(err))}
	}
	if _, ok := s.Labels[v1alpha1.LabelGitCredentials]; !ok {
		return secret{version: s.ResourceVersion}, &secretError{reasonNotLabelled, fmt.Sprintf(
			"%s is not for sources to use: if it is meant for this one, kubectl label secret %s --namespace %s %s=true",
			what, key.Name, key.Namespace, v1alpha1.LabelGitCredentials)}
	}
	return secret{version: s.ResourceVersion, labelled: true, data: s.Data}, nil
}

// grant says how Safe gets to read Secrets in a namespace.
func (c *Controller) grant(namespace string) string {
	return fmt.Sprintf("grant it ClusterRole vsecm-deliver there, with kubectl create rolebinding vsecm-deliver --clusterrole=vsecm-deliver --serviceaccount=%s:vsecm-safe --namespace %s",
		c.config.Namespace, namespace)
}

// The keys of a Secret with credentials, those of Flux.
const (
	keyUsername    = "username"
	keyPassword    = "password"
	keyBearerToken = "bearerToken"
	keyIdentity    = "identity"
	keyKnownHosts  = "known_hosts"
	keyCA          = "ca.crt"
	// keyToken is that of a webhook's Secret.
	keyToken = "token"
)

// credentials are what a Secret of a source says.
type credentials struct {
	username, password, bearerToken string
	identity, knownHosts, ca        []byte
}

// credentialsOf reads a Secret's data. Its errors name keys and no values.
func credentialsOf(data map[string][]byte, ssh bool) (credentials, error) {
	var c credentials
	for key, to := range map[string]*string{keyUsername: &c.username, keyPassword: &c.password, keyBearerToken: &c.bearerToken} {
		// Files and editors end with a line break, credentials do not.
		*to = strings.TrimRight(string(data[key]), "\r\n")
		if value, there := data[key]; there && *to == "" {
			return c, fmt.Errorf("%s is empty", key)
		} else if strings.ContainsFunc(*to, unicode.IsControl) {
			return c, fmt.Errorf("%s has %d bytes, and control characters among them", key, len(value))
		}
	}
	c.identity, c.knownHosts, c.ca = data[keyIdentity], data[keyKnownHosts], data[keyCA]
	if ssh {
		return c, c.checkSSH()
	}
	return c, c.checkHTTPS()
}

func (c *credentials) checkSSH() error {
	switch {
	case len(c.identity) == 0:
		return errors.New("identity is missing: ssh needs a private key")
	case len(c.knownHosts) == 0:
		return errors.New("known_hosts is missing: ssh needs the server's host key (ssh-keyscan HOST, compared with what the server's owner publishes)")
	}
	return nil
}

func (c *credentials) checkHTTPS() error {
	switch basic := cmp.Or(c.username, c.password) != ""; {
	case basic && c.bearerToken != "":
		return errors.New("bearerToken and username exclude each other: remove the one or the other")
	case c.username == "" && c.password != "":
		return errors.New("username is missing: forges that take a token as the password take any user name with it, git for one")
	case c.username != "" && c.password == "":
		return errors.New("password is missing")
	case !basic && c.bearerToken == "" && len(c.ca) == 0:
		return errors.New("it has none of username and password, bearerToken, ca.crt, which https takes")
	}
	return nil
}

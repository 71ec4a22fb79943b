package gitsource

import (
	"cmp"
	"context"
	"fmt"

	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

// A sourceConfig becomes that of a source as its Secrets are read.
type sourceConfig struct{ reconcile.Config }

func (c *Controller) sourceConfig(key store.Key, wanted *settings) *sourceConfig {
	return &sourceConfig{reconcile.Config{
		Name: ownerOf(key),
		Remote: sync.Remote{
			URL: wanted.url, Branch: wanted.branch, Tag: wanted.tag, Commit: wanted.commit, Refuse: c.config.Refuse,
		},
		Path: wanted.path, Interval: cmp.Or(wanted.interval, c.config.Interval), Prune: wanted.prune,
		Namespaces: wanted.namespaces, Limits: c.config.Limits,
		Verify: reconcile.Verify{Mode: wanted.mode, Since: sync.Revision(wanted.since)},
	}}
}

// login takes the credentials out of a Secret's data.
func (s *sourceConfig) login(data map[string][]byte, ssh bool) error {
	c, err := credentialsOf(data, ssh)
	if err != nil {
		return err
	}
	s.Remote.Password = c.password
	if ssh {
		s.Remote.Identity, s.Remote.KnownHosts = c.identity, c.knownHosts
	} else {
		s.Remote.Username, s.Remote.BearerToken, s.Remote.CA = c.username, c.bearerToken, c.ca
	}
	return nil
}

// trust takes the keys that are trusted out of a Secret's data.
func (s *sourceConfig) trust(data map[string][]byte) (err error) {
	s.Verify.Trust, err = sync.ParseTrust(data)
	return err
}

// configOf returns how a source is to be run, and the Secrets that were read for that, also beside an error.
func (c *Controller) configOf(ctx context.Context, key store.Key, wanted *settings) (reconcile.Config, map[string]secret, error) {
	read := make(map[string]secret)
	config := c.sourceConfig(key, wanted)
	for _, part := range []struct {
		field, name string
		use         func(map[string][]byte) error
	}{
		{"spec.secretRef", wanted.secret, func(data map[string][]byte) error { return config.login(data, wanted.ssh) }},
		{"spec.verify.secretRef", wanted.trust, config.trust},
	} {
		if part.name == "" {
			continue
		}
		s, err := c.readSecret(ctx, part.field, store.Key{Namespace: key.Namespace, Name: part.name})
		read[part.name] = secret{version: s.version, labelled: s.labelled}
		if err != nil {
			return config.Config, read, err
		}
		if err := part.use(s.data); err != nil {
			return config.Config, read, &secretError{reasonBad, fmt.Sprintf("%s: Secret %s/%s: %v", part.field, key.Namespace, part.name, err)}
		}
	}
	return config.Config, read, nil
}

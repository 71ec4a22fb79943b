package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/publication"
)

// errNotPinned says that what answers is not a Safe that the cluster knows of.
var errNotPinned = errors.New("this is none of the cluster's Safes")

// Pins recognise the Safes of a cluster: by the SHA-256 of a self-signed certificate, or by
// SPIFFE ID and trust bundle. No certificate authority is asked, and no
// host name counts.
type pins struct {
	where        string              // the cluster, in messages
	certificates map[string][]string // with the names of the replicas that have it
	ids          map[string][]string
	versions     map[string]string // by the names of the replicas
	bundle       *x509.CertPool
	now          func() time.Time
	skew         *skewTeller // may be nil

	// renew returns those of what is published by now; nil where nobody publishes.
	renew func(context.Context) (*pins, error)
}

func newPins(where string, p *publication.Publication) *pins {
	ps := &pins{
		where:        where,
		certificates: make(map[string][]string), ids: make(map[string][]string), versions: make(map[string]string),
		bundle: x509.NewCertPool(), now: time.Now,
	}
	ps.bundle.AppendCertsFromPEM([]byte(p.Bundle))
	for _, name := range slices.Sorted(maps.Keys(p.Replicas)) {
		r := p.Replicas[name]
		ps.versions[name] = r.Version
		if len(r.CertificateSHA256) == hex.EncodedLen(sha256.Size) {
			ps.certificates[r.CertificateSHA256] = append(ps.certificates[r.CertificateSHA256], name)
		}
		if r.SPIFFEID != "" {
			ps.ids[r.SPIFFEID] = append(ps.ids[r.SPIFFEID], name)
		}
	}
	return ps
}

// check accepts a certificate chain, the leaf first, that a Safe of the cluster shows.
func (ps *pins) check(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it shows no certificate", errNotPinned)
	}
	leaf := chain[0]
	sum := sha256.Sum256(leaf.Raw)
	if ps.certificates[hex.EncodeToString(sum[:])] != nil {
		return nil
	}
	if len(leaf.URIs) != 1 || ps.ids[leaf.URIs[0].String()] == nil {
		return ps.refuse(fmt.Errorf("%w: ConfigMap %s of %s names no certificate with SHA-256 %x", errNotPinned, publication.Name, ps.where, sum))
	}
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	if leaf.IsCA {
		return ps.refuse(fmt.Errorf("%w: the certificate of %s is an authority's", errNotPinned, leaf.URIs[0]))
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: ps.bundle, Intermediates: others, CurrentTime: ps.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return ps.refuse(fmt.Errorf("%w: the certificate of %s: %w", errNotPinned, leaf.URIs[0], err))
	}
	return nil
}

// names returns those of the published replicas that a certificate which check accepts may be of.
// With SPIFFE they may be several.
func (ps *pins) names(leaf *x509.Certificate) []string {
	sum := sha256.Sum256(leaf.Raw)
	if names := ps.certificates[hex.EncodeToString(sum[:])]; names != nil {
		return names
	}
	return ps.ids[leaf.URIs[0].String()]
}

// versionOf returns the version that all replicas of these names say they are of; empty where they differ.
func (ps *pins) versionOf(names []string) string {
	version := ""
	for i, name := range names {
		if i > 0 && ps.versions[name] != version {
			return ""
		}
		version = ps.versions[name]
	}
	return version
}

func (ps *pins) refuse(err error) error {
	return withHint(err, "nothing was sent to it, and no token requested. Does the kubeconfig lead to this Safe's cluster? Otherwise something stands in between")
}

// fingerprintOf returns the SHA-256 (hex) of a certificate's public key, which an operator's
// token is made for.
func fingerprintOf(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

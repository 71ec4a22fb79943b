package sync

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// certificateError says in words for people why a server's certificate was
// refused; nil if that is not what err is about.
func certificateError(err error) error {
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) {
		return nil
	}
	var (
		invalid x509.CertificateInvalidError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		what := "it"
		if invalid.Cert.IsCA {
			what = "its CA's"
		}
		return fmt.Errorf("%w: %s has expired or is not valid yet: valid from %s until %s", ErrCertificate, what,
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: it was signed by an unknown authority; if that is your own, give its certificate as CA", ErrCertificate)
	case errors.As(err, &host):
		names := "for no host"
		if host.Certificate != nil && len(host.Certificate.DNSNames) > 0 {
			names = fmt.Sprintf("for %s", host.Certificate.DNSNames)
		}
		return fmt.Errorf("%w: it is %s and not for %s", ErrCertificate, printable(names, 200), printable(host.Host, 100))
	}
	return fmt.Errorf("%w: %w", ErrCertificate, &remoteError{refused.Err})
}

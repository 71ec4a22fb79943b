package sync_test

import (
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/internal/testenv/gitserver"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

func TestCertificatesThatAreRefused(t *testing.T) {
	good := gitserver.New(t, gitserver.Options{TLS: true})
	old := gitserver.New(t, gitserver.Options{TLS: true, Expired: true})
	for name, test := range map[string]struct {
		remote sync.Remote
		says   string
	}{
		"unknown authority": {sync.Remote{URL: good.URL + "/r.git"}, "unknown authority"},
		"another authority": {sync.Remote{URL: good.URL + "/r.git", CA: old.CA}, "unknown authority"},
		"CA has expired":    {sync.Remote{URL: old.URL + "/r.git", CA: old.CA}, "its CA's has expired"},
		"another host":      {sync.Remote{URL: strings.Replace(good.URL, "127.0.0.1", "localhost", 1) + "/r.git", CA: good.CA}, "not for localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			err := fails(t, open(t, t.TempDir(), test.remote, sync.Limits{}), sync.ErrCertificate)
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("error does not say %q: %v", test.says, err)
			}
		})
	}
}

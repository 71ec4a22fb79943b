package gitsource

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/store"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

const (
	// minInterval bounds how often a server is asked.
	minInterval = 10 * time.Second
	// defaultBranch is followed where no ref is named.
	defaultBranch = "main"
	// rootKeySecret is never a source's, whatever it is labelled.
	rootKeySecret = "vsecm-root-key"
)

// settings are a spec that was found to make sense.
type settings struct {
	url                 string
	ssh                 bool
	branch, tag, commit string
	path                string
	interval            time.Duration // zero: the default
	prune, suspend      bool
	namespaces          []string
	// secret holds the credentials and trust the keys that are trusted; empty: none.
	secret, trust string
	mode          string
	since         string
}

// equal tells whether a source that was made from s is as one that is made from t.
func (s *settings) equal(t *settings) bool { return reflect.DeepEqual(s, t) }

// ref says what is followed, for people.
func (s *settings) ref() string { return cmp.Or(s.tag, s.branch) }

// secrets returns the names of the Secrets that are needed.
func (s *settings) secrets() []string {
	names := slices.DeleteFunc([]string{s.secret, s.trust}, func(name string) bool { return name == "" })
	return slices.Compact(names)
}

// settingsOf checks a spec once more: the CRD may be older than this program. Errors begin with the
// field, and quote no URL.
func settingsOf(r *received, home string, least time.Duration) (*settings, error) {
	if r.fault != nil {
		return nil, r.fault
	}
	spec := &r.spec
	s := &settings{
		url: spec.URL, suspend: spec.Suspend, prune: spec.Prune == nil || *spec.Prune,
		branch: spec.Ref.Branch, tag: spec.Ref.Tag, commit: spec.Ref.Commit,
	}
	if reasons := validation.IsValidLabelValue(ownerOf(r.key())); len(reasons) > 0 {
		return nil, fmt.Errorf("metadata.name: objects bear %s as a label, which cannot be: %s; create the source under a shorter name",
			ownerOf(r.key()), strings.Join(reasons, "; "))
	}
	for _, check := range []func(*settings, *received, string) error{
		checkURL, checkRef, checkPath, checkNamespaces, checkVerify, checkSecrets,
	} {
		if err := check(s, r, home); err != nil {
			return nil, err
		}
	}
	if r.spec.Interval != nil {
		if s.interval = r.spec.Interval.Duration; s.interval < least {
			return nil, fmt.Errorf("spec.interval: %s at least: for delivery at once there are webhooks (spec.webhook)", least)
		}
	}
	return s, nil
}

const wantURL = "spec.url: want https://HOST/PATH, ssh://USER@HOST[:PORT]/PATH or USER@HOST:PATH"

// scpLike is USER@HOST:PATH, as scp has it.
var scpLike = regexp.MustCompile(`^([-_.A-Za-z0-9]+)@(\[[0-9a-fA-F:.]+\]|[-_.A-Za-z0-9]+):[^\s?#\x00-\x1f\x7f]+$`)

var errCredentialsInURL = errors.New("spec.url: credentials do not belong in a URL, where everybody sees them: put them into a Secret, and name it in spec.secretRef; the ones that were here are known now, so replace them")

func checkURL(s *settings, _ *received, _ string) error {
	scheme, _, ok := strings.Cut(s.url, "://")
	if !ok {
		if !scpLike.MatchString(s.url) {
			return errors.New(wantURL)
		}
		s.ssh = true
		return nil
	}
	u, err := url.Parse(s.url)
	if err != nil || strings.ContainsFunc(s.url, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New(wantURL + "; this cannot be parsed")
	}
	_, password := u.User.Password()
	switch scheme {
	case "https", "http":
		if u.User != nil {
			return errCredentialsInURL
		}
		if loopback := u.Hostname(); scheme == "http" && loopback != "localhost" && loopback != "::1" && !strings.HasPrefix(loopback, "127.") {
			return errors.New("spec.url: over http anybody on the way may change what is read: use https")
		}
	case "ssh":
		s.ssh = true
		switch {
		case password:
			return errCredentialsInURL
		case u.User.Username() == "":
			return errors.New("spec.url: ssh needs a user: ssh://git@HOST/PATH, most often")
		case strings.Trim(u.Path, "/") == "":
			return errors.New(wantURL)
		}
	default:
		return errors.New(wantURL)
	}
	if u.Host == "" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New(wantURL)
	}
	return nil
}

var commitID = regexp.MustCompile(`^[0-9a-f]{40}$`)

func checkRef(s *settings, _ *received, _ string) error {
	if s.tag != "" && (s.branch != "" || s.commit != "") {
		return errors.New("spec.ref: a tag excludes a branch and a commit: remove the one or the other")
	}
	if s.commit != "" && !commitID.MatchString(s.commit) {
		return errors.New("spec.ref.commit: want a whole commit id, 40 hex digits (git rev-parse NAME)")
	}
	field, name := "branch", plumbing.NewBranchReferenceName(s.branch)
	if s.tag != "" {
		field, name = "tag", plumbing.NewTagReferenceName(s.tag)
	} else if s.branch == "" {
		s.branch = defaultBranch
		name = plumbing.NewBranchReferenceName(s.branch)
	}
	if err := name.Validate(); err != nil || strings.HasPrefix(s.ref(), "refs/") {
		return fmt.Errorf("spec.ref.%s: want a name that git takes (git check-ref-format --branch NAME), without refs/", field)
	}
	return nil
}

func checkPath(s *settings, r *received, _ string) error {
	clean, err := sync.CleanPath(r.spec.Path)
	if err != nil || strings.HasPrefix(r.spec.Path, "/") || strings.Contains(r.spec.Path, `\`) {
		return errors.New("spec.path: want a folder of the repository: no / in front, no backslash, and no .. in it")
	}
	s.path = clean
	return nil
}

// checkNamespaces keeps tenants apart: a source brings into its own namespace, but for those of home.
func checkNamespaces(s *settings, r *received, home string) error {
	s.namespaces = []string{r.Namespace}
	if len(r.spec.Namespaces) == 0 || slices.Equal(r.spec.Namespaces, s.namespaces) {
		return nil
	}
	if r.Namespace != home {
		return fmt.Errorf("spec.namespaces: a source in %s delivers into %s only: remove the field, or have whoever runs Safe create the source in %s",
			r.Namespace, r.Namespace, home)
	}
	s.namespaces = slices.Compact(slices.Sorted(slices.Values(r.spec.Namespaces)))
	for _, namespace := range s.namespaces {
		if len(validation.IsDNS1123Label(namespace)) > 0 {
			return fmt.Errorf("spec.namespaces: %.80q cannot be a namespace: lower case letters, digits and -, at most 63 characters", namespace)
		}
	}
	return nil
}

func checkVerify(s *settings, r *received, _ string) error {
	v := r.spec.Verify
	if v == nil {
		v = &v1alpha1.GitVerification{}
	}
	s.mode = cmp.Or(v.Mode, v1alpha1.VerifyNone)
	switch s.mode {
	case v1alpha1.VerifyNone:
		if v.Since != "" {
			return errors.New("spec.verify.since: says nothing while spec.verify.mode is none: set that to strict, or remove this")
		}
		return nil
	case v1alpha1.VerifyHead, v1alpha1.VerifyStrict:
	default:
		return errors.New("spec.verify.mode: want none, head or strict")
	}
	if v.SecretRef == nil {
		return errors.New("spec.verify.secretRef: verification needs a Secret with the keys that are trusted: name one")
	}
	if v.Since != "" && !commitID.MatchString(v.Since) {
		return errors.New("spec.verify.since: want a whole commit id, 40 hex digits (git rev-parse NAME)")
	}
	s.trust, s.since = v.SecretRef.Name, v.Since
	return nil
}

func checkSecrets(s *settings, r *received, home string) error {
	if r.spec.SecretRef == nil {
		if s.ssh {
			return errors.New("spec.secretRef: ssh needs a Secret with identity and known_hosts: name one")
		}
	} else {
		s.secret = r.spec.SecretRef.Name
		if strings.HasPrefix(s.url, "http://") {
			return errors.New("spec.secretRef: credentials are not sent over http: use https")
		}
		if err := checkSecretName("spec.secretRef.name", s.secret, r, home); err != nil {
			return err
		}
	}
	if s.trust == "" {
		return nil
	}
	return checkSecretName("spec.verify.secretRef.name", s.trust, r, home)
}

func checkSecretName(field, name string, r *received, home string) error {
	if !validSecretName(store.Key{Namespace: r.Namespace, Name: name}, home) {
		return fmt.Errorf("%s: want the name of a Secret that is not Safe's own", field)
	}
	return nil
}

// validSecretName tells whether a source may use a Secret of that name.
func validSecretName(key store.Key, home string) bool {
	return len(validation.IsDNS1123Subdomain(key.Name)) == 0 && (key.Namespace != home || key.Name != rootKeySecret)
}

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/sync"
)

const (
	// minInterval spares servers; a look at a repository on this machine
	// costs reading one small file.
	minInterval      = time.Second
	minLocalInterval = 10 * time.Millisecond
)

// A Source is what is followed of a git repository, whose manifests Safe delivers.
type Source struct {
	Name string `yaml:"name"`
	// URL is https://…, http://…, ssh://USER@HOST/PATH, USER@HOST:PATH,
	// file:///… or an absolute path.
	URL string `yaml:"url"`
	// Branch, default main.
	Branch string `yaml:"branch"`
	// Tag is followed instead of a branch.
	Tag string `yaml:"tag"`
	// Commit, of the branch, is delivered instead of its tip; 40 hex digits.
	Commit string `yaml:"commit"`
	// Path is the folder below the root to deliver; empty for all.
	Path string `yaml:"path"`
	// Interval between two looks. Default: 1m, of a repository on this
	// machine's disk 250ms.
	Interval time.Duration `yaml:"interval"`
	// Prune deletes what is deleted in git. Default true.
	Prune *bool `yaml:"prune"`
	// Namespaces that the source may deliver into; empty for all.
	Namespaces []string `yaml:"namespaces"`

	// Credentials, each in a file: they do not belong in a configuration. With an identity,
	// the password is what that is encrypted with.
	Username        string `yaml:"username"`
	PasswordFile    string `yaml:"passwordFile"`
	BearerTokenFile string `yaml:"bearerTokenFile"`
	// IdentityFile holds the private key for ssh, and KnownHostsFile the
	// host keys that are accepted.
	IdentityFile   string `yaml:"identityFile"`
	KnownHostsFile string `yaml:"knownHostsFile"`
	// CAFile holds the certificates, in PEM, that alone are trusted for the
	// server.
	CAFile string `yaml:"caFile"`

	// Verify says which commits have to be signed.
	Verify Verification `yaml:"verify"`
}

// A Verification says which commits have to be signed, and by whom.
type Verification struct {
	// Mode is none (also when empty), head or strict.
	Mode string `yaml:"mode"`
	// TrustFiles hold the keys: allowed_signers of ssh-keygen, or armored PGP public keys.
	TrustFiles []string `yaml:"trustFiles"`
	// Since is a commit that is trusted as it is, 40 hex digits; what comes after it is verified.
	Since string `yaml:"since"`
}

// Verifies tells whether commits have to be signed at all.
func (v Verification) Verifies() bool { return v.Mode != "" && v.Mode != v1alpha1.VerifyNone }

// Prunes tells whether what is deleted in git is deleted.
func (s Source) Prunes() bool { return s.Prune == nil || *s.Prune }

var sourceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$`)

func (s Source) check() error {
	switch {
	case s.URL == "":
		return errors.New("url: missing")
	case hasCredentials(s.URL):
		return errors.New("url: credentials do not belong in it: use username, passwordFile, bearerTokenFile or identityFile")
	case s.Interval != 0 && s.Interval < s.minInterval():
		return fmt.Errorf("interval: at least %s", s.minInterval())
	case s.Tag != "" && (s.Branch != "" || s.Commit != ""):
		return errors.New("tag excludes branch and commit")
	}
	if _, err := sync.ParseRevision(s.Commit); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, ns := range s.Namespaces {
		if err := encrypt.ValidateNamespace(ns); err != nil {
			return fmt.Errorf("namespaces: %w", err)
		}
	}
	if err := s.checkCredentials(); err != nil {
		return err
	}
	if err := s.Verify.check(); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

func (s Source) checkCredentials() error {
	switch overSSH := isSSH(s.URL); {
	case overSSH && (s.IdentityFile == "" || s.KnownHostsFile == ""):
		return errors.New("ssh takes identityFile and knownHostsFile: host keys are never trusted at first sight")
	case overSSH && (s.Username != "" || s.BearerTokenFile != "" || s.CAFile != ""):
		return errors.New("ssh takes no username (put it in the url), bearerTokenFile or caFile")
	case !overSSH && (s.IdentityFile != "" || s.KnownHostsFile != ""):
		return errors.New("identityFile and knownHostsFile are for ssh")
	case !overSSH && (s.Username == "") != (s.PasswordFile == ""):
		return errors.New("username and passwordFile go together")
	case s.BearerTokenFile != "" && s.Username != "":
		return errors.New("bearerTokenFile and username exclude each other")
	}
	return nil
}

func (v Verification) check() error {
	switch v.Mode {
	case v1alpha1.VerifyHead, v1alpha1.VerifyStrict:
		if len(v.TrustFiles) == 0 {
			return fmt.Errorf("mode %s takes trustFiles", v.Mode)
		}
	case "", v1alpha1.VerifyNone:
		if len(v.TrustFiles) > 0 || v.Since != "" {
			return errors.New("trustFiles and since take mode head or strict")
		}
	default:
		return fmt.Errorf("mode: %.40q is none of none, head and strict", v.Mode)
	}
	if _, err := sync.ParseRevision(v.Since); err != nil {
		return fmt.Errorf("since: %w", err)
	}
	return nil
}

// hasCredentials reports whether there may be credentials in a URL, also in one that
// cannot be parsed. A user's name is none where it only names the account, as with ssh.
func hasCredentials(s string) bool {
	scheme, rest, ok := strings.Cut(s, "://")
	host, _, _ := strings.Cut(rest, "/")
	if !ok {
		return false
	}
	user, _, ok := strings.Cut(host, "@")
	return ok && (scheme != "ssh" || strings.Contains(user, ":"))
}

// isSSH tells of ssh://… and of git's own way to write it, USER@HOST:PATH.
func isSSH(url string) bool {
	return strings.HasPrefix(url, "ssh://") ||
		!strings.Contains(url, "://") && !filepath.IsAbs(url) && strings.Contains(url, ":")
}

func (s Source) minInterval() time.Duration {
	if (sync.Remote{URL: s.URL}).Local() {
		return minLocalInterval
	}
	return minInterval
}

// files returns the paths that the source names.
func (s *Source) files() []*string {
	files := []*string{&s.PasswordFile, &s.BearerTokenFile, &s.IdentityFile, &s.KnownHostsFile, &s.CAFile}
	for i := range s.Verify.TrustFiles {
		files = append(files, &s.Verify.TrustFiles[i])
	}
	return files
}

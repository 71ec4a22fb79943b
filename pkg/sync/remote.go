package sync

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// A Remote says where a branch, a tag or a commit is fetched from, and with
// what credentials.
type Remote struct {
	// URL is https://…, http://…, ssh://USER@HOST:PORT/PATH, USER@HOST:PATH,
	// file:///… or an absolute path. Credentials do not belong in it: it is
	// logged.
	URL string
	// Branch is the name of one branch, such as main.
	Branch string
	// Tag is the name of a tag; what is fetched is the commit that it stands
	// for. It excludes Branch and Commit.
	Tag string
	// Commit is the id, 40 hex digits, of a commit of Branch, or of main if
	// that is empty. It stands for the tip from then on; while the branch's
	// history does not have it, there is [ErrNoCommit].
	Commit string

	// Username and Password are sent as HTTP basic authentication. For ssh,
	// Password decrypts Identity, if that is encrypted.
	Username, Password string
	// BearerToken is sent as Authorization: Bearer. It excludes Username.
	BearerToken string
	// CA holds certificates in PEM that alone are trusted for the server,
	// instead of the system's.
	CA []byte

	// Identity is the private key for ssh, in PEM or in OpenSSH's format.
	Identity []byte
	// KnownHosts are lines of known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE
	// FORMAT). Only a host whose key is in it is spoken to. Both are needed
	// for ssh; no agent, file or environment variable is looked at.
	KnownHosts []byte

	// Refuse is asked about every address before it is connected to, after
	// the name was looked up; an error refuses it: [ErrAddress]. Nil refuses
	// none. Of what is reached through an HTTP proxy, which alone then looks
	// names up, only a URL that bears an address is asked about.
	Refuse func(netip.Addr) error
}

// Local reports whether the repository is read from this machine's disk.
func (r Remote) Local() bool {
	return strings.HasPrefix(r.URL, "file://") || filepath.IsAbs(r.URL)
}

// A source opens the repository that a Remote names.
type source interface {
	open(ctx context.Context) (session, error)
	close()
}

// A session is one look at a repository.
type session interface {
	// tip returns the commit that the branch or tag is at.
	tip() plumbing.Hash
	// bring adds everything that tip needs to store, which has all of the
	// commits in have.
	bring(ctx context.Context, store *objectStore, have []plumbing.Hash) error
	close()
}

// defaultBranch is the branch of a [Remote] that names a commit alone.
const defaultBranch = "main"

// reference returns the name of what is fetched.
func (r Remote) reference() (plumbing.ReferenceName, error) {
	if r.Tag != "" {
		if r.Branch != "" || r.Commit != "" {
			return "", fmt.Errorf("a tag excludes a branch and a commit")
		}
		ref := plumbing.NewTagReferenceName(r.Tag)
		if ref.Validate() != nil {
			return "", fmt.Errorf("%q cannot be the name of a tag", printable(r.Tag, 100))
		}
		return ref, nil
	}
	if r.Commit != "" {
		if !plumbing.IsHash(r.Commit) {
			return "", fmt.Errorf("commit %q is not 40 hex digits", printable(r.Commit, 60))
		}
		if r.Branch == "" {
			r.Branch = defaultBranch
		}
	}
	ref := plumbing.NewBranchReferenceName(r.Branch)
	if ref.Validate() != nil || r.Branch == "" {
		return "", fmt.Errorf("%q cannot be the name of a branch", printable(r.Branch, 100))
	}
	return ref, nil
}

// source checks the remote. What is parsed from a file needs tmp to do so.
func (r Remote) source(tmp string, limits Limits) (source, error) {
	ref, err := r.reference()
	if err != nil {
		return nil, err
	}
	overHTTP := r.Username != "" || r.BearerToken != "" || len(r.CA) > 0
	overSSH := len(r.Identity) > 0 || len(r.KnownHosts) > 0
	if path, ok := strings.CutPrefix(r.URL, "file://"); ok || filepath.IsAbs(r.URL) {
		if overHTTP || overSSH || r.Password != "" {
			return nil, fmt.Errorf("a repository on this machine takes no credentials and no CA")
		}
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%s: want file:// and an absolute path", r.URL)
		}
		return &localSource{path: filepath.Clean(path), ref: ref, limits: limits}, nil
	}
	to, isSSH, err := parseSSH(r.URL)
	if err != nil {
		return nil, err
	}
	if isSSH {
		if overHTTP {
			return nil, fmt.Errorf("%s: ssh takes an identity and known hosts, and no user name, token or CA", r.URL)
		}
		return newSSHSource(r, to, ref, tmp, limits)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, fmt.Errorf("repository's URL cannot be parsed") // err repeats the URL
	}
	hasCredentials := r.Username != "" || r.Password != "" || r.BearerToken != ""
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("credentials do not belong in a repository's URL: they would be logged")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%s: repositories are read from https, http, ssh or a local path", r.URL)
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s: want https://HOST/PATH", r.URL)
	case overSSH:
		return nil, fmt.Errorf("%s: an identity and known hosts are for ssh", r.URL)
	case r.BearerToken != "" && (r.Username != "" || r.Password != ""):
		return nil, fmt.Errorf("a bearer token and a user name exclude each other")
	case hasCredentials && u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("%s: credentials are not sent over http", r.URL)
	}
	return newHTTPSource(r, ref, limits)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

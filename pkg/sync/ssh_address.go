package sync

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

// An sshAddress is where a repository lies on an ssh server.
type sshAddress struct {
	user, host, port string
	path             string
}

// dial returns HOST:PORT.
func (a *sshAddress) dial() string { return net.JoinHostPort(a.host, a.port) }

const (
	defaultSSHUser = "git"
	defaultSSHPort = "22"
)

var (
	// sshHost is a name or an IPv4 address; one of IPv6 is judged by net.
	sshHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?$`)
	sshUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@+-]*$`)
	// scpLike is [USER@]HOST:PATH, which is no URL. HELPER::ADDRESS, which
	// makes git run a program, is not it.
	scpLike = regexp.MustCompile(`^(?:([^@/:]+)@)?(\[[0-9A-Fa-f:.]+\]|[^@/:\[\]]+):([^:].*)$`)
)

// parseSSH reads the two ways to name a repository on an ssh server. ok is
// false for what is neither.
func parseSSH(s string) (a *sshAddress, ok bool, err error) {
	if !strings.Contains(s, "://") {
		m := scpLike.FindStringSubmatch(s)
		if m == nil {
			return nil, false, nil
		}
		a = &sshAddress{user: m[1], host: strings.Trim(m[2], "[]"), path: m[3]}
	} else {
		if !strings.HasPrefix(s, "ssh://") {
			return nil, false, nil
		}
		u, err := url.Parse(s)
		if err != nil {
			return nil, true, fmt.Errorf("repository's URL cannot be parsed") // err repeats the URL
		}
		if _, secret := u.User.Password(); secret {
			return nil, true, fmt.Errorf("credentials do not belong in a repository's URL: they would be logged")
		}
		if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
			return nil, true, fmt.Errorf("%s: want ssh://USER@HOST/PATH", s)
		}
		a = &sshAddress{user: u.User.Username(), host: u.Hostname(), port: u.Port(), path: u.Path}
		// As git has it: /~bot/r.git is r.git of bot's home.
		if strings.HasPrefix(a.path, "/~") {
			a.path = a.path[1:]
		}
	}
	if a.user == "" {
		a.user = defaultSSHUser
	}
	if a.port == "" {
		a.port = defaultSSHPort
	}
	a.host = strings.ToLower(a.host)
	switch {
	case !sshUser.MatchString(a.user):
		return nil, true, fmt.Errorf("%q cannot be a user's name", printable(a.user, 60))
	case !sshHost.MatchString(a.host) && net.ParseIP(a.host) == nil:
		return nil, true, fmt.Errorf("%q cannot be a host's name", printable(a.host, 100))
	case a.path == "" || a.path == "/" || strings.HasPrefix(a.path, "-") || strings.IndexFunc(a.path, unicode.IsControl) >= 0:
		return nil, true, fmt.Errorf("%q cannot be a repository's path", printable(a.path, 100))
	}
	return a, true, nil
}

// shellQuoted returns s for a shell at the other end. It quotes as git does:
// servers take it apart again.
func shellQuoted(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

package sync

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// gitNamespace is what git signs under. A signature of the same key over a
// file (namespace "file") is not one over a commit.
const gitNamespace = "git"

// minRSABits is the size that OpenSSH demands too.
const minRSABits = 2048

// An sshSigner is a line of allowed_signers.
type sshSigner struct {
	where      string // file and line
	principals string // as they stand there: a name for people
	key        ssh.PublicKey
	namespaces string    // pattern list; empty: any
	after      time.Time // zero: no bound
	before     time.Time
}

func (t *Trust) readAllowedSigners(file string, data []byte) error {
	n := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		where := fmt.Sprintf("%s:%d", file, n)
		s, err := parseAllowedSigner(string(line))
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		s.where = where
		if len(t.sums) >= maxTrustKeys {
			return fmt.Errorf("%s: more than %d keys", where, maxTrustKeys)
		}
		t.ssh = append(t.ssh, *s)
		t.noteKey([]byte("ssh"), []byte(s.principals), s.key.Marshal(), []byte(s.namespaces),
			[]byte(s.after.Format(time.RFC3339)), []byte(s.before.Format(time.RFC3339)))
	}
	return nil
}

// parseAllowedSigner reads PRINCIPALS [OPTIONS] TYPE KEY [COMMENT].
func parseAllowedSigner(line string) (*sshSigner, error) {
	principals, rest, err := cutField(line)
	if err != nil {
		return nil, err
	}
	if principals = printable(principals, 200); principals == "" {
		return nil, errors.New("want PRINCIPALS [OPTIONS] TYPE KEY")
	}
	// What follows is an entry as in authorized_keys.
	key, _, options, more, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil || len(more) > 0 {
		return nil, errors.New("want PRINCIPALS [OPTIONS] TYPE KEY, and this holds no SSH public key")
	}
	s := &sshSigner{principals: principals, key: key}
	if err := s.acceptable(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, o := range options {
		name, value, hasValue := strings.Cut(o, "=")
		name = strings.ToLower(name)
		if seen[name] {
			return nil, fmt.Errorf("option %s stands twice", printable(name, 40))
		}
		seen[name] = true
		if hasValue {
			var ok bool
			if value, ok = unquote(value); !ok {
				return nil, fmt.Errorf("option %s: want a value in double quotes", printable(name, 40))
			}
		}
		switch {
		case name == "cert-authority":
			return nil, errors.New("cert-authority is not supported: list the signers' own keys")
		case name == "namespaces" && value != "":
			s.namespaces = value
		case name == "valid-after" && hasValue:
			s.after, err = signerTime(value)
		case name == "valid-before" && hasValue:
			s.before, err = signerTime(value)
		default:
			return nil, fmt.Errorf("option %s is not supported", printable(o, 60))
		}
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", name, err)
		}
	}
	if !s.after.IsZero() && !s.before.IsZero() && !s.before.After(s.after) {
		return nil, errors.New("valid-before is not after valid-after")
	}
	return s, nil
}

// acceptable refuses keys that no signature should be trusted of.
func (s *sshSigner) acceptable() error {
	if _, ok := s.key.(*ssh.Certificate); ok {
		return errors.New("certificates are not supported: list the signer's own key")
	}
	if s.key.Type() == keyAlgoDSA {
		return errors.New("DSA keys are too weak")
	}
	if k, ok := s.key.(ssh.CryptoPublicKey); ok {
		if r, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			return fmt.Errorf("RSA key of %d bits is too weak: want %d", r.N.BitLen(), minRSABits)
		}
	}
	return nil
}

// cutField takes the first field off, which may stand in double quotes.
func cutField(line string) (field, rest string, err error) {
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		field, rest, ok = strings.Cut(quoted, `"`)
		if !ok {
			return "", "", errors.New("quote is not closed")
		}
	} else if i := strings.IndexAny(line, " \t"); i >= 0 {
		field, rest = line[:i], line[i:]
	} else {
		field = line
	}
	return field, strings.TrimLeft(rest, " \t"), nil
}

func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' || strings.ContainsAny(s[1:len(s)-1], `"\`) {
		return "", false
	}
	return s[1 : len(s)-1], true
}

// signerTime reads YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]. OpenSSH takes those
// without Z for the machine's own time; here every machine is to read them
// alike, as UTC.
func signerTime(s string) (time.Time, error) {
	digits := strings.TrimSuffix(strings.TrimSuffix(s, "Z"), "z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) == len(layout) {
			if when, err := time.Parse(layout, digits); err == nil {
				return when, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: want YYYYMMDD or YYYYMMDDHHMMSS", printable(s, 40))
}

// verifySSH checks a signature of the kind that `git commit -S` makes with
// gpg.format=ssh, and returns the signer.
func (t *Trust) verifySSH(c *signedCommit) (string, error) {
	sig, err := sshsig.Unarmor(c.signature)
	if err != nil {
		return "", fmt.Errorf("its SSH signature cannot be read: %w", err)
	}
	fingerprint := ssh.FingerprintSHA256(sig.PublicKey)
	if sig.Namespace != gitNamespace {
		return "", fmt.Errorf("its SSH signature, by key %s, is for namespace %q and not for %q", fingerprint, printable(sig.Namespace, 40), gitNamespace)
	}
	blob := sig.PublicKey.Marshal()
	var why error
	for _, s := range t.ssh {
		if !bytes.Equal(s.key.Marshal(), blob) {
			continue
		}
		if err := s.allows(c.committed); err != nil {
			why = err
			continue
		}
		if err := sshsig.Verify(bytes.NewReader(c.payload), sig, s.key, sig.HashAlgorithm, gitNamespace); err != nil {
			return "", fmt.Errorf("its SSH signature, by key %s, does not match what it says", fingerprint)
		}
		return s.principals + " " + fingerprint, nil
	}
	if why != nil {
		return "", fmt.Errorf("its SSH key %s %w", fingerprint, why)
	}
	return "", fmt.Errorf("its SSH key %s is not trusted", fingerprint)
}

// allows says why the line does not hold for a commit of that time.
func (s *sshSigner) allows(when time.Time) error {
	switch {
	case s.namespaces != "" && !matchList(s.namespaces, gitNamespace):
		return fmt.Errorf("is not trusted for namespace %q (%s)", gitNamespace, s.where)
	case !s.after.IsZero() && when.Before(s.after):
		return fmt.Errorf("was not valid yet at the commit's time: valid-after (%s)", s.where)
	case !s.before.IsZero() && when.After(s.before):
		return fmt.Errorf("was no longer valid at the commit's time: valid-before (%s)", s.where)
	}
	return nil
}

// matchList is OpenSSH's pattern list (ssh_config(5), PATTERNS): one pattern
// has to match, and none that is negated.
func matchList(list, s string) bool {
	matched := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(strings.TrimSpace(pattern), "!")
		// OpenSSH's patterns have * and ? alone, and s has no slash.
		pattern = strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(pattern)
		if ok, err := path.Match(pattern, s); err != nil || !ok {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

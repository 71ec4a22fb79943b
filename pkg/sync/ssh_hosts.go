package sync

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// maxKnownHosts bounds the bytes of known_hosts.
const maxKnownHosts = 1 << 20

// A sshHosts knows the keys of hosts. No other is trusted, nor is one learned.
type sshHosts struct{ db *knownhosts.HostKeyDB }

// parseKnownHosts reads lines of known_hosts. The library wants a file.
func parseKnownHosts(data []byte, tmp string) (*sshHosts, error) {
	if len(data) > maxKnownHosts {
		return nil, fmt.Errorf("known hosts are more than %d bytes", maxKnownHosts)
	}
	f, err := os.CreateTemp(tmp, "known-hosts-")
	if err != nil {
		return nil, err
	}
	defer discard(f)
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	db, err := knownhosts.NewDB(f.Name())
	if err != nil {
		why := strings.ReplaceAll(err.Error(), f.Name(), "line ")
		why = strings.ReplaceAll(strings.TrimPrefix(why, "knownhosts: "), "line :", "line ")
		return nil, fmt.Errorf("known hosts cannot be read: %s", printable(why, maxRemoteText))
	}
	return &sshHosts{db}, nil
}

// keyAlgoDSA is what keys of DSA call themselves. No library offers them any more; somebody may.
const keyAlgoDSA = "ssh-dss"

// weakHostKeys are never agreed on: SHA-1 and DSA.
var weakHostKeys = []string{ssh.KeyAlgoRSA, ssh.CertAlgoRSAv01, keyAlgoDSA, "ssh-dss-cert-v01@openssh.com"}

// algorithms returns the kinds of keys to ask a host for: those that are
// known of it. Of an unknown one any will do, to say what it showed.
func (h *sshHosts) algorithms(address string) []string {
	known := slices.DeleteFunc(h.db.HostKeyAlgorithms(address), func(a string) bool { return slices.Contains(weakHostKeys, a) })
	if len(known) > 0 {
		return known
	}
	return []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
}

// check is an [ssh.HostKeyCallback] whose errors are [ErrHostKey].
func (h *sshHosts) check(address string, remote net.Addr, key ssh.PublicKey) error {
	err := h.db.HostKeyCallback()(address, remote, key)
	if err == nil {
		return nil
	}
	shown := fmt.Sprintf("%s showed the %s key %s", address, key.Type(), ssh.FingerprintSHA256(key))
	var (
		other   *xknownhosts.KeyError
		revoked *xknownhosts.RevokedError
	)
	switch {
	case errors.As(err, &revoked):
		return fmt.Errorf("%w: %s, which known hosts mark as revoked (line %d)", ErrHostKey, shown, revoked.Revoked.Line)
	case errors.As(err, &other) && len(other.Want) > 0:
		var want []string
		for _, k := range other.Want {
			want = append(want, fmt.Sprintf("%s (line %d)", ssh.FingerprintSHA256(k.Key), k.Line))
		}
		return fmt.Errorf("%w: %s, and known hosts have %s: the host was given another key, or something stands between; ask who runs it before you change known hosts",
			ErrHostKey, shown, printable(strings.Join(want, ", "), 400))
	case errors.As(err, &other):
		return fmt.Errorf("%w: %s, and known hosts have none for it: if whoever runs it names the same fingerprint, add the line that ssh-keyscan prints", ErrHostKey, shown)
	}
	return fmt.Errorf("%w: %s: %s", ErrHostKey, shown, printable(err.Error(), 200))
}

// otherKinds says that a host has no key of a kind that is known of it.
func otherKinds(address string, e *ssh.AlgorithmNegotiationError) error {
	return fmt.Errorf("%w: %s has no key of a kind that known hosts have for it: it has %s; if it was given new keys, ask who runs it and put theirs into known hosts",
		ErrHostKey, address, printable(strings.Join(e.RequestedAlgorithms, ", "), 200))
}

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

const (
	ageIntro         = "age-encryption.org/"
	maxIdentityFile  = 1 << 20
	passphrasePrompt = "passphrase of %s (hidden): "

	// maxWorkFactor bounds what a file, which may be anybody's, has scrypt do: 1 GiB of memory and a
	// few seconds. age writes 18.
	maxWorkFactor = 20
)

// isAgeFile tells whether text is an age file, armored or not.
func isAgeFile(text []byte) bool {
	text = bytes.TrimSpace(text)
	return bytes.HasPrefix(text, []byte(ageIntro)) || bytes.HasPrefix(text, []byte(armor.Header))
}

// An ageOpener opens age files for a person: with a passphrase, identity files, or age's
// plugins.
type ageOpener struct {
	streams    genericiooptions.IOStreams
	identities []string // files
}

// open decrypts a file, whose plaintext has at most most bytes and is the caller's to wipe.
func (o ageOpener) open(name string, text []byte, most int) ([]byte, error) {
	identities := []age.Identity{passphraseIdentity{o.streams, name}}
	for _, file := range o.identities {
		more, err := o.readIdentities(file)
		if err != nil {
			return nil, fmt.Errorf("--identity: %w", err)
		}
		identities = append(identities, more...)
	}
	plain, err := decryptAge(name, text, most, identities...)
	var nobody *age.NoIdentityMatchError
	if errors.As(err, &nobody) {
		err = fmt.Errorf("%s: no identity opens it", name)
		if len(o.identities) == 0 {
			return nil, withHint(err, "name the file of the identity that it is encrypted to with -i")
		}
		return nil, withHint(err, "is it the identity of one of the recipients that it was encrypted for?")
	}
	return plain, err
}

func decryptAge(name string, text []byte, most int, identities ...age.Identity) ([]byte, error) {
	var in io.Reader = bytes.NewReader(text)
	if trimmed := bytes.TrimSpace(text); bytes.HasPrefix(trimmed, []byte(armor.Header)) {
		in = armor.NewReader(bytes.NewReader(trimmed))
	}
	out, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// All at once: what follows a damaged part is never used.
	return readAll(out, name, most)
}

// readIdentities reads age's identity files, those with a passphrase included.
func (o ageOpener) readIdentities(file string) ([]age.Identity, error) {
	text, err := readFile(file, maxIdentityFile)
	if err != nil {
		return nil, err
	}
	defer func() { clear(text) }()
	if isAgeFile(text) {
		plain, err := decryptAge(file, text, maxIdentityFile, passphraseIdentity{o.streams, file})
		if err != nil {
			return nil, err
		}
		clear(text)
		text = plain
	}
	var identities []age.Identity
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// age's errors may quote what they do not understand.
		fault := fmt.Errorf("%s:%d: not an age identity", file, number)
		if strings.HasPrefix(line, "AGE-PLUGIN-") {
			identity, err := plugin.NewIdentity(line, plugin.NewTerminalUI(o.say, o.say))
			if err != nil {
				return nil, fault
			}
			identities = append(identities, identity)
			continue
		}
		more, err := age.ParseIdentities(strings.NewReader(line))
		if err != nil {
			return nil, withHint(fault, "want lines AGE-SECRET-KEY-… or AGE-PLUGIN-…")
		}
		identities = append(identities, more...)
	}
	if len(identities) == 0 {
		return nil, fmt.Errorf("%s: no age identity in it", file)
	}
	return identities, nil
}

func (o ageOpener) say(format string, args ...any) {
	prose(o.streams.ErrOut, "note: "+format, args...)
}

// A passphraseIdentity asks for the passphrase of a file that has one.
type passphraseIdentity struct {
	streams genericiooptions.IOStreams
	name    string
}

func (p passphraseIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != "scrypt" {
		return nil, age.ErrIncorrectIdentity
	}
	t, done, err := anyTerminal(p.streams)
	if err != nil {
		return nil, err
	}
	defer done()
	passphrase, err := t.readHidden(fmt.Sprintf(passphrasePrompt, visible(p.name)))
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	if len(passphrase) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	identity, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	key, err := identity.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, errors.New("the passphrase is wrong")
	}
	return key, err
}

// anyTerminal returns the terminal that standard input is, or else the one that the program
// runs in.
func anyTerminal(streams genericiooptions.IOStreams) (*terminal, func(), error) {
	if t := terminalOf(streams); t != nil {
		return t, func() {}, nil
	}
	path := "/dev/tty"
	if runtime.GOOS == "windows" {
		path = "CONIN$"
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil && !term.IsTerminal(int(f.Fd())) {
		f.Close()
		err = errors.New("no terminal")
	}
	if err != nil {
		return nil, nil, errors.New("there is no terminal to ask for a passphrase on")
	}
	return newTerminal(f, streams.ErrOut), func() { f.Close() }, nil
}

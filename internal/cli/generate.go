package cli

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

const (
	// maxGenerated bounds, in characters, a value that is made.
	maxGenerated = 4096
	// minGeneratedBits is what keeps a value from being guessed, also by those who may try as often and as fast
	// as they can.
	minGeneratedBits = 80

	lowercase = "abcdefghijklmnopqrstuvwxyz"
	uppercase = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
	symbols   = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
)

const defaultCharset = "alnum"

// charsets are those that have a name. Names are ordered as the help has them.
var charsets = []struct{ name, characters string }{
	{defaultCharset, uppercase + lowercase + digits},
	{"letters", uppercase + lowercase},
	{"digits", digits},
	{"hex", digits + "abcdef"},
	{"base64url", uppercase + lowercase + digits + "-_"},
	{"ascii", uppercase + lowercase + digits + symbols},
}

// ownCharset comes before the characters of a set that has no name.
const ownCharset = "chars="

// A generator makes values that nobody gets to see.
type generator struct {
	key    string
	length int
	set    string // of one-byte characters, none twice
}

// parseGenerator reads KEY=LENGTH[:CHARSET]. Its errors do not quote it: who takes --generate for
// --from-literal has written the secret there.
func parseGenerator(arg string) (generator, error) {
	key, rest, ok := strings.Cut(arg, "=")
	if !ok {
		return generator{}, withHint(errors.New("--generate: want KEY=LENGTH[:CHARSET]"), "for example password=24, or pin=6:digits")
	}
	if encrypt.ValidateKey(key) != nil {
		return generator{}, errNoKey("--generate")
	}
	number, charset, named := strings.Cut(rest, ":")
	if !named {
		charset = defaultCharset
	}
	length, err := strconv.ParseUint(number, 10, 32)
	if err != nil || length < 1 || length > maxGenerated {
		return generator{}, withHint(fmt.Errorf("--generate: key %s: want a length from 1 to %d characters", key, maxGenerated), "for example password=24, or pin=6:digits")
	}
	set, err := charsetOf(charset)
	if err != nil {
		return generator{}, withHint(fmt.Errorf("--generate: key %s: %w", key, err), "want %s, or %s and the characters", charsetNames(), ownCharset)
	}
	return generator{key, int(length), set}, nil
}

func charsetNames() string {
	names := make([]string, len(charsets))
	for i, c := range charsets {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

func charsetOf(charset string) (string, error) {
	for _, c := range charsets {
		if c.name == charset {
			return c.characters, nil
		}
	}
	set, own := strings.CutPrefix(charset, ownCharset)
	if !own {
		return "", errors.New("there is no such set of characters")
	}
	if len(set) < 2 {
		return "", errors.New("a set has two characters at least")
	}
	for i := range len(set) {
		if set[i] < ' ' || set[i] > '~' {
			return "", errors.New("a set consists of printable ASCII characters")
		}
		if strings.IndexByte(set[:i], set[i]) >= 0 {
			return "", errors.New("a set has no character twice: it would come up more often than others")
		}
	}
	return set, nil
}

// value makes one. Each character of the set is as likely as any other, in each place: a random byte
// that would favour the first ones is thrown away.
func (g generator) value(random io.Reader) ([]byte, error) {
	value := make([]byte, 0, g.length)
	buf := make([]byte, 256)
	defer clear(buf)
	fair := len(buf) - len(buf)%len(g.set) // the bytes below it are as many for each character
	for {
		if _, err := io.ReadFull(random, buf); err != nil {
			clear(value)
			return nil, fmt.Errorf("--generate: key %s: reading random bytes: %w", g.key, err)
		}
		for _, b := range buf {
			if int(b) >= fair {
				continue
			}
			value = append(value, g.set[int(b)%len(g.set)])
			if len(value) == g.length {
				return value, nil
			}
		}
	}
}

// bits returns how many bits of chance a value holds.
func (g generator) bits() float64 { return float64(g.length) * math.Log2(float64(len(g.set))) }

// generateInto makes the values of --generate.
func (f *valueFlags) generateInto(vs *values, errOut io.Writer) error {
	for _, arg := range f.generate {
		g, err := parseGenerator(arg)
		if err != nil {
			return err
		}
		value, err := g.value(f.random)
		if err != nil {
			return err
		}
		if err := vs.add("--generate", g.key, value); err != nil {
			clear(value)
			return err
		}
		if g.bits() < minGeneratedBits {
			prose(errOut, "note: the value of %s is one of 2^%.0f: where it can be tried often, make it longer", g.key, math.Floor(g.bits()))
		}
	}
	return nil
}

// checkGenerate tells, before anybody is asked for a value, what is wrong with those to be made.
func (f *valueFlags) checkGenerate() error {
	for _, arg := range f.generate {
		if _, err := parseGenerator(arg); err != nil {
			return err
		}
	}
	return nil
}

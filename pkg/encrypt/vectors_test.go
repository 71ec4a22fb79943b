package encrypt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// A vector is one file of testdata/vectors; the README.md there describes it.
type vector struct {
	comment    string
	open       string // outcome of Open
	check      string // outcome of Inspect, then Check
	privateKey bool   // whether a private key is used on the way
	binding    Binding
	identities []string
	now        time.Time
	value      []byte // of a valid vector; nil if only its hash is known
	valueSize  int
	valueSum   string
	sealed     string
}

// outcomes are what a vector's expect and check can say.
var outcomes = map[string]error{
	"ok":           nil,
	"malformed":    ErrMalformed,
	"too large":    ErrTooLarge,
	"unbound":      ErrUnbound,
	"elsewhere":    ErrElsewhere,
	"key not held": ErrKeyNotHeld,
	"future":       ErrFuture,
}

func readVectors(tb testing.TB) map[string]vector {
	tb.Helper()
	files, err := filepath.Glob("testdata/vectors/*.txt")
	if err != nil || len(files) < 50 {
		tb.Fatalf("%d vectors: %v", len(files), err)
	}
	vectors := make(map[string]vector)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		v, err := parseVector(string(data))
		if err != nil {
			tb.Fatalf("%s: %v", file, err)
		}
		vectors[strings.TrimSuffix(filepath.Base(file), ".txt")] = v
	}
	return vectors
}

func parseVector(text string) (vector, error) {
	v := vector{valueSize: -1}
	head, body, ok := strings.Cut(text, "\n\n")
	if !ok {
		return v, errors.New("no blank line")
	}
	v.sealed = strings.TrimSuffix(body, "\n")
	for line := range strings.SplitSeq(head, "\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return v, fmt.Errorf("malformed line %q", line)
		}
		var err error
		switch name {
		case "comment":
			v.comment = value
		case "expect":
			v.open = value
		case "check":
			v.check = value
		case "private-key":
			v.privateKey = value == "used"
		case "namespace":
			v.binding.Namespace = value
		case "name":
			v.binding.Name = value
		case "key":
			v.binding.Key = value
		case "scope":
			v.binding.Scope = Scope(value)
		case "workloads":
			v.binding.Workloads = strings.Split(value, ",")
		case "secret":
			v.binding.SecretType = value
		case "template":
			v.binding.TemplateSHA256 = value
		case "identity":
			v.identities = append(v.identities, value)
		case "now":
			var seconds int64
			seconds, err = strconv.ParseInt(value, 10, 64)
			v.now = time.Unix(seconds, 0)
		case "value-base64":
			v.value, err = base64.StdEncoding.DecodeString(value)
		case "value-size":
			v.valueSize, err = strconv.Atoi(value)
		case "value-sha256":
			v.valueSum = value
		default:
			err = fmt.Errorf("unknown line %q", name)
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

func (v vector) String() string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, value) }
	optional := func(name, value string) {
		if value != "" {
			line(name, value)
		}
	}
	line("comment", v.comment)
	line("expect", v.open)
	line("check", v.check)
	line("private-key", map[bool]string{true: "used", false: "not used"}[v.privateKey])
	line("namespace", v.binding.Namespace)
	line("name", v.binding.Name)
	line("key", v.binding.Key)
	line("scope", string(v.binding.Scope))
	optional("workloads", strings.Join(v.binding.Workloads, ","))
	optional("secret", v.binding.SecretType)
	optional("template", v.binding.TemplateSHA256)
	for _, identity := range v.identities {
		line("identity", identity)
	}
	line("now", strconv.FormatInt(v.now.Unix(), 10))
	if v.open == "ok" {
		line("value-size", strconv.Itoa(len(v.value)))
		sum := sha256.Sum256(v.value)
		line("value-sha256", hex.EncodeToString(sum[:]))
		if 0 < len(v.value) && len(v.value) <= 1024 {
			line("value-base64", base64.StdEncoding.EncodeToString(v.value))
		}
	}
	return b.String() + "\n" + v.sealed + "\n"
}

// countingKeys holds the private keys of a test and counts how often one is used.
type countingKeys struct {
	identities map[KeyID]age.Identity
	used       int
}

func keysOf(tb testing.TB, secrets ...string) *countingKeys {
	tb.Helper()
	k := &countingKeys{identities: make(map[KeyID]age.Identity)}
	for _, secret := range secrets {
		if strings.HasPrefix(secret, "AGE-SECRET-KEY-PQ-") {
			identity, err := age.ParseHybridIdentity(secret)
			if err != nil {
				tb.Fatal(err)
			}
			k.identities[KeyIDOf(identity.Recipient().String())] = identity
			continue
		}
		identity, err := age.ParseX25519Identity(secret)
		if err != nil {
			tb.Fatal(err)
		}
		k.identities[KeyIDOf(identity.Recipient().String())] = identity
	}
	return k
}

func (k *countingKeys) Identity(id KeyID) (age.Identity, bool) {
	identity, held := k.identities[id]
	return countedIdentity{identity, k}, held
}

type countedIdentity struct {
	age.Identity
	keys *countingKeys
}

func (i countedIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	i.keys.used++
	return i.Identity.Unwrap(stanzas)
}

func wantOutcome(t *testing.T, what, outcome string, err error) {
	t.Helper()
	want, known := outcomes[outcome]
	if !known {
		t.Fatalf("the vector expects %q, which is no outcome", outcome)
	}
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: %v; want %s", what, err, outcome)
	}
	for other, e := range outcomes {
		if other != outcome && e != nil && errors.Is(err, e) {
			t.Errorf("%s is %s as well as %s: %v", what, other, outcome, err)
		}
	}
	if errors.Is(err, age.ErrIncorrectIdentity) {
		t.Errorf("%s: age would try its next identity: %v", what, err)
	}
	if err != nil && len(err.Error()) > 500 {
		t.Errorf("%s: an error of %d bytes", what, len(err.Error()))
	}
}

func TestPromise04_EveryVectorThroughEveryEntryPoint(t *testing.T) {
	for name, v := range readVectors(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := keysOf(t, v.identities...)

			value, err := Open(v.sealed, v.binding, keys, v.now)
			wantOutcome(t, "Open", v.open, err)
			if err != nil && value != nil {
				t.Errorf("Open refused it and returned %d bytes of it", len(value))
			}
			if used := keys.used > 0; used != v.privateKey {
				t.Errorf("a private key was used %d times", keys.used)
			}
			if v.open == "ok" {
				sum := sha256.Sum256(value)
				if len(value) != v.valueSize || hex.EncodeToString(sum[:]) != v.valueSum || v.value != nil && !bytes.Equal(value, v.value) {
					t.Errorf("Open returned %d bytes, of SHA-256 %x", len(value), sum)
				}
			}

			info, err := Inspect(v.sealed)
			if err == nil {
				err = info.Check(v.binding, v.now)
			} else if info.Size != 0 || info.KeyIDs != nil || info.Binding.Scope != "" {
				t.Errorf("Inspect refused it and returned %+v", info)
			}
			wantOutcome(t, "Inspect and Check", v.check, err)
			if v.open == "ok" && info.Size != v.valueSize {
				t.Errorf("Inspect: %d bytes, of %d", info.Size, v.valueSize)
			}

			if v.binding.TemplateSHA256 != "" {
				return // manifests have no template yet
			}
			faults := v.manifest().CheckValues(v.now)
			if (len(faults) == 0) != (v.check == "ok") {
				t.Fatalf("CheckValues: %v; want %s", faults, v.check)
			}
			for _, f := range faults {
				wantOutcome(t, "CheckValues", v.check, f)
				if f.Field != DataField(v.binding.Key) || f.Name != v.binding.Name || f.Namespace != v.binding.Namespace {
					t.Errorf("CheckValues blames %+v", f)
				}
			}
		})
	}
}

// manifest returns one that holds the vector's value where the vector says it
// was found.
func (v vector) manifest() Manifest {
	o := &v1alpha1.EncryptedSecret{Spec: v1alpha1.EncryptedSecretSpec{
		Scope:         string(v.binding.Scope),
		Workloads:     v.binding.Workloads,
		EncryptedData: map[string]string{v.binding.Key: v.sealed},
	}}
	o.Namespace, o.Name = v.binding.Namespace, v.binding.Name
	if v.binding.SecretType != "" {
		o.Spec.Secret = &v1alpha1.SecretDelivery{Type: v.binding.SecretType}
	}
	return Manifest{File: "vector.yaml", Line: 1, Object: o}
}

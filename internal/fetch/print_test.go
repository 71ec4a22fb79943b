package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func secretsOf(name string, data map[string]string) *Secrets {
	s := Secret{Name: name, Version: "v1", Updated: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Data: map[string][]byte{}}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return &Secrets{Secrets: []Secret{s}}
}

var awkward = map[string]string{
	"quote":    `it's "quoted" and \ escaped`,
	"shell":    "$(touch /tmp/x) `id` $HOME !! ; rm -rf * #",
	"newlines": "\nfirst\nlast\n",
	"binary":   "\x01\x7f\x80\xff\xfe",
	"unicode":  "pä55wörd ✓",
	"empty":    "",
	"quotes":   "''''",
	"option":   "-n",
}

// What a shell makes of the lines is what was sealed, byte by byte.
func TestAShellReadsEnvBack(t *testing.T) {
	var out bytes.Buffer
	if err := secretsOf("db", awkward).Print(&out, Env); err != nil {
		t.Fatal(err)
	}
	for key, want := range awkward {
		script := "eval \"$1\"; printf %s \"$DB_" + strings.ToUpper(key) + "\""
		got, err := exec.Command("sh", "-c", script, "sh", out.String()).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", key, got, err, want)
		}
	}
}

func TestJSONAndYAMLAreLossless(t *testing.T) {
	in := secretsOf("db", awkward)
	in.Secrets[0].Data["nul"] = []byte("a\x00b")
	for format, decode := range map[Format]func([]byte, *Secrets) error{
		JSON: func(b []byte, s *Secrets) error { return json.Unmarshal(b, s) },
		YAML: func(b []byte, s *Secrets) error { return yaml.UnmarshalStrict(b, s) },
	} {
		t.Run(string(format), func(t *testing.T) {
			var out bytes.Buffer
			if err := in.Print(&out, format); err != nil {
				t.Fatal(err)
			}
			var back Secrets
			if err := decode(out.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			if len(back.Secrets) != 1 || !back.Secrets[0].Updated.Equal(in.Secrets[0].Updated) {
				t.Fatalf("got %+v", back)
			}
			for key, want := range in.Secrets[0].Data {
				if got := back.Secrets[0].Data[key]; !bytes.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", key, got, want)
				}
			}
		})
	}
}

func TestWhatCannotBeAVariableIsAnError(t *testing.T) {
	collision := secretsOf("a", map[string]string{"b.c": "first-value"})
	collision.Secrets = append(collision.Secrets, secretsOf("a-b", map[string]string{"c": "second-value"}).Secrets...)
	for name, s := range map[string]*Secrets{
		"two objects":           collision,
		"two keys of one":       secretsOf("db", map[string]string{"a.b": "first-value", "a-b": "second-value"}),
		"keys that differ by A": secretsOf("db", map[string]string{"key": "first-value", "KEY": "second-value"}),
		"a NUL":                 secretsOf("db", map[string]string{"k": "first-value\x00second-value"}),
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := s.Print(&out, Env)
			if !errors.Is(err, ErrNoVariable) || out.Len() > 0 {
				t.Errorf("got %v, wrote %q", err, out.String())
			}
			if err != nil && strings.Contains(err.Error(), "-value") {
				t.Errorf("the error holds a value: %v", err)
			}
		})
	}
}

func TestFormatsAreNamed(t *testing.T) {
	for _, s := range []string{"json", "yaml", "env"} {
		if f, err := ParseFormat(s); err != nil || string(f) != s {
			t.Errorf("%s: got %q, %v", s, f, err)
		}
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("xml was accepted")
	}
}

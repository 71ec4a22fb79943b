package shellenv

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// ofShell returns what a real shell has in a variable after it read the lines.
func ofShell(t interface {
	Helper()
	Fatalf(string, ...any)
}, lines []byte, name string) []byte {
	t.Helper()
	// The lines come on standard input: a list of arguments bounds its size.
	cmd := exec.Command("sh", "-c", `. /dev/stdin; printf %s "$`+name+`"`)
	cmd.Stdin = bytes.NewReader(lines)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("sh: %v: %s", err, stderr.String())
	}
	return got
}

func TestAShellReadsTheExactBytes(t *testing.T) {
	for name, value := range map[string]string{
		"empty":          "",
		"quotes":         `it's "quoted" and \ escaped`,
		"only quotes":    "''''",
		"a shell's own":  "$(exit 1) `exit 1` $HOME !! ~ * ; exit 1 #",
		"line breaks":    "\nfirst\r\n\nlast\n",
		"no text":        "\x01\x07\x1b\x7f\x80\xff\xfe",
		"not ASCII":      "pä55wörd ✓",
		"an option":      "-n",
		"an assignment":  "A=B",
		"a continuation": "a\\\nb\\",
	} {
		t.Run(name, func(t *testing.T) {
			var a Assignments
			if err := a.Add("db", "key", []byte(value)); err != nil {
				t.Fatal(err)
			}
			if got := ofShell(t, a.Bytes(), "DB_KEY"); string(got) != value {
				t.Errorf("got %q, want %q", got, value)
			}
		})
	}
}

func TestAnyValueThatCanBeAVariableIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Bytes that mean something to a shell come often.
		value := rapid.SliceOf(rapid.OneOf(
			rapid.SampledFrom([]byte("'\"\\$`\n\r!#;&|<>(){}[]*?~= \t")),
			rapid.ByteRange(1, 255),
		)).Draw(t, "value")
		object := rapid.StringMatching(`[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?`).Draw(t, "object")
		key := rapid.StringMatching(`[A-Za-z0-9._-]{1,20}`).Draw(t, "key")
		var a Assignments
		if err := a.Add(object, key, value); err != nil {
			t.Fatalf("Add: %v", err)
		}
		name, _, _ := strings.Cut(string(a.Bytes()), "=")
		if got := ofShell(t, a.Bytes(), name); !bytes.Equal(got, value) {
			t.Fatalf("%s/%s as %s: got %q, want %q", object, key, name, got, value)
		}
	})
}

func TestVariablesAreNamedAfterObjectAndKey(t *testing.T) {
	for _, tt := range []struct{ object, key, want string }{
		{"db", "password", "DB_PASSWORD"},
		{"my-db.v2", "tls.key", "MY_DB_V2_TLS_KEY"},
		{"1password", "k", "_1PASSWORD_K"},
		{"db", "MixedCase_9", "DB_MIXEDCASE_9"},
	} {
		var a Assignments
		if err := a.Add(tt.object, tt.key, nil); err != nil || string(a.Bytes()) != tt.want+"=''\n" {
			t.Errorf("%s/%s: got %q, %v; want %s", tt.object, tt.key, a.Bytes(), err, tt.want)
		}
	}
}

func TestWhatCannotBeAVariableIsAnErrorWithoutTheValue(t *testing.T) {
	type entry struct{ object, key, value string }
	for name, entries := range map[string][]entry{
		"two objects of one variable": {{"a", "b.c", "first-value"}, {"a-b", "c", "second-value"}},
		"two keys of one variable":    {{"db", "a.b", "first-value"}, {"db", "a-b", "second-value"}},
		"keys that differ in case":    {{"db", "key", "first-value"}, {"db", "KEY", "second-value"}},
		"a NUL":                       {{"db", "k", "first-value\x00second-value"}},
	} {
		t.Run(name, func(t *testing.T) {
			var a Assignments
			var err error
			for i, e := range entries {
				err = a.Add(e.object, e.key, []byte(e.value))
				if last := i == len(entries)-1; last != (err != nil) {
					t.Fatalf("%s/%s: %v", e.object, e.key, err)
				}
			}
			if !errors.Is(err, ErrNoVariable) || strings.Contains(err.Error(), "-value") {
				t.Errorf("got %v", err)
			}
			if strings.Contains(string(a.Bytes()), "second-value") {
				t.Errorf("what was refused is among the lines: %q", a.Bytes())
			}
		})
	}
}

func TestAProcessIsGivenTheExactBytes(t *testing.T) {
	value := "it's $HOME\n=\x80\xff"
	var e Environ
	if name, err := e.Add("my-db.v2", "tls.key", []byte(value)); err != nil || name != "MY_DB_V2_TLS_KEY" {
		t.Fatalf("got %q, %v", name, err)
	}
	for _, key := range []string{"tls-key", "TLS_KEY"} {
		if _, err := e.Add("my-db.v2", key, []byte("other-value")); !errors.Is(err, ErrNoVariable) || strings.Contains(err.Error(), "other-value") {
			t.Errorf("%s: got %v", key, err)
		}
	}
	if _, err := e.Add("db", "k", []byte("other\x00value")); !errors.Is(err, ErrNoVariable) {
		t.Errorf("a NUL byte: got %v", err)
	}
	cmd := exec.Command("sh", "-c", `printf %s "$MY_DB_V2_TLS_KEY"`)
	cmd.Env = e.List()
	if got, err := cmd.Output(); err != nil || string(got) != value {
		t.Errorf("got %q, %v", got, err)
	}
	if len(e.List()) != 1 {
		t.Errorf("%d variables", len(e.List()))
	}
}

// Names come from whoever may write objects, and the lines go where a shell runs them.
func TestNamesOfLoadersAreNoVariables(t *testing.T) {
	for _, where := range [][2]string{
		{"ld", "preload"}, {"ld", "debug-output"}, {"node", "options"}, {"java", "tool.options"}, {"openssl", "conf"}, {"lua", "init-5-4"}, {"git", "config-global"},
	} {
		var a Assignments
		if err := a.Add(where[0], where[1], []byte("hunter2")); !errors.Is(err, ErrNoVariable) || strings.Contains(err.Error(), "hunter2") || len(a.Bytes()) > 0 {
			t.Errorf("%s: %v, %q", where, err, a.Bytes())
		}
	}
	for _, where := range [][2]string{{"git", "token"}, {"old", "preload"}, {"my", "ld-preload"}, {"node", "options-of-mine"}} {
		if err := new(Assignments).Add(where[0], where[1], []byte("hunter2")); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}

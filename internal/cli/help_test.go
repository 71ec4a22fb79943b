package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func TestHelpFitsATerminalAndIsWhole(t *testing.T) {
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[2:]
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			code, help, stderr := run(t, "", append(path, "--help")...)
			if code != exitOK || stderr != "" {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			for line := range strings.Lines(help) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if strings.Contains(help, "string ") || strings.Contains(help, "help for ") {
				t.Errorf("a flag is described by the library:\n%s", help)
			}
			if cmd.HasParent() && cmd.Name() != "help" && !strings.Contains(help, "Exit codes: ") {
				t.Errorf("no exit codes:\n%s", help)
			}
		})
		for _, verb := range cmd.Commands() {
			check(verb)
		}
	}
	root := New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: new(bytes.Buffer), ErrOut: new(bytes.Buffer)})
	root.InitDefaultHelpCmd()
	check(root)

	code, options, _ := run(t, "", "options")
	if code != exitOK || !strings.Contains(options, "--context") {
		t.Errorf("options: exit code %d: %s", code, options)
	}
	for line := range strings.Lines(options) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("options: %d columns: %s", n, line)
		}
	}
}

func TestVisibleLeavesNothingThatATerminalObeys(t *testing.T) {
	for in, want := range map[string]string{
		"plain ✓ text":                   "plain ✓ text",
		"\x1b[31mred":                    `\u001b[31mred`,
		"a\nerror: b\r":                  `a\u000aerror: b\u000d`,
		"\xff\xfe":                       `\xff\xfe`,
		"\u202egnp.exe":                  `\u202egnp.exe`,
		"\u009b31m":                      `\u009b31m`,
		"open AGE-SECRET-KEY-1QQQQQQQ: ": "open (a private key): ",
		"x age-secret-key-pq-1qqqqqq/y":  "x (a private key)/y",
		"AGE-PLUGIN-YUBIKEY-1QQQ":        "(a private key)",
		// What hints say stays readable.
		"want lines AGE-SECRET-KEY-… or AGE-PLUGIN-…":           "want lines AGE-SECRET-KEY-… or AGE-PLUGIN-…",
		"AGE-SECRET-KEY-PQ-1…":                                  "AGE-SECRET-KEY-PQ-1…",
		"open eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsieCJdfQ.c2lnbg: ": "open (a token): ",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestHelpFlowsOnANarrowScreen(t *testing.T) {
	const text = "Encrypt values into an EncryptedSecret that is safe\nto commit.\n\n  # A comment that is longer than the screen\n  command that stays whole, however long it is"
	if got, want := reflowed(text, 40), `Encrypt values into an EncryptedSecret
that is safe to commit.

  # A comment that is longer than the
  # screen
  command that stays whole, however long it is`; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	root := New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: new(bytes.Buffer), ErrOut: new(bytes.Buffer)})
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		for line := range strings.Lines(flagUsages(cmd.LocalFlags(), 40)) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 40 && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, verb := range cmd.Commands() {
			check(verb)
		}
	}
	check(root)
}

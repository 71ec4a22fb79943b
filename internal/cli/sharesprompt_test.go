//go:build linux

package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

func TestPromise01_TheHiddenPromptTakesAShare(t *testing.T) {
	t.Chdir(t.TempDir())
	key := shareKey(t, 3, 2)
	check(t, os.WriteFile(unseal.ShareSetFile, key.set.Text(), 0o644))
	share := key.shares[0]
	rows := strings.ReplaceAll(string(inRows([]byte(share))), "\r\n", "\r")
	for name, tt := range map[string]struct {
		typed  string
		code   int
		screen string
	}{
		"on one line":                  {share + "\r", exitSealed, ": 1 of 2 shares (1); expires in 15m"},
		"as it was shown":              {rows, exitSealed, ": 1 of 2 shares (1)"},
		"in capitals":                  {strings.ToUpper(share) + "\r", exitSealed, ": 1 of 2 shares (1)"},
		"with a slip that is undone":   {share[:30] + "x\x7f" + share[30:] + "\r", exitSealed, ": 1 of 2 shares (1)"},
		"one character too few":        {share[:97] + "\r\r\r", exitError, "it has 97 characters, where there should be 98"},
		"a line at a time":             {share[:20] + "\r" + share[20:] + "\r", exitSealed, "78 characters to go, or two empty lines to end: "},
		"one character too many":       {share + "q\r", exitError, "it has 99 characters"},
		"a typo":                       {misspelt(share, 50) + "\r", exitError, "most likely in its character 50 of 98"},
		"a typo at its very beginning": {"w" + share[1:] + "\r", exitError, "the share has a typo"},
		"Ctrl-C":                       {share[:60] + "\x03", exitInterrupted, keyPrompt},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRealSafe(t, nil, "a", key.RootKey)
			p := at(t, "unseal", "--safe", s.socket)
			p.typesHidden(", or a share of it "+keyPrompt, 1, tt.typed)
			code, screen := p.leaves()
			if code != tt.code || !strings.Contains(screen, tt.screen) {
				t.Errorf("exit code %d, want %d; the screen shows:\n%s", code, tt.code, screen)
			}
			if given := s.seal.Status().Progress.Given; given == 1 != (tt.code == exitSealed) {
				t.Errorf("%d shares count", given)
			}
			hidesShares(t, "the screen", screen, share)
		})
	}
	// The next one sees how far it has come before they give theirs.
	s := newRealSafe(t, nil, "a", key.RootKey)
	if code, _, stderr := run(t, share, "unseal", "--safe", s.socket); code != exitSealed {
		t.Fatal(stderr)
	}
	p := at(t, "unseal", "--safe", s.socket)
	p.sees(" has 1 of 2 shares (1); expires in ", 1)
	p.typesHidden(keyPrompt, 1, key.shares[2]+"\r")
	if code, screen := p.leaves(); code != exitOK || s.sealed() {
		t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
	}
}

// Whoever is ended while they wait for a key leaves at once, and leaves nothing for the shell.
func TestAPromptForAKeyCanBeEndedFromOutside(t *testing.T) {
	t.Chdir(t.TempDir())
	key := shareKey(t, 3, 2)
	for signal, code := range map[unix.Signal]int{unix.SIGTERM: exitTerminated, unix.SIGINT: exitInterrupted} {
		s := newRealSafe(t, nil, "a", key.RootKey)
		p := at(t, "unseal", "--safe", s.socket)
		p.typesHidden(keyPrompt, 1, key.shares[0][:60])
		p.until("the prompt to read", func() bool { return p.unread() == 0 })
		check(t, p.cmd.Process.Signal(signal))
		if got, screen := p.leaves(); got != code || !s.sealed() {
			t.Errorf("%v: exit code %d, want %d; the screen shows:\n%s", signal, got, code, screen)
		}
	}
}

func TestAShareIsAsLongAsThePromptExpects(t *testing.T) {
	for _, share := range shareKey(t, 2, 2).shares {
		if len(share) != shareCharacters {
			t.Errorf("%d characters", len(share))
		}
	}
}

// shownShare finds the share on a page.
var shownShare = regexp.MustCompile(`(?s):\r\n\r\n(.*?)\r\n\r\nWrite it down`)

func onPage(t *testing.T, page string) string {
	t.Helper()
	found := shownShare.FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("no share on the page %q", page)
	}
	return strings.NewReplacer(" ", "", "\r\n", "").Replace(found[1])
}

func TestPromise01_EachShareIsShownOnceOnAScreenThatIsCleared(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TERM", "xterm")
	t.Setenv("TMPDIR", t.TempDir())
	p := at(t, "keygen", "--shares", "3", "--threshold", "2", "--out-dir", "shares")
	for i, number := range []string{"1", "2", "3"} {
		p.sees("Press Enter to show share "+number, 1)
		if published(t, "shares") {
			t.Error("the public file is there before the last holder has their share")
		}
		p.until("the echo to end", func() bool { return !p.echo() })
		p.types("noise\r")
		p.sees("Press Enter when that is done", i+1)
		p.types("\r")
	}
	code, screen := p.leaves()
	if code != exitOK || !strings.HasPrefix(screen, alternateScreen) {
		t.Fatalf("exit code %d; the screen shows %q", code, screen)
	}
	text, err := os.ReadFile("shares/" + unseal.ShareSetFile)
	check(t, err)
	set, err := unseal.ParseShareSet(text)
	check(t, err)
	var shares []unseal.Share
	for page := range strings.SplitSeq(screen, clearScreen) {
		if strings.Contains(page, "Write it down") {
			share, err := unseal.ParseShare([]byte(onPage(t, page)))
			check(t, err)
			shares = append(shares, share)
		} else {
			for _, s := range shares {
				hidesShares(t, "another page", strings.ReplaceAll(page, " ", ""), string(s.Text()))
			}
		}
	}
	if len(shares) != 3 {
		t.Fatalf("%d shares were shown", len(shares))
	}
	for _, pair := range [][]unseal.Share{shares[:2], shares[1:], {shares[2], shares[0]}} {
		if key, err := set.Combine(pair...); err != nil || key.Recipient().String() != set.Recipient().String() {
			t.Errorf("%v: %v", pair, err)
		}
	}
	// The last word on the alternate screen is that it is cleared.
	if !strings.Contains(screen, clearScreen+usualScreen) || strings.Contains(screen[strings.Index(screen, usualScreen):], "vsec m-sh") {
		t.Errorf("not cleared in the end: %q", screen)
	}
	if entries, err := os.ReadDir("shares"); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v: %v", entries, err)
	}
	if entries, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(entries) != 0 {
		t.Errorf("temporary files: %v: %v", entries, err)
	}
}

func published(t *testing.T, dir string) bool {
	t.Helper()
	_, err := os.Stat(dir + "/" + unseal.ShareSetFile)
	return err == nil
}

func TestSharesThatAreGivenUpLeaveNothing(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for name, tt := range map[string]struct {
		end  func(*person)
		code int
	}{
		"Ctrl-C":                {func(p *person) { p.types("\x03") }, exitInterrupted},
		"the end of the input":  {func(p *person) { p.types("\x04") }, exitInterrupted},
		"an end from outside":   {func(p *person) { check(p.t, p.cmd.Process.Signal(unix.SIGTERM)) }, exitTerminated},
		"the terminal goes":     {func(p *person) { check(p.t, p.cmd.Process.Signal(unix.SIGHUP)) }, 129},
		"Ctrl-\\ then Ctrl-C":   {func(p *person) { p.types("\x1c\x1a\x03") }, exitInterrupted},
		"interrupt from others": {func(p *person) { check(p.t, p.cmd.Process.Signal(unix.SIGINT)) }, exitInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			check(t, os.Mkdir("kept", 0o755))
			for _, dir := range []string{"made", "kept"} {
				p := at(t, "keygen", "--shares", "2", "--threshold", "2", "--out-dir", dir)
				p.sees("Press Enter to show share 1", 1)
				p.types("\r")
				p.sees("Press Enter when that is done", 1)
				tt.end(p)
				code, screen := p.leaves()
				if code != tt.code || !strings.Contains(screen, clearScreen+usualScreen) || !strings.Contains(screen, "the shares that were shown are of no use") {
					t.Errorf("exit code %d, want %d; the screen shows %q", code, tt.code, screen)
				}
			}
			if _, err := os.Stat("made"); err == nil {
				t.Error("a folder is left")
			}
			if entries, err := os.ReadDir("kept"); err != nil || len(entries) != 0 {
				t.Errorf("files are left: %v, %v", entries, err)
			}
		})
	}
}

func TestSharesAreNotShownWhereTheyCannotBeClearedAway(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TERM", "dumb")
	code, screen := at(t, "keygen", "--shares", "2", "--threshold", "2", "--out-dir", "shares").leaves()
	if code != exitError || !strings.Contains(screen, "cleared away") || !strings.Contains(screen, "hint: give each to its holder with --share-to") {
		t.Errorf("exit code %d; the screen shows:\n%s", code, screen)
	}
	if _, err := os.Stat("shares"); err == nil {
		t.Error("a folder is left")
	}
}

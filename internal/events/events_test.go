package events

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
)

func TestANilRecorderDrops(t *testing.T) {
	var r *Recorder
	r.Event(kube.ObjectReference{Kind: "EncryptedSecret", Namespace: "shop", Name: "db"}, true, "Unreadable", "x")
}

func TestARecorderThatDoesNotRunHoldsSoManyAndDropsTheRest(t *testing.T) {
	r := newRecorder(t, nil)
	const more = 50
	for i := range queueLength + more {
		r.Event(object("shop", fmt.Sprintf("db-%d", i)), true, "Unreadable", "x")
	}
	if got := testutil.ToFloat64(r.dropped); got != more {
		t.Errorf("dropped %v, want %d", got, more)
	}
	if n := r.recent.Len(); n > queueLength {
		t.Errorf("it remembers %d events, and holds %d", n, queueLength)
	}
}

func TestAnEndedRecorderDrops(t *testing.T) {
	r := newRecorder(t, nil)
	r.Event(object("shop", "db"), false, "Applied", "x")
	ended(t, r)
	if got := testutil.ToFloat64(r.dropped); got != 1 {
		t.Errorf("at the end: dropped %v, want what waited", got)
	}
	r.Event(object("shop", "db"), false, "Applied", "x")
	if got := testutil.ToFloat64(r.dropped); got != 2 {
		t.Errorf("after the end: dropped %v", got)
	}
}

func TestTheSameEventWaitsOnce(t *testing.T) {
	r := newRecorder(t, nil)
	for range 5 {
		r.Event(object("shop", "db"), true, "Unreadable", "key password")
	}
	if n := len(r.queue); n != 1 {
		t.Fatalf("%d wait", n)
	}
	if s := <-r.queue; s.count != 5 {
		t.Errorf("it was counted %d times", s.count)
	}
}

// No more objects, events or bytes than this are kept, whatever a repository holds.
func TestNothingGrows(t *testing.T) {
	r := newRecorder(t, nil)
	long := strings.Repeat("x", 1<<14)
	for i := range 5 * remembered {
		about := object("shop", fmt.Sprintf("db-%d", i))
		for range 3 {
			r.Event(about, true, long, fmt.Sprint(i, long))
		}
	}
	if n := r.recent.Len(); n > remembered {
		t.Errorf("it remembers %d events", n)
	}
	if n := r.limits.Len(); n > remembered {
		t.Errorf("it remembers %d objects", n)
	}
	for len(r.queue) > 0 {
		s := <-r.queue
		if len(s.reason) > maxReason || len(s.message) > maxMessage {
			t.Fatalf("a reason of %d bytes, a message of %d", len(s.reason), len(s.message))
		}
	}
}

func TestAnObjectHasABurstAndThenOneAMinute(t *testing.T) {
	now := time.Now()
	r := newRecorder(t, nil)
	r.now = func() time.Time { return now }
	tell := func(name string, n int) {
		for i := range n {
			r.Event(object("shop", name), true, "Unreadable", fmt.Sprintf("%s: fault %d", now, i))
		}
	}
	tell("noisy", 100)
	if got := len(r.queue); got != objectBurst {
		t.Errorf("%d events in a burst, want %d", got, objectBurst)
	}
	if got := testutil.ToFloat64(r.dropped); got != 100-objectBurst {
		t.Errorf("dropped %v", got)
	}
	tell("other", 1)
	if got := len(r.queue); got != objectBurst+1 {
		t.Error("one noisy object silences another")
	}
	now = now.Add(time.Minute)
	tell("noisy", 100)
	if got := len(r.queue); got != objectBurst+2 {
		t.Errorf("%d events more after a minute, want 1", got-objectBurst-1)
	}
}

func TestOneOfTheSameNameThatCameLaterIsAnother(t *testing.T) {
	r := newRecorder(t, nil)
	first, second := object("shop", "db"), object("shop", "db")
	first.UID, second.UID = "1", "2"
	r.Event(first, false, "Applied", "x")
	r.Event(second, false, "Applied", "x")
	if got := len(r.queue); got != 2 {
		t.Errorf("%d events for two objects", got)
	}
}

func TestAMessageIsOneLineThatATerminalShowsAsItIs(t *testing.T) {
	for what, c := range map[string]struct{ in, want string }{
		"plain":               {"file.yaml:3: unknown field", "file.yaml:3: unknown field"},
		"lines":               {"first\nsecond\r\n\tthird\n", "first second third"},
		"a terminal's orders": {"a\x1b[2J\x1b]0;title\x07b", "a [2J ]0;title b"},
		"C1 controls":         {"a\u009b31mb", "a 31mb"},
		"turned writing":      {"a\u202egnp.exe\u2066b", "a gnp.exe b"},
		"line separators":     {"a\u2028b\u2029c\u0085d", "a b c d"},
		"nothing to see":      {"a\u200b\ufeffb", "a b"},
		"not UTF-8":           {"a\xff\xfeb", "a b"},
		"NUL":                 {"a\x00b", "a b"},
		"other writing":       {"naïve 密码 🔑", "naïve 密码 🔑"},
		"empty":               {"", ""},
		"only controls":       {"\n\r\t\x1b", ""},
		"just fits":           {strings.Repeat("x", maxMessage), strings.Repeat("x", maxMessage)},
		"one too many":        {strings.Repeat("x", maxMessage+1), strings.Repeat("x", maxMessage-3) + "…"},
		"whole characters":    {strings.Repeat("密", 400), strings.Repeat("密", 340) + "…"},
		"just fits after all": {strings.Repeat("x", maxMessage) + "\n", strings.Repeat("x", maxMessage)},
	} {
		if got := line(c.in, maxMessage); got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, seed := range []string{"", "a b", "a\x1b[2J", strings.Repeat("密 ", 600), "\xff", strings.Repeat(" ", 2000) + "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := line(text, maxMessage)
		if len(got) > maxMessage || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid: %v", len(got), utf8.ValidString(got))
		}
		for _, c := range got {
			if !unicode.IsPrint(c) {
				t.Errorf("%q holds %U", got, c)
			}
		}
		if again := line(got, maxMessage); again != got {
			t.Errorf("made a line again, %q is %q", got, again)
		}
	})
}

func TestNamesAreUniqueAndNotTooLong(t *testing.T) {
	seen := map[string]bool{}
	for _, object := range []string{"db", "", strings.Repeat("a", 253), strings.Repeat("a", 235) + "." + strings.Repeat("b", 10)} {
		for range 100 {
			name := newName(object)
			if seen[name] || len(name) > 253 || strings.Contains(name, "..") {
				t.Fatalf("%q", name)
			}
			seen[name] = true
		}
	}
}

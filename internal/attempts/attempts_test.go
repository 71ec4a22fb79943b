package attempts

import (
	"fmt"
	"testing"
	"time"
)

func TestAttemptsAreCountedForEachCaller(t *testing.T) {
	a := New(time.Second, 3, 2)
	now := time.Now()
	take := func(caller string, want bool) {
		t.Helper()
		if left := a.Left(caller, now); left != want {
			t.Errorf("%s has one left: %v", caller, left)
		}
		if got := a.Take(caller, now); got != want {
			t.Errorf("%s: %v", caller, got)
		}
	}
	for _, caller := range []string{"a", "b"} {
		for range 3 {
			take(caller, true)
		}
		take(caller, false)
	}
	now = now.Add(time.Second)
	take("a", true)
	take("a", false)
	now = now.Add(time.Minute)
	for range 3 { // and no more than all
		take("a", true)
	}
	take("a", false)
}

func TestCallersForWhomThereIsNoRoomShareTheAttemptsOfOne(t *testing.T) {
	a := New(time.Second, 3, 2)
	now := time.Now()
	for range 3 {
		a.Take("a", now)
		a.Take("b", now)
	}
	taken := 0
	for i := range 100 {
		caller := fmt.Sprint("other-", i)
		left := a.Left(caller, now)
		if a.Take(caller, now) {
			taken++
		} else if left {
			t.Errorf("%s has one left, and has not", caller)
		}
	}
	if taken != 3 {
		t.Errorf("%d attempts of those for whom there is no room", taken)
	}
	// Nobody who has spent theirs is forgotten for them.
	if a.Take("a", now) || a.Take("b", now) {
		t.Error("one was forgotten")
	}
	// Who has all of them again need not be remembered.
	now = now.Add(3 * time.Second)
	if !a.Take("c", now) || !a.Spent("c", now) || len(a.callers) > 2 {
		t.Errorf("%d callers are remembered", len(a.callers))
	}
}

func TestAnAttemptThatWasNoneIsGivenBack(t *testing.T) {
	a := New(time.Second, 2, 1)
	now := time.Now()
	for range 100 {
		if !a.Take("a", now) {
			t.Fatal("it counted")
		}
		a.Give("a", now)
	}
	if a.Spent("a", now) {
		t.Error("it is spent")
	}
	a.Give("a", now) // one that was not taken is none too many
	for range 3 {
		a.Take("a", now)
	}
	if a.Left("a", now) || !a.Spent("a", now) {
		t.Error("three of two were taken")
	}
}

func TestAnAddressIsWhatOneCallerHas(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234":             "192.0.2.7",
		"[::ffff:192.0.2.7]:1":       "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:443": "2001:db8:1:2::/64",
		"[2001:db8:1:2::9]:443":      "2001:db8:1:2::/64",
		"[fe80::1%eth0]:443":         "fe80::/64",
		"[::1]:9":                    Loopback,
		"127.0.0.1:9":                Loopback,
		"[::ffff:127.0.0.1]:9":       Loopback,
		"@":                          "@",
	} {
		if got := From(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

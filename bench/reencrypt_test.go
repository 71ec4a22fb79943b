package main

import "testing"

// What is compared opens and seals the very values of the repository.
func TestTheBareLoopOpensEveryValue(t *testing.T) {
	r, err := newRekeyed(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if took, err := r.bare(); err != nil || took <= 0 {
		t.Errorf("%s, %v", took, err)
	}
	r.sealed[1][len(r.sealed[1])-1] ^= 1
	if _, err := r.bare(); err == nil {
		t.Error("a damaged value was passed over")
	}
}

package rootkey

import "testing"

// Whoever was unsealed with the new key alone may finish, and the others hold the old one no longer.
func TestFinishingDestroysAnOldKeyThatOnlyOthersHold(t *testing.T) {
	s := newSecretSite(t, cluster.Start(t))
	whole := given(t, s, memory)
	whole.stages(keyNew)
	whole.starts(keyNew)
	half := newRig(t, s.place(), mode(memory)).run()
	half.settled()
	half.wrong = true // it says that it lacks the old one
	if err := half.unseal(keyNew, idOf(keyNew)); err != nil {
		t.Fatal(err)
	}
	half.ring(keyNew)
	whole.ring(keyNew, keyA)
	if err := half.keeper.FinishRekey(t.Context(), idOf(keyA), idOf(keyNew)); err != nil {
		t.Fatal(err)
	}
	whole.untilRing(keyNew)
	half.ring(keyNew)
}

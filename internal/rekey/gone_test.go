package rekey_test

import (
	"context"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/reconcile"
	"github.com/vsecm/kubectl-vsecm/internal/rekey"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

// A replica that was unsealed with the new key alone does not hold the old one, which others do, and which values need.
func TestTheOldKeyIsNeededWhetherItIsHeldHereOrNot(t *testing.T) {
	r := newRig(t)
	fresh, err := unseal.Parse(r.freshT)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := unseal.NewKeyring(fresh)
	if err != nil {
		t.Fatal(err)
	}
	r.gate.Open(ring)
	going := r.oldR.KeyID()
	stored := []*v1alpha1.EncryptedSecret{r.one("db", "", r.oldR), r.one("api", "", r.freshR), r.one("glass", "", r.foreign)}
	checker := rekey.New(rekey.Config{
		Keys:  r.gate,
		Going: func() encrypt.KeyID { return going },
		Stored: func(context.Context) ([]*v1alpha1.EncryptedSecret, []rekey.Need, error) {
			return stored, nil, nil
		},
		Heads: func(context.Context, func(string, encrypt.Manifest)) ([]reconcile.Head, error) { return nil, nil },
	})
	report, err := checker.Check(t.Context())
	if err != nil || !report.Blocked() || report.NeedCount != 1 || report.Opened != 1 || report.UnreadableCount != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	equal(t, "needs", lines(report.Needs), " :0 shop/db/k 1")
	// Without a re-key it is a foreign key.
	going = ""
	if report, err := checker.Check(t.Context()); err != nil || report.Blocked() || report.UnreadableCount != 2 {
		t.Errorf("%+v, %v", report, err)
	}
}

// To read git takes its time: what is applied, changed or found damaged meanwhile counts, and what stays counts once.
func TestWhatIsAppliedWhileGitIsReadCounts(t *testing.T) {
	r := newRig(t)
	before := []*v1alpha1.EncryptedSecret{
		object("two", "", map[string]string{"k": r.seal("two", r.now, r.freshR), "old": "aGVsbG8="}), r.one("db", "", r.freshR), r.one("bad", "", r.oldR),
	}
	// The same sealed value twice, of which one is out of its place.
	copied := object("copy", "", map[string]string{"k": before[1].Spec.EncryptedData["k"]})
	before = append(before, copied)
	r.stored, r.storedFaults = before, []rekey.Need{{Name: "broken", Why: "it is"}}
	r.whileReading = func() {
		changed := object("db", "", map[string]string{"k": r.seal("db", r.now, r.oldR)})
		r.stored = []*v1alpha1.EncryptedSecret{before[0].DeepCopy(), changed, before[2].DeepCopy(), copied, r.one("new", "", r.oldR)}
		r.storedFaults = append(r.storedFaults, rekey.Need{Name: "worse", Why: "it is"})
	}
	got := r.check()
	if got.NeedCount != 5 || got.Opened != 2 || got.UnreadableCount != 2 || got.BySource[""] != 5 {
		t.Errorf("%+v", got)
	}
	equal(t, "needs", lines(got.Needs), " :0 /broken/ 0", " :0 /worse/ 0", " :0 shop/bad/k 1", " :0 shop/db/k 1", " :0 shop/new/k 1")
	r.whileReading = nil
	r.stored, r.storedFaults = before[:2], nil
	if got := r.check(); got.Blocked() || got.Opened != 2 || got.UnreadableCount != 1 {
		t.Errorf("at rest: %+v", got)
	}
}

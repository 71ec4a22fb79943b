package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

type rekeyAbortOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	follow  time.Duration
}

func (o rekeyAbortOptions) run(ctx context.Context) error {
	ctx, all, done, err := o.safe.openWithin(ctx, rekeyTimeout+o.follow, adminAccount)
	if err != nil {
		return err
	}
	defer done()
	f := survey(ctx, all)
	if err := f.usable(); err != nil {
		return err
	}
	var answer struct {
		Rekey rekeyRecord `json:"rekey"`
	}
	_, err = f.anyone(ctx, rekeyCall{Do: "abort"}.text(), &answer)
	if refusedAs(err) == problem.NoRekey {
		return errNoRekey
	}
	if err != nil {
		return err
	}
	if now := answer.Rekey; now.From == "" || now.To == "" || !isKeyID(string(now.From)) || !isKeyID(string(now.To)) {
		return errors.New("what Safe answered makes no sense: see 'kubectl vsecm rekey status'")
	}
	behind := f.follow(ctx, o.follow, activeIs(f, answer.Rekey.To))
	f.tellSealed(o.streams.ErrOut)
	o.safe.tellMissed(o.streams.ErrOut, all, all.shown())
	fmt.Fprintf(o.streams.Out, "root key %s is the active one again; %s is kept\n", answer.Rekey.To, answer.Rekey.From)
	prose(o.streams.ErrOut, "note: rewrite what was sealed to %s with 'kubectl vsecm reencrypt', then 'kubectl vsecm rekey finish' destroys it", answer.Rekey.From)
	return errors.Join(append(behind, f.errs...)...)
}

// activeIs is to be followed: every replica has this active key.
func activeIs(f *fleet, id encrypt.KeyID) func(context.Context, int, rekeyState) error {
	return func(_ context.Context, i int, st rekeyState) error {
		if st.Active.KeyID == id {
			return nil
		}
		return withHint(fmt.Errorf("%s: its active key is still %s", f.all.replicas[i].name, st.Active.KeyID), "give it key %s with 'kubectl vsecm unseal'", id)
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

type rekeyStartOptions struct {
	streams  genericiooptions.IOStreams
	safe     safeFlag
	key      keyFlags
	backup   rekeyBackup
	noBackup bool

	patience time.Duration // of each call
	follow   time.Duration
}

func newRekeyStart(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := rekeyStartOptions{
		streams: streams, safe: safeFlag{conn: conn}, backup: newRekeyBackup(streams),
		patience: rekeyTimeout, follow: rekeyFollow,
	}
	cmd := &cobra.Command{
		Use:   "start (--backup FILE --to RECIPIENT | --no-backup) [flags]",
		Short: "Make a new root key the active one, and keep the old",
		Long: `Make a new root key the active one, publish its recipient, and print it. The old
key is kept: whatever is sealed to it still opens, and nothing has to be done in
a hurry.

A backup of every secret is written first, as 'kubectl vsecm backup' does, or is
declined with --no-backup. A backup that FILE has already is replaced once the
new one is whole.

Safe makes the new key itself, of the same kind as the old one. A key of your
own comes from --root-key, or from --shares and --share; age files are opened
with -i, or their passphrase is asked for. A Safe that keeps its key in memory
alone needs one: make it with 'kubectl vsecm keygen', and keep it where the old
one was kept, for every restart of Safe needs it. It is handed to each replica
over its own connection; unless all of them take it, nothing changes.

Where a re-key to the same key is under way, or no key is given, the command
brings along the replicas that do not follow yet, and changes nothing else.

Exit codes: 0 the new key is active on every replica that is unsealed; 1 error:
it says so where the re-key has begun all the same; 130 interrupted.`,
		Example: `  kubectl vsecm rekey start --backup before.age --to age1…

  # Where Safe keeps its key in memory alone
  kubectl vsecm keygen -o new-root-key.txt
  kubectl vsecm rekey start --root-key new-root-key.txt --no-backup

  # The new key was made in shares
  kubectl vsecm rekey start --no-backup --shares new/vsecm-shares.yaml \
    --share alice.share.age --share bob.share.age -i ours.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				// It may be the key.
				return withHint(errors.New("rekey start takes no arguments"), "a key of your own comes from --root-key, or from --shares and --share, never from the command line")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&o.key.rootKey, "root-key", "", "Re-key to the root key in this `FILE`, or - for standard input")
	o.key.addSharesTo(cmd)
	cmd.Flags().StringArrayVarP(&o.key.identities, "identity", "i", nil, "Open age files of the key or its shares with the identities in this `FILE`. May be repeated")
	o.backup.addTo(cmd)
	cmd.Flags().BoolVar(&o.noBackup, "no-backup", false, "Write no backup")
	o.safe.addTo(cmd)
	return cmd
}

func (o *rekeyStartOptions) check() error {
	switch {
	case o.noBackup && o.backup.given():
		return errors.New("--no-backup excludes --backup")
	case !o.noBackup && !o.backup.given():
		return withHint(errors.New("a re-key begins with a backup"), "name its file with --backup and who may open it with --to; or say --no-backup")
	case len(o.key.identities) > 0 && o.key.rootKey == "" && !o.key.ofShares():
		return errors.New("-i opens what --root-key or --share names, and neither is given")
	}
	return errors.Join(o.key.check(), o.backup.check())
}

// newKey reads the key that was given, the caller's to wipe; nil where there is none.
func (o *rekeyStartOptions) newKey() (*unseal.RootKey, error) {
	if o.key.rootKey == "" && !o.key.ofShares() {
		return nil, nil
	}
	held, err := o.key.open(o.streams)
	if err != nil {
		return nil, err
	}
	if len(held.own) != 1 {
		held.wipe()
		return nil, fmt.Errorf("%s: %d root keys, where one is expected", inputName(o.key.rootKey), len(held.own))
	}
	return held.own[0], nil
}

func (o rekeyStartOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	key, err := o.newKey()
	if err != nil {
		return err
	}
	if key != nil {
		defer key.Wipe()
	}
	f, err := o.find(ctx)
	if err != nil {
		return err
	}
	defer func() { f.all.close() }()
	if err := o.ready(f, key); err != nil {
		return err
	}
	if under := f.record(); under != nil {
		prose(o.streams.ErrOut, "note: %s; no backup is written for it again", under.String()+", is under way")
	} else if o.backup.given() {
		if err := o.backup.run(ctx, o.safe); err != nil {
			return fmt.Errorf("%w\nthe re-key has not begun", err)
		}
		// It may have taken long: replicas come and go, and tokens end.
		f.all.close()
		again, err := o.find(ctx)
		if err != nil {
			return err
		}
		f = again
		if err := o.ready(f, key); err != nil {
			return err
		}
	}
	return o.begin(ctx, f, key)
}

// find asks every replica how it fares.
func (o rekeyStartOptions) find(ctx context.Context) (*fleet, error) {
	ctx, cancel, err := o.safe.conn.within(ctx, o.patience)
	if err != nil {
		return nil, err
	}
	defer cancel()
	all, err := o.safe.open(ctx, adminAccount)
	if err != nil {
		return nil, err
	}
	f := survey(ctx, all)
	if err := f.usable(); err != nil {
		all.close()
		return nil, err
	}
	return f, nil
}

// ready says what keeps a re-key from beginning, before anything is done for it.
func (o rekeyStartOptions) ready(f *fleet, key *unseal.RootKey) error {
	under := f.record()
	switch {
	case under != nil && under.Aborted:
		return withHint(fmt.Errorf("%s, was aborted, and has to end first", under), "'kubectl vsecm rekey status' shows what is left, and 'kubectl vsecm rekey finish' ends it")
	case under != nil && key != nil && key.KeyID() != under.To:
		return withHint(fmt.Errorf("%s, is under way, and the key given is %s", under, key.KeyID()), "see to that one first: 'kubectl vsecm rekey status'")
	case key != nil && under == nil:
		if err := fresh(f, key); err != nil {
			return err
		}
	}
	if !f.memory() {
		return nil
	}
	if key == nil && under == nil {
		return withHint(errors.New("this Safe keeps its root key in memory alone, and needs to be given the new one"),
			"make one with 'kubectl vsecm keygen -o FILE', keep it safe, and name it with --root-key")
	}
	// A replica that is not reached would go on with the old key alone.
	if err := errors.Join(f.errs...); err != nil {
		return fmt.Errorf("%w\nnothing was changed: every replica has to take the new key", err)
	}
	if missed := o.safe.missed(f.all, f.all.shown()); len(missed) > 0 {
		return withHint(fmt.Errorf("--safe does not lead to %s, and every replica has to take the new key: nothing was changed", strings.Join(missed, ", ")), "name all of them with --safe, or leave it out")
	}
	return nil
}

// fresh tells whether a key may take the place of the one that there is.
func fresh(f *fleet, key *unseal.RootKey) error {
	for _, i := range f.unsealed() {
		r, st := f.all.replicas[i], f.keys[i]
		active, err := encrypt.ParseRecipient(st.Active.Recipient)
		switch {
		case st.Active.KeyID == key.KeyID():
			return withHint(fmt.Errorf("%s: root key %s is the active one already", r.name, key.KeyID()), "make a new one with 'kubectl vsecm keygen'")
		case slices.Contains(st.Retired, key.KeyID()):
			return withHint(fmt.Errorf("%s: root key %s was replaced before", r.name, key.KeyID()), "make a new one with 'kubectl vsecm keygen'")
		case err == nil && active.Hybrid() != key.Recipient().Hybrid():
			return withHint(fmt.Errorf("%s: the key given is %s, and the active one is %s: age does not mix them, and neither can a repository", r.name, kindOf(key.Recipient()), kindOf(active)),
				"make one of the same kind: 'kubectl vsecm keygen', for a classic one with --classic")
		}
	}
	return nil
}

func kindOf(r encrypt.Recipient) string {
	if r.Hybrid() {
		return "hybrid"
	}
	return "classic"
}

// begin hands the key out, has one replica begin, and sees that the others follow.
func (o rekeyStartOptions) begin(ctx context.Context, f *fleet, key *unseal.RootKey) error {
	handOut := key != nil && f.memory()
	if handOut {
		if err := o.stage(ctx, f, key); err != nil {
			return err
		}
	}
	body := keyCall("start", key)
	defer clear(body)
	var answer struct {
		Rekey rekeyRecord `json:"rekey"`
		Began bool        `json:"began"`
	}
	unsure, err := f.anyone(ctx, body, &answer)
	switch {
	case err != nil && unsure:
		return withHint(fmt.Errorf("%w\nwhether the re-key has begun is not known", err), "say it again: it completes what has begun; 'kubectl vsecm rekey status' shows it")
	case err != nil:
		if handOut {
			o.unstage(ctx, f)
		}
		return o.advise(fmt.Errorf("%w\nnothing was changed", err))
	}
	if answer.Rekey.Aborted || key != nil && answer.Rekey.To != key.KeyID() || answer.Rekey.From == "" || !isKeyID(string(answer.Rekey.From)) || !isKeyID(string(answer.Rekey.To)) {
		return errors.New("somebody else has begun or ended a re-key meanwhile: see 'kubectl vsecm rekey status'")
	}
	return o.conclude(ctx, f, key, answer.Rekey, answer.Began)
}

// stage gives the key to every replica that is unsealed, or, unless all take it, to none.
func (o rekeyStartOptions) stage(ctx context.Context, f *fleet, key *unseal.RootKey) error {
	errs := f.all.each(func(i int, r *replica) error {
		if f.seal[i].State != unsealed || f.keys[i].Active.KeyID == key.KeyID() {
			return nil
		}
		return o.stageOne(ctx, r, key)
	})
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	o.unstage(ctx, f)
	return o.advise(fmt.Errorf("%w\nnothing was changed: every replica has to take the new key", err))
}

func (o rekeyStartOptions) stageOne(ctx context.Context, r *replica, key *unseal.RootKey) error {
	ctx, cancel, err := o.safe.conn.within(ctx, o.patience)
	if err != nil {
		return err
	}
	defer cancel()
	body := keyCall("stage", key)
	defer clear(body)
	var answer struct {
		KeyID encrypt.KeyID `json:"keyID"`
	}
	if err := r.rekeys(ctx, body, &answer); err != nil {
		return err
	}
	if answer.KeyID != key.KeyID() {
		return fmt.Errorf("%s: its answer is not Safe's", r.name)
	}
	return nil
}

// unstage takes the key back, also from those of whom it is not known whether they have it. Who is not reached
// drops it by itself.
func (o rekeyStartOptions) unstage(ctx context.Context, f *fleet) {
	errs := f.all.each(func(i int, r *replica) error {
		if f.seal[i].State != unsealed {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(o.patience, connectWait))
		defer cancel()
		return r.rekeys(ctx, rekeyCall{Do: "unstage"}.text(), nil)
	})
	for i, err := range errs {
		if err != nil && refusedAs(err) != problem.Sealed {
			prose(o.streams.ErrOut, "note: %s may hold the key that was given for 15 minutes more; it does nothing with it", f.all.replicas[i].name)
		}
	}
}

func (o rekeyStartOptions) advise(err error) error {
	switch refusedAs(err) {
	case problem.OtherRekey:
		return withHint(err, "somebody else began one: 'kubectl vsecm rekey status' shows it")
	case problem.NotStaged:
		return withHint(err, "somebody else has taken it back meanwhile: agree on who does it, and say it again")
	}
	return err
}

// conclude waits for the replicas, and says what is next.
func (o rekeyStartOptions) conclude(ctx context.Context, f *fleet, key *unseal.RootKey, now rekeyRecord, began bool) error {
	recipient := ""
	active := activeIs(f, now.To)
	recipients := make([]string, len(f.all.replicas))
	stop := tellWaiting(o.streams, "waiting for every replica to take key "+string(now.To))
	behind := f.follow(ctx, o.follow, func(ctx context.Context, i int, st rekeyState) error {
		err := active(ctx, i, st)
		switch {
		case err == nil:
			recipients[i] = st.Active.Recipient
		case key != nil && st.Store == inMemory && !slices.Contains(st.Staged, now.To):
			// Somebody else took it back in between.
			if failed := o.stageOne(ctx, f.all.replicas[i], key); failed != nil {
				err = errors.Join(err, failed)
			}
		}
		return err
	})
	stop()
	for _, r := range recipients {
		if r != "" {
			recipient = r
		}
	}
	note := func(format string, args ...any) {
		prose(o.streams.ErrOut, "note: "+format, args...)
	}
	if began {
		note("the re-key has begun: from %s to %s", now.From, now.To)
	}
	f.tellSealed(o.streams.ErrOut)
	o.safe.tellMissed(o.streams.ErrOut, f.all, f.all.shown())
	if recipient != "" {
		fmt.Fprintln(o.streams.Out, recipient)
	}
	if err := errors.Join(append(behind, f.errs...)...); err != nil {
		return fmt.Errorf("%w\nthe re-key has begun, and not every replica has followed", err)
	}
	note("put this recipient into .vsecm.yaml in place of the old one, and %s under retiredKeys", now.From)
	note("then 'kubectl vsecm reencrypt PATH…', commit and push; 'kubectl vsecm rekey status' shows what is left")
	note("'kubectl vsecm rekey finish' destroys the old key; 'kubectl vsecm rekey abort' goes back")
	return nil
}

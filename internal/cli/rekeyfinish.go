package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// noArchive is what Safe is told where the old key is not to be archived.
const noArchive = "none"

type rekeyFinishOptions struct {
	streams    genericiooptions.IOStreams
	safe       safeFlag
	archive    keyArchive
	noArchive  bool
	force      bool
	forceKeyID string

	leaderWait time.Duration
	follow     time.Duration
}

func newRekeyFinish(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := rekeyFinishOptions{streams: streams, safe: safeFlag{conn: conn}, leaderWait: leaderWait, follow: rekeyFollow}
	cmd := &cobra.Command{
		Use:   "finish (--archive FILE --archive-to … | --no-archive)",
		Short: "Archive and destroy the old root key",
		Long: `Archive the old root key, and have Safe destroy it.

Safe first opens every value that is stored, and every value at the head of
every git source, with the new key alone. While one does not open so, or a
source cannot be read, nothing is destroyed: what is in the way is listed, with
file and line.

The old key is written to FILE, encrypted to the recipients of --archive-to,
before it is destroyed: an old file may come back one day, from a branch or a
backup. 'age -d' opens FILE. If FILE is there already, from an attempt that did
not end, it is kept under the next free name, FILE.1 and so on.

--force destroys the old key all the same, and with it what needs it. Its key id
is to be typed on a terminal; --force-key-id is for scripts.

If it is repeated after the end, it says so, and does nothing.

Exit codes: 0 the old key is destroyed, or there is none; 1 error; 2 something
still needs it, and nothing was destroyed; 130 interrupted.`,
		Example: `  kubectl vsecm rekey finish --archive old-key.age --archive-to age1…

  # Nobody is ever to open what was sealed to the old key
  kubectl vsecm rekey finish --no-archive`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.archive.addTo(cmd)
	cmd.Flags().BoolVar(&o.noArchive, "no-archive", false, "Keep no copy of the old key")
	cmd.Flags().BoolVar(&o.force, "force", false, "Destroy the old key although something needs it; asks for its key id")
	cmd.Flags().StringVar(&o.forceKeyID, "force-key-id", "", "The same for scripts: the `ID` of the key to destroy")
	_ = cmd.RegisterFlagCompletionFunc("force-key-id", cobra.NoFileCompletions)
	o.safe.addTo(cmd)
	return cmd
}

func (o *rekeyFinishOptions) check() error {
	switch {
	case o.noArchive && o.archive.given():
		return errors.New("--no-archive excludes --archive and --archive-to")
	case !o.noArchive && !o.archive.given():
		return withHint(errors.New("the old key is archived before it is destroyed"), "name a file with --archive and who may open it with --archive-to; or say --no-archive")
	case o.force && o.forceKeyID != "":
		return errors.New("--force asks for the key id that --force-key-id gives: they exclude each other")
	case o.forceKeyID != "" && !isKeyID(o.forceKeyID):
		return errors.New("--force-key-id: not a key id: want 32 hex digits")
	case o.noArchive:
		return nil
	}
	return o.archive.check()
}

func (o rekeyFinishOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	checking, all, done, err := o.safe.openWithin(ctx, checkTimeout, adminAccount)
	if err != nil {
		return err
	}
	defer done()
	f := survey(checking, all)
	if err := f.usable(); err != nil {
		return err
	}
	now := f.record()
	if now == nil {
		return o.nothing(f)
	}
	if f.behind(*now) {
		return withHint(errors.Join(append(f.lagging(*now), errors.New("nothing was destroyed"))...), "'kubectl vsecm rekey start' with the same key brings them along, or 'kubectl vsecm unseal'")
	}
	force, err := o.blockers(checking, f, *now)
	if err != nil {
		return err
	}
	return o.destroy(ctx, f, *now, force)
}

// nothing is said where there is no re-key. It is what a repetition finds whose first attempt ended.
func (o rekeyFinishOptions) nothing(f *fleet) error {
	if err := errors.Join(f.errs...); err != nil {
		return err
	}
	// Its id tells whoever asks the Safe of another cluster than the one that they mean.
	fmt.Fprintf(o.streams.Out, "no re-key is under way: there is no old root key to destroy; %s is the active one\n", f.keys[f.unsealed()[0]].Active.KeyID)
	return nil
}

// lagging says which replicas do not have the new key yet.
func (f *fleet) lagging(now rekeyRecord) []error {
	var errs []error
	for _, i := range f.unsealed() {
		if id := f.keys[i].Active.KeyID; id != now.To {
			errs = append(errs, fmt.Errorf("%s: its active key is still %s", f.all.replicas[i].name, id))
		}
	}
	return errs
}

// blockers has Safe look for what needs the old key. If there is something, it is listed, and somebody has to
// insist.
func (o rekeyFinishOptions) blockers(ctx context.Context, f *fleet, now rekeyRecord) (force bool, err error) {
	report, err := rekeyStatusOptions{streams: o.streams, leaderWait: o.leaderWait}.check(ctx, f)
	if err != nil {
		return false, err
	}
	if !report.blocked() {
		return false, nil
	}
	if err := report.print(o.streams.ErrOut); err != nil {
		return false, err
	}
	return true, o.insist(now)
}

// insist demands the id of the key that is destroyed although something needs it.
func (o rekeyFinishOptions) insist(now rekeyRecord) error {
	typed := o.forceKeyID
	switch {
	case o.force:
		t, done, err := anyTerminal(o.streams)
		if err != nil {
			return withHint(errors.New("--force asks for a key id, and there is no terminal to ask on; nothing was destroyed"), "in a script, say --force-key-id")
		}
		defer done()
		if typed, err = t.ask(fmt.Sprintf("what is listed is lost with root key %s. Its whole key id, to destroy it: ", short(string(now.From)))); err != nil {
			return err
		}
	case typed == "":
		prose(o.streams.ErrOut, "note: root key %s is still needed; nothing was destroyed", now.From)
		return errSomeLeft
	}
	if typed != string(now.From) {
		return errors.New("that is not the id of the key that would be destroyed; nothing was destroyed")
	}
	return nil
}

// destroy archives the old key, and has it destroyed.
func (o rekeyFinishOptions) destroy(ctx context.Context, f *fleet, now rekeyRecord, force bool) error {
	f.renew()
	archived := noArchive
	if !o.noArchive && f.nothingRetired() {
		if f.memory() { // nothing has destroyed it there: they were unsealed without it
			return withHint(fmt.Errorf("no replica holds root key %s, which was to be archived; nothing was destroyed", now.From),
				"give it to one of them with 'kubectl vsecm unseal'; or, where it is kept already or gone for good, say --no-archive")
		}
		// Where keys are in files, a Safe that died between the last two steps has destroyed the key already.
		prose(o.streams.ErrOut, "note: Safe does not hold root key %s any more: an attempt that did not end has destroyed it, and there is nothing left to archive", now.From)
	} else if !o.noArchive {
		writing, cancel, err := o.safe.conn.within(ctx, 2*rekeyTimeout)
		if err != nil {
			return err
		}
		defer cancel()
		archived, err = o.archive.write(writing, f, now, o.streams.ErrOut)
		if err != nil {
			return fmt.Errorf("%w\nnothing was destroyed", err)
		}
	}
	ending, cancel, err := o.safe.conn.within(ctx, checkTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	var answer struct {
		Finished bool         `json:"finished"`
		Report   *rekeyReport `json:"report"`
	}
	body := rekeyCall{Do: "finish", From: now.From, To: now.To, Archive: archived, Force: force}.text()
	stop := tellWaiting(o.streams, "waiting for Safe to open every value with the new key")
	err = f.leader(ending, o.leaderWait, body, &answer)
	stop()
	if err != nil && !o.over(ctx, f, now, err) {
		if errors.Is(err, errUnreachable) {
			return withHint(fmt.Errorf("%w\nwhether the old key is destroyed is not known", err), "say it again: it completes what has begun")
		}
		return err
	}
	if err == nil && !answer.Finished {
		if answer.Report != nil {
			if err := answer.Report.print(o.streams.ErrOut); err != nil {
				return err
			}
		}
		prose(o.streams.ErrOut, "note: root key %s is needed again; nothing was destroyed", now.From)
		return errSomeLeft
	}
	behind := f.follow(ending, o.follow, func(_ context.Context, i int, st rekeyState) error {
		if slices.Contains(st.Retired, now.From) {
			return fmt.Errorf("%s: it still holds root key %s", f.all.replicas[i].name, now.From)
		}
		return nil
	})
	f.tellSealed(o.streams.ErrOut)
	o.safe.tellMissed(o.streams.ErrOut, f.all, f.all.shown())
	fmt.Fprintf(o.streams.Out, "root key %s is destroyed; %s is the only one\n", now.From, now.To)
	o.noteProject(now)
	return errors.Join(append(behind, f.errs...)...)
}

// noteProject warns of a project file here that has new values sealed to a key that nobody has any more.
func (o rekeyFinishOptions) noteProject(now rekeyRecord) {
	p, err := findProject()
	if err != nil {
		return // whatever is wrong with it, the key is destroyed
	}
	byRule, _ := p.recipientsByRule()
	for _, rs := range byRule {
		if slices.ContainsFunc(rs, func(r encrypt.Recipient) bool { return r.KeyID() == now.From }) {
			prose(o.streams.ErrOut, "note: %s names the recipient of the key that is destroyed still: what is sealed to it from now on opens nowhere", encrypt.ProjectFile)
			return
		}
	}
}

// nothingRetired tells whether no replica that can be asked holds another key than the active one.
func (f *fleet) nothingRetired() bool {
	for _, i := range f.unsealed() {
		if len(f.keys[i].Retired) > 0 {
			return false
		}
	}
	return errors.Join(f.errs...) == nil
}

// over tells, of a finish that went wrong, whether it has happened all the same: an answer may be lost.
func (o rekeyFinishOptions) over(ctx context.Context, f *fleet, was rekeyRecord, err error) bool {
	if refusedAs(err) != problem.NoRekey && !anotherMayDo(err) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, rekeyTimeout)
	defer cancel()
	for _, i := range f.unsealed() {
		st, err := f.all.replicas[i].rekeyState(ctx)
		if err == nil {
			return st.Rekey == nil && st.Active.KeyID == was.To && !slices.Contains(st.Retired, was.From)
		}
	}
	return false
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

const statusTimeout = 30 * time.Second

type statusOptions struct {
	streams genericiooptions.IOStreams
	safe    safeFlag
	output  outputFlag

	source  string // show this one alone: NAMESPACE/NAME
	leaders bool   // of sources, show what the replica that leads says

	watch    bool
	interval time.Duration
}

// A status is what a replica answers of itself.
type status struct {
	Version    string         `json:"version"`
	Replica    string         `json:"replica"`
	Leader     string         `json:"leader"`
	Leads      bool           `json:"leads"`
	State      string         `json:"state"`
	Input      string         `json:"input"`
	Store      string         `json:"store"`
	KeyID      string         `json:"keyID"`
	Reason     string         `json:"reason"`
	Progress   progress       `json:"progress"`
	Ceremonies []progress     `json:"ceremonies"`
	Synced     bool           `json:"synced"`
	Unreadable []string       `json:"unreadable"`
	SVID       *statusSVID    `json:"svid"`
	Sources    []sourceStatus `json:"sources"`
}

type statusSVID struct {
	NotAfter time.Time `json:"notAfter"`
}

// A sourceStatus is how a replica, or a GitSource's own status, says that a source fares.
type sourceStatus struct {
	Source           string                  `json:"source"`
	URL              string                  `json:"url"`
	Branch           string                  `json:"branch"`
	Revision         string                  `json:"revision,omitempty"`
	AppliedAt        time.Time               `json:"appliedAt,omitzero"`
	Seen             string                  `json:"seen,omitempty"`
	LastSuccess      time.Time               `json:"lastSuccess,omitzero"`
	Error            string                  `json:"error,omitempty"`
	ErrorReason      string                  `json:"errorReason,omitempty"`
	Objects          int                     `json:"objects"`
	Faults           statusList[statusFault] `json:"faults"`
	Warnings         statusList[statusFault] `json:"warnings"`
	Skips            statusList[statusSkip]  `json:"skips"`
	PendingDeletions statusList[string]      `json:"pendingDeletions"`
	DeletionsWait    string                  `json:"deletionsWait,omitempty"`

	// object is the GitSource that this is of; nil if it is what a replica says.
	object *listedSource
}

// A statusList is the beginning of a list and how long all of it is.
type statusList[T any] struct {
	Total int `json:"total"`
	Items []T `json:"items,omitempty"`
}

// A statusSkip is a path that is not read.
type statusSkip struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

type statusFault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// errSealed says that a replica is sealed, which its status has shown already.
var errSealed = errors.New("sealed")

func newStatus(streams genericiooptions.IOStreams, conn *connection) *cobra.Command {
	o := statusOptions{streams: streams, safe: safeFlag{conn: conn}, output: outputFlag{forms: []string{"wide", "json", "yaml", formJSONPath}}}
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show how Safe and its git sources fare",
		Long: `Show how each replica of Safe fares: whether it is sealed, whether it leads the
others, which root key it has or needs, how many shares of it were given, and
until when its SVID is valid; how the git sources fare: the revision that was
applied, and what keeps manifests from being delivered, with file, line and
field; and how many EncryptedSecrets did not arrive, and why. The first line
says it all in short.

Sources and EncryptedSecrets are read in your own name where you may list those
of all namespaces; else Safe tells of the sources.

A terminal that is too narrow for a table is not shown all of its columns; a
file, a pipe and -o wide are.

--watch shows it again and again, until Ctrl-C, also while Safe is away. Where
the output is no terminal, it prints the first line with the time, and again
whenever it has changed.

Exit codes: 0 all is well, 1 faults or another error, 2 a replica is sealed;
with --watch 0 when Ctrl-C has ended it.`,
		Example: `  kubectl vsecm status

  # While a rollout, an unseal or a push is under way
  kubectl vsecm status --watch

  # Is it sealed?
  kubectl vsecm status >/dev/null; [ $? -eq 2 ] && kubectl vsecm unseal

  # A Safe on this machine
  kubectl vsecm status --safe unix:///var/lib/vsecm/operator.sock`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.safe.addTo(cmd)
	o.output.addTo(cmd, "Form of the output")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "Show it anew, until Ctrl-C")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "With --watch, the `DURATION` until it is shown anew")
	_ = cmd.RegisterFlagCompletionFunc("interval", cobra.FixedCompletions([]string{"2s", "10s", "1m"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o statusOptions) run(ctx context.Context) error {
	switch {
	case o.watch && o.output.objects():
		return errors.New("--watch prints a page for people: leave out -o, or take -o wide")
	case o.watch && o.interval < time.Second:
		return errors.New("--interval: want 1s or more")
	case o.watch:
		return o.watching(ctx)
	}
	ctx, all, done, err := o.safe.openWithin(ctx, statusTimeout, viewerAccount)
	if err != nil {
		return err
	}
	defer done()
	return o.show(ctx, all)
}

// A look is what was seen of Safe at one time.
type look struct {
	all      *safes
	texts    [][]byte // what each replica answered,
	errs     []error  // or why it did not
	replicas []status // those that did
	overview *overview
	sources  []sourceStatus // that are shown
}

// look asks every replica, and the cluster.
func (o statusOptions) look(ctx context.Context, all *safes) *look {
	l := &look{all: all, texts: make([][]byte, len(all.replicas))}
	states := make([]status, len(all.replicas))
	l.errs = all.each(func(i int, r *replica) (err error) {
		if l.texts[i], err = r.act(ctx, http.MethodGet, "/v1/status", nil, ""); err != nil {
			return err
		}
		if err := decode(r, l.texts[i], &states[i]); err != nil {
			return err
		}
		if states[i].Replica == "" {
			states[i].Replica = r.name
		}
		o.safe.conn.skew.hear(states[i].Version)
		return nil
	})
	l.overview = o.overview(ctx, all)
	for i, st := range states {
		if l.errs[i] == nil {
			l.replicas = append(l.replicas, st)
		}
	}
	l.sources = o.shown(l.replicas, l.overview)
	return l
}

// show asks every replica, and shows what those answered that did.
func (o statusOptions) show(ctx context.Context, all *safes) error {
	l := o.look(ctx, all)
	var err error
	switch {
	case o.output.objects():
		err = o.printAll(l)
	case len(l.replicas) > 0 || l.overview.some():
		err = o.print(o.streams.Out, l)
	}
	if err != nil {
		return err
	}
	o.safe.tellMissed(o.streams.ErrOut, all, l.names())
	return l.judge()
}

// names returns the names of the replicas that answered.
func (l *look) names() []string {
	names := make([]string, len(l.replicas))
	for i, st := range l.replicas {
		names[i] = st.Replica
	}
	return names
}

// judge returns what there is to be done about, as an error.
func (l *look) judge() error {
	if err := errors.Join(l.errs...); err != nil {
		return err
	}
	sealed, well := false, l.overview.well()
	for _, s := range l.sources {
		well = well && !s.troubled()
	}
	for _, st := range l.replicas {
		sealed = sealed || st.sealed()
		well = well && st.well()
	}
	switch {
	case sealed:
		return errSealed
	case !well:
		return withHint(errors.New("not all is well"), "what each reason means, and what to do about it: %s", reasonsPage)
	}
	return nil
}

// printAll prints what the replicas answered, with what a newer Safe tells beyond what this
// plugin knows.
func (o statusOptions) printAll(l *look) error {
	replicas := make([]map[string]any, len(l.all.replicas))
	for i, r := range l.all.replicas {
		answer := make(map[string]any)
		if l.errs[i] != nil {
			answer["error"] = visible(l.errs[i].Error())
		} else if err := json.Unmarshal(l.texts[i], &answer); err != nil {
			return fmt.Errorf("%s: its answer is not Safe's", r.name)
		}
		if _, has := answer["replica"]; !has {
			answer["replica"] = r.name
		}
		replicas[i] = answer
	}
	whole := map[string]any{"replicas": replicas}
	if v := l.overview; v != nil {
		if v.Sources != nil {
			whole["gitSources"] = slices.DeleteFunc(v.Sources, func(s *listedSource) bool { return o.source != "" && s.name() != o.source })
		}
		if v.Secrets != nil {
			whole["encryptedSecrets"] = v.Secrets
		}
	}
	return printObject(o.streams.Out, o.output.value, whole)
}

func (st *status) misshapen() bool { return !isKeyID(st.KeyID) }

// sealed tells whether somebody has to unseal it. A Safe before sealing was built tells
// no state.
func (st status) sealed() bool { return st.State != "" && st.State != unsealed }

// well tells of the replica alone, not of the sources that it knows.
func (st status) well() bool { return len(st.Unreadable) == 0 && st.Synced }

// shown returns the sources that are shown: those of the cluster, or what replicas say of theirs.
func (o statusOptions) shown(replicas []status, overview *overview) []sourceStatus {
	var told []sourceStatus
	led := slices.ContainsFunc(replicas, func(st status) bool { return st.Leads })
	for _, st := range replicas {
		if !led || st.Leads { // the others say what they have heard
			told = append(told, st.Sources...)
		}
	}
	if overview != nil {
		told = overview.merge(told, o.leaders)
	}
	return slices.DeleteFunc(told, func(s sourceStatus) bool { return o.source != "" && s.Source != o.source })
}

func yesOrNo(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func short(revision string) string { return revision[:min(len(revision), 12)] }

func ago(t time.Time) string {
	if t.IsZero() {
		return "<never>"
	}
	return duration.HumanDuration(time.Since(t)) + " ago"
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

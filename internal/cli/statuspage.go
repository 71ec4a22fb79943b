package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// reasonsPage says of each reason in a status what it means, and what to do about it.
const reasonsPage = "https://github.com/vsecm/kubectl-vsecm/blob/main/docs/status.md"

// print shows what was seen as a page: in short, the replicas, the sources, and what is amiss.
func (o statusOptions) print(w io.Writer, l *look) error {
	if said, p := o.verdict(l); said != "" {
		to := screenOf(w)
		for line := range strings.SplitSeq(wrapped(visible(said), to.columns), "\n") {
			fmt.Fprintln(w, to.show(p, line))
		}
	}
	if err := o.printReplicas(w, l); err != nil {
		return err
	}
	if o.source != "" && len(l.sources) == 0 {
		return withHint(fmt.Errorf("how %s fares is not known", o.source), "'kubectl vsecm list --sources' may tell")
	}
	var err error
	if l.overview != nil || o.source != "" {
		if len(l.sources) > 0 || l.overview == nil || l.overview.Sources != nil {
			err = o.printSources(w, l.sources)
		}
	} else {
		err = o.printLocalSources(w, l.replicas)
	}
	if err != nil {
		return err
	}
	for _, s := range l.sources {
		s.printTroubles(w)
	}
	l.overview.printSecrets(w)
	return nil
}

// verdict says in short how all fares: what is read at a glance.
func (o statusOptions) verdict(l *look) (said string, p paint) {
	parts := []string{l.safeInShort()}
	parts = append(parts, o.sourcesInShort(l)...)
	if l.overview != nil && l.overview.Secrets != nil {
		parts = append(parts, l.overview.Secrets.inShort())
	}
	said = strings.Join(parts, "; ") + "."
	warned := slices.ContainsFunc(l.replicas, func(st status) bool { return st.Reason != "" })
	switch err := l.judge(); {
	case err == nil && !warned:
		return said, green
	case err == nil || errors.Is(err, errSealed):
		return said, yellow
	}
	return said, red
}

// safeInShort says whether Safe serves.
func (l *look) safeInShort() string {
	all, sealed, fresh, ready, warned := len(l.all.replicas), 0, 0, 0, false
	for _, st := range l.replicas {
		warned = warned || !st.sealed() && st.Reason != ""
		switch {
		case st.State == uninitialised:
			fresh++
			sealed++
		case st.sealed():
			sealed++
		case st.Synced:
			ready++
		}
	}
	answered := len(l.replicas)
	state := unsealed
	switch {
	case answered == 0:
		state = "away"
	case fresh == answered:
		state = "waiting for its first root key"
	case sealed == answered:
		state = "sealed"
	case sealed > 0:
		state = "sealed in part"
	}
	said := fmt.Sprintf("Safe is %s: %d of %s ready", state, ready, counted(all, "replica"))
	if away := all - answered; away > 0 {
		said += fmt.Sprintf(", %d without an answer", away)
	}
	if warned {
		said += ", with a warning"
	}
	return said
}

// sourcesInShort says how many sources there are, and whether what they declare was applied.
func (o statusOptions) sourcesInShort(l *look) []string {
	all, well, suspended := len(l.sources), 0, 0
	for _, s := range l.sources {
		switch {
		case s.object != nil && s.object.Spec.Suspend:
			suspended++
		case !s.troubled():
			well++
		}
	}
	if all == 0 {
		return nil // the tables tell whether there are none, or none may be seen
	}
	said := fmt.Sprintf("%d of %s in sync", well, counted(all, "source"))
	if well == all {
		said = counted(all, "source") + " in sync"
	}
	if suspended > 0 {
		said += fmt.Sprintf(", %d suspended", suspended)
	}
	return []string{said}
}

// inShort says how many EncryptedSecrets arrived.
func (n *secretCounts) inShort() string {
	if n.Total == 0 {
		return "no secrets yet"
	}
	said := counted(n.Ready, "secret") + " delivered"
	if missing := n.Total - n.Ready; missing > 0 {
		said += fmt.Sprintf(", %d not", missing)
	}
	return said
}

// printReplicas shows the replicas; in a cluster also which of them leads.
func (o statusOptions) printReplicas(w io.Writer, l *look) error {
	if len(l.replicas) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w)
	t.gap = 2
	header := []string{"REPLICA", "STATE", "MODE", "PROGRESS", "KEY", "SYNCED", "SVID-EXPIRES", "VERSION"}
	if l.overview != nil {
		header = slices.Insert(header, 2, "LEADS")
	}
	t.header(header)
	if o.output.value != "wide" {
		t.may("VERSION", "SVID-EXPIRES", "PROGRESS", "MODE", "KEY", "SYNCED", "LEADS")
	}
	for _, st := range l.replicas {
		row := []string{
			st.Replica, orNone(st.State), orNone(strings.Trim(st.Input+"/"+st.Store, "/")),
			fmt.Sprintf("%d/%d", st.Progress.Given, st.Progress.Needed),
			orNone(short(st.KeyID)), yesOrNo(st.Synced), st.svidExpires(), st.Version,
		}
		if l.overview != nil {
			row = slices.Insert(row, 2, yesOrNo(st.Leads))
		}
		if err := t.row(row); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	printReasons(w, l.replicas)
	printCeremonies(w, l.replicas)
	for _, st := range l.replicas {
		st.printTroubles(w)
	}
	return nil
}

func (st status) svidExpires() string {
	switch {
	case st.SVID == nil:
		return "<none>"
	case st.SVID.NotAfter.Before(time.Now()):
		return "expired"
	}
	return "in " + duration.HumanDuration(time.Until(st.SVID.NotAfter))
}

// printReasons says why replicas are sealed, and what is amiss with the root key of those that
// are not.
func printReasons(w io.Writer, replicas []status) {
	printOnce(w, replicas, func(st status) []string {
		if st.Reason == "" {
			return nil
		}
		return []string{st.Reason}
	})
}

// printCeremonies says which shares of the root key were given. Two sets at once may be a
// mistake that somebody has to see.
func printCeremonies(w io.Writer, replicas []status) {
	printOnce(w, replicas, func(st status) (said []string) {
		for _, p := range ceremonies(st.Progress, st.Ceremonies) {
			said = append(said, fmt.Sprintf("set %s: %s", p.Set, p))
		}
		return said
	})
}

// printOnce prints what is to be said of each replica, once where it is the same.
func printOnce(w io.Writer, replicas []status, of func(status) []string) {
	names := make(map[string][]string)
	var all []string
	for _, st := range replicas {
		for _, said := range of(st) {
			if names[said] == nil {
				all = append(all, said)
			}
			names[said] = append(names[said], st.Replica)
		}
	}
	for _, said := range all {
		fmt.Fprintln(w)
		prose(w, "%s: %s", strings.Join(names[said], ", "), said)
	}
}

func (st status) printTroubles(w io.Writer) {
	if !st.sealed() && !st.Synced {
		fmt.Fprintln(w)
		prose(w, "%s: not all stored objects are served yet", st.Replica)
	}
	for _, line := range st.Unreadable {
		fmt.Fprintln(w)
		prose(w, "%s: unreadable: %s", st.Replica, line)
	}
}

package rekey

import (
	"cmp"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// maxListed bounds each list of a [Report]; what counts them is exact.
const maxListed = 1000

// A Need is a value that another key than the active one is needed for, or of which that cannot be told. It
// holds no value.
type Need struct {
	// Source is the git source, NAMESPACE.NAME; empty for an object that none applied.
	Source string `json:"source,omitempty"`
	// Namespace, Name and Key say which value of which object; empty as far as that is not known.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Key       string `json:"key,omitempty"`
	// File and Line are where it stands at the source's head. An object that stands in the store alone
	// has neither.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// KeyIDs are those of the keys to go that the value names.
	KeyIDs []encrypt.KeyID `json:"keyIDs,omitempty"`
	// Why says in words what is the matter.
	Why string `json:"why"`
}

func compareNeeds(a, b Need) int {
	return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Why, b.Why))
}

// An Unread is a source whose head was not read, so that nobody knows what is there.
type Unread struct {
	// Source is NAMESPACE.NAME.
	Source string `json:"source"`
	Why    string `json:"why"`
}

// A Report says what the active key opens alone, and what not.
type Report struct {
	// KeyID of the active key.
	KeyID encrypt.KeyID `json:"keyID"`
	// Opened is how many values it opens alone. What stands at a source's head exactly as it is stored counts once.
	Opened int `json:"opened"`
	// Needs are the values that need a key which is to go, or may; NeedCount is how many there are.
	Needs     []Need `json:"needs"`
	NeedCount int    `json:"needCount"`
	// Unread are the sources that could not be read.
	Unread []Unread `json:"unread"`
	// Unreadable are the values that no key opens which is held, and paths in git that are never read; nothing
	// that is held is needed for them.
	Unreadable      []Need `json:"unreadable"`
	UnreadableCount int    `json:"unreadableCount"`
	// BySource is how many of the needs there are of each source; of objects that none applied, under "".
	BySource map[string]int `json:"bySource"`
}

// Blocked tells whether something may be lost with the keys that are to go.
func (r *Report) Blocked() bool { return r.NeedCount > 0 || len(r.Unread) > 0 }

// tidy orders the lists, and cuts them.
func (r *Report) tidy() {
	slices.SortFunc(r.Unread, func(a, b Unread) int { return cmp.Compare(a.Source, b.Source) })
	for _, list := range []*[]Need{&r.Needs, &r.Unreadable} {
		slices.SortFunc(*list, compareNeeds)
		*list = slices.Clone((*list)[:min(len(*list), maxListed)])
		if *list == nil {
			*list = []Need{}
		}
	}
	if r.Unread == nil {
		r.Unread = []Unread{}
	}
}

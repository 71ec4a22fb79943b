package identity

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// VSecM is how VMware Secrets Manager is told which SPIFFE IDs are workloads', by two
// variables of its environment. Its zero value says nothing.
//
// An ID has to fit both. What VSecM knows by the name alone is a namespace and a name
// here: the namespace is the segment behind the one segment "ns" of the path that is not
// the name itself, or what a group called namespace of NameRegexp says.
type VSecM struct {
	// Prefix is VSECM_SPIFFEID_PREFIX_WORKLOAD: a regular expression if it begins with
	// ^spiffe://TRUST_DOMAIN/, or how an ID begins, spiffe://TRUST_DOMAIN/….
	Prefix string
	// NameRegexp is VSECM_WORKLOAD_NAME_REGEXP: a regular expression that begins with
	// ^spiffe://TRUST_DOMAIN/, whose first group is the workload's name.
	NameRegexp string
}

// What VSecM takes where a variable is not set, in its own trust domain.
const (
	vsecmPrefix     = "^spiffe://%s/workload/[^/]+/ns/[^/]+/sa/[^/]+/n/[^/]+$"
	vsecmNameRegexp = "^spiffe://%s/workload/([^/]+)/ns/[^/]+/sa/[^/]+/n/[^/]+$"
)

// NewVSecMMapper returns a mapper for IDs of trust domain td that tells workloads as v
// says. What v leaves empty is VSecM's default.
func NewVSecMMapper(td spiffeid.TrustDomain, v VSecM) (*Mapper, error) {
	if td.IsZero() {
		return nil, errors.New("trust domain is empty")
	}
	if v.Prefix == "" {
		v.Prefix = fmt.Sprintf(vsecmPrefix, regexp.QuoteMeta(td.Name()))
	}
	if v.NameRegexp == "" {
		v.NameRegexp = fmt.Sprintf(vsecmNameRegexp, regexp.QuoteMeta(td.Name()))
	}
	r := &vsecmRule{text: v.Prefix + " with " + v.NameRegexp}
	var err error
	if strings.HasPrefix(v.Prefix, "^") {
		if r.whole, err = compileFor(td, v.Prefix); err != nil {
			return nil, fmt.Errorf("prefix of workloads %q: %w", v.Prefix, err)
		}
	} else if r.prefix = v.Prefix; !strings.HasPrefix(r.prefix, td.IDString()+"/") {
		return nil, fmt.Errorf("prefix of workloads %q: begins with neither %s/ nor ^%s/", v.Prefix, td.IDString(), td.IDString())
	}
	if r.name, err = compileFor(td, v.NameRegexp); err != nil {
		return nil, fmt.Errorf("pattern of workloads' names %q: %w", v.NameRegexp, err)
	}
	if r.name.NumSubexp() == 0 {
		return nil, fmt.Errorf("pattern of workloads' names %q: has no group for the name", v.NameRegexp)
	}
	r.namespace = r.name.SubexpIndex("namespace")
	if r.namespace == nameGroup {
		return nil, fmt.Errorf("pattern of workloads' names %q: its first group is for the name", v.NameRegexp)
	}
	return &Mapper{trustDomain: td, rules: []rule{r}}, nil
}

// Check tells what is wrong with v before Safe's own trust domain is known: what it says
// has to make sense for the trust domain that it names.
func (v VSecM) Check() error {
	if v == (VSecM{}) {
		return nil
	}
	named := v.NameRegexp
	if named == "" {
		named = v.Prefix
	}
	domain, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(named, "^"), "spiffe://"), "/")
	td, err := spiffeid.TrustDomainFromString(strings.ReplaceAll(domain, `\.`, "."))
	if err != nil {
		return fmt.Errorf("%q names no trust domain: %w", named, err)
	}
	_, err = NewVSecMMapper(td, v)
	return err
}

// compileFor compiles an expression that is for IDs of td alone, as VSecM demands.
func compileFor(td spiffeid.TrustDomain, text string) (*regexp.Regexp, error) {
	if !strings.HasPrefix(text, "^"+td.IDString()+"/") && !strings.HasPrefix(text, "^spiffe://"+regexp.QuoteMeta(td.Name())+"/") {
		return nil, fmt.Errorf("does not begin with ^%s/", td.IDString())
	}
	return regexp.Compile(text)
}

// nameGroup is the group of a name's expression that holds the name.
const nameGroup = 1

// A vsecmRule reads IDs as VSecM does.
type vsecmRule struct {
	text      string
	prefix    string         // unless there is
	whole     *regexp.Regexp // instead
	name      *regexp.Regexp
	namespace int // its group; -1: there is none
}

func (r *vsecmRule) String() string { return r.text }

// match implements rule.
func (r *vsecmRule) match(id spiffeid.ID) (w Workload, ok bool, err error) {
	text := id.String()
	if r.whole != nil && !r.whole.MatchString(text) || !strings.HasPrefix(text, r.prefix) {
		return Workload{}, false, nil
	}
	at := r.name.FindStringSubmatchIndex(text)
	if at == nil || at[2*nameGroup] < 0 {
		return Workload{}, false, nil
	}
	from, to := at[2*nameGroup], at[2*nameGroup+1]
	w.Name = text[from:to]
	if r.namespace >= 0 {
		if at[2*r.namespace] < 0 {
			return Workload{}, false, nil
		}
		w.Namespace = text[at[2*r.namespace]:at[2*r.namespace+1]]
		return w, true, nil
	}
	// A second reading of where the namespace stands would be for whoever chooses a name.
	before, after := strings.Split(text[:from], "/"), strings.Split(text[to:], "/")
	segments := append(append(before[:len(before)-1:len(before)-1], ""), after[1:]...)
	i := slices.Index(segments, "ns")
	if i < 0 || i == len(segments)-1 || slices.Contains(segments[i+1:], "ns") {
		return Workload{}, false, errors.New("the path has no namespace, or more than one: behind a segment ns")
	}
	w.Namespace = segments[i+1]
	return w, true, nil
}

package identity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// VSecMPattern is how VMware Secrets Manager registers its workloads.
	VSecMPattern = "/workload/{name}/ns/{namespace}/sa/*/n/*"
	// SPIREPattern is the default of SPIRE's controller manager: the service
	// account names the workload.
	SPIREPattern = "/ns/{namespace}/sa/{name}"
)

// ErrNotWorkload says that a SPIFFE ID names no workload: it is of another
// trust domain, matches no pattern, or holds a name that no Kubernetes object
// can have.
var ErrNotWorkload = errors.New("SPIFFE ID names no workload")

// A Mapper tells which workload a SPIFFE ID belongs to. It is safe for
// concurrent use.
type Mapper struct {
	trustDomain spiffeid.TrustDomain
	rules       []rule
}

// A rule is one way to read the path of a SPIFFE ID.
type rule interface {
	// match reports whether the rule applies to id. It does not say that the names in w
	// are valid.
	match(id spiffeid.ID) (w Workload, ok bool, err error)
	// String returns the rule as it was configured.
	String() string
}

// NewMapper returns a mapper for IDs of trust domain td. A pattern is the path
// of a SPIFFE ID, segment by segment: {name} and {namespace}, each exactly
// once, stand for the parts of a [Workload], * for any one segment, and
// everything else for itself. Without patterns, [VSecMPattern] and
// [SPIREPattern] are used, in this order.
func NewMapper(td spiffeid.TrustDomain, patterns ...string) (*Mapper, error) {
	if td.IsZero() {
		return nil, errors.New("trust domain is empty")
	}
	if len(patterns) == 0 {
		patterns = []string{VSecMPattern, SPIREPattern}
	}
	m := &Mapper{trustDomain: td}
	for _, s := range patterns {
		p, err := compile(s)
		if err != nil {
			return nil, fmt.Errorf("SPIFFE ID pattern %q: %w", s, err)
		}
		m.rules = append(m.rules, p)
	}
	return m, nil
}

// TrustDomain returns the trust domain that m accepts.
func (m *Mapper) TrustDomain() spiffeid.TrustDomain { return m.trustDomain }

// Workload returns the workload that id names, by the first pattern with the
// same segments as id. A name in it that is not valid in Kubernetes is refused
// there and then: a later pattern never gives a second reading. Every error is
// [ErrNotWorkload].
func (m *Mapper) Workload(id spiffeid.ID) (Workload, error) {
	if !id.MemberOf(m.trustDomain) {
		return Workload{}, fmt.Errorf("%w: %q is not of trust domain %q", ErrNotWorkload, id, m.trustDomain.Name())
	}
	for _, r := range m.rules {
		w, ok, err := r.match(id)
		if err != nil {
			return Workload{}, fmt.Errorf("%w: %q: %w", ErrNotWorkload, id, err)
		}
		if !ok {
			continue
		}
		// A namespace is an RFC 1123 label; the names of service accounts
		// and of EncryptedSecrets are subdomains, dots included.
		if len(validation.IsDNS1123Label(w.Namespace)) > 0 {
			return Workload{}, fmt.Errorf("%w: %q: namespace is not a DNS-1123 label", ErrNotWorkload, id)
		}
		if len(validation.IsDNS1123Subdomain(w.Name)) > 0 {
			return Workload{}, fmt.Errorf("%w: %q: name is not a DNS-1123 subdomain", ErrNotWorkload, id)
		}
		return w, nil
	}
	tried := make([]string, len(m.rules))
	for i, r := range m.rules {
		tried[i] = r.String()
	}
	return Workload{}, fmt.Errorf("%w: %q matches no pattern of %s", ErrNotWorkload, id, strings.Join(tried, ", "))
}

// A segment is one part of a pattern's path.
type segment struct {
	kind    segmentKind
	literal string
}

type segmentKind int

const (
	kindLiteral segmentKind = iota
	kindAny
	kindName
	kindNamespace
)

type pattern struct {
	text     string
	segments []segment
}

func compile(s string) (*pattern, error) {
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return nil, errors.New("does not begin with /")
	}
	p := &pattern{text: s}
	var names, namespaces int
	for part := range strings.SplitSeq(rest, "/") {
		switch part {
		case "*":
			p.segments = append(p.segments, segment{kind: kindAny})
		case "{name}":
			names++
			p.segments = append(p.segments, segment{kind: kindName})
		case "{namespace}":
			namespaces++
			p.segments = append(p.segments, segment{kind: kindNamespace})
		default:
			if err := spiffeid.ValidatePathSegment(part); err != nil {
				return nil, fmt.Errorf("segment %q: %w", part, err)
			}
			p.segments = append(p.segments, segment{literal: part})
		}
	}
	if names != 1 || namespaces != 1 {
		return nil, errors.New("needs {name} and {namespace}, each once")
	}
	return p, nil
}

func (p *pattern) String() string { return p.text }

// match implements rule: the path has exactly p's segments.
func (p *pattern) match(id spiffeid.ID) (w Workload, ok bool, err error) {
	path := id.Path()
	for _, s := range p.segments {
		rest, ok := strings.CutPrefix(path, "/")
		if !ok {
			return Workload{}, false, nil
		}
		var part string
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			part, path = rest[:i], rest[i:]
		} else {
			part, path = rest, ""
		}
		switch s.kind {
		case kindLiteral:
			if part != s.literal {
				return Workload{}, false, nil
			}
		case kindName:
			w.Name = part
		case kindNamespace:
			w.Namespace = part
		}
	}
	return w, path == "", nil
}

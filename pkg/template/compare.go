package template

import (
	"cmp"
	"strings"
)

var errCompare = problem("only texts are compared with texts, numbers with numbers, and true with false")

// compare returns how a stands to b; ordered is false where it only tells whether they are equal.
func (r *run) compare(a, b any) (order int, ordered bool, err error) {
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b), true, r.spend(min(len(a), len(b)))
		}
	case number:
		if b, ok := b.(number); ok {
			return strings.Compare(string(a), string(b)), false, r.spend(min(len(a), len(b)))
		}
	case int:
		switch b := b.(type) {
		case int:
			return cmp.Compare(a, b), true, nil
		case float64:
			return cmp.Compare(float64(a), b), true, nil
		}
	case float64:
		switch b := b.(type) {
		case float64:
			return cmp.Compare(a, b), true, nil
		case int:
			return cmp.Compare(a, float64(b)), true, nil
		}
	case bool:
		if b, ok := b.(bool); ok {
			if a == b {
				return 0, false, nil
			}
			return 1, false, nil
		}
	case nil:
		if b == nil {
			return 0, false, nil
		}
		return 1, false, nil
	}
	if b == nil {
		return 1, false, nil
	}
	return 0, false, errCompare
}

// eq tells whether a is any of the others.
func (r *run) eq(a, b any, others ...any) (bool, error) {
	for _, other := range append([]any{b}, others...) {
		order, _, err := r.compare(a, other)
		if err != nil || order == 0 {
			return err == nil, err
		}
	}
	return false, nil
}

func (r *run) ne(a, b any) (bool, error) {
	equal, err := r.eq(a, b)
	return !equal && err == nil, err
}

func (r *run) lt(a, b any) (bool, error) {
	return r.ordered(a, b, func(order int) bool { return order < 0 })
}
func (r *run) le(a, b any) (bool, error) {
	return r.ordered(a, b, func(order int) bool { return order <= 0 })
}
func (r *run) gt(a, b any) (bool, error) {
	return r.ordered(a, b, func(order int) bool { return order > 0 })
}
func (r *run) ge(a, b any) (bool, error) {
	return r.ordered(a, b, func(order int) bool { return order >= 0 })
}

func (r *run) ordered(a, b any, is func(order int) bool) (bool, error) {
	order, ordered, err := r.compare(a, b)
	if err == nil && !ordered {
		err = errCompare
	}
	return err == nil && is(order), err
}

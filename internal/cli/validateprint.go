package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A validationRule is a kind of fault, for programs that count, filter or explain them. Its id is part of what
// the JSON, YAML, SARIF and JUnit forms promise.
type validationRule struct {
	id, short string
	of        func(*encrypt.Fault) bool
}

// validationRules are all there are; the first that a fault is of counts, and the last is of every fault.
var validationRules = []validationRule{
	{"merge-conflict", "A merge conflict is unresolved", is(encrypt.ErrMergeConflict)},
	{"project-file", "What .vsecm.yaml names cannot be read", func(f *encrypt.Fault) bool { return filepath.Base(f.File) == encrypt.ProjectFile }},
	{"plaintext-secret", "A Secret lies in the clear where .vsecm.yaml forbids it", is(errPlainSecret)},
	{"wrong-place", "A value stands in another place than it was sealed for", is(encrypt.ErrElsewhere)},
	{"future", "A value was sealed in the future", is(encrypt.ErrFuture)},
	{"retired-key", "A value is sealed to a retired key", is(errRetiredKey)},
	{"other-recipients", "A value is sealed to other recipients than .vsecm.yaml has", is(errOtherRecipients)},
	{"malformed-value", "A sealed value is damaged, or is none", is(encrypt.ErrMalformed, encrypt.ErrUnbound, encrypt.ErrTooLarge)},
	{"double-name", "Two manifests have one name", func(f *encrypt.Fault) bool { return errors.As(f.Err, new(doubleError)) }},
	{"invalid-manifest", "A manifest is not well formed", func(*encrypt.Fault) bool { return true }},
}

func is(errs ...error) func(*encrypt.Fault) bool {
	return func(f *encrypt.Fault) bool {
		for _, err := range errs {
			if errors.Is(f.Err, err) {
				return true
			}
		}
		return false
	}
}

// ruleOfFault returns the index of the rule that a fault is of.
func ruleOfFault(f *encrypt.Fault) int {
	for i, rule := range validationRules {
		if rule.of(f) {
			return i
		}
	}
	panic("the last rule is of every fault")
}

func (o validateOptions) print(v validation) error {
	switch o.output.value {
	case formSARIF:
		return printSARIF(o.streams.Out, v)
	case formJUnit:
		return printJUnit(o.streams.Out, v)
	case "":
		for _, f := range v.faults {
			if _, err := fmt.Fprintln(o.streams.Out, visible(f.Error())); err != nil {
				return err
			}
		}
		return nil
	}
	type fault struct {
		File      string `json:"file"`
		Line      int    `json:"line,omitempty"`
		Field     string `json:"field,omitempty"`
		Namespace string `json:"namespace,omitempty"`
		Name      string `json:"name,omitempty"`
		Rule      string `json:"rule"`
		Message   string `json:"message"`
	}
	list := make([]fault, 0, len(v.faults))
	for _, f := range v.faults {
		list = append(list, fault{f.File, f.Line, f.Field, f.Namespace, f.Name, validationRules[ruleOfFault(f)].id, f.Err.Error()})
	}
	return printObject(o.streams.Out, o.output.value, list)
}

// whatIsWrong is a fault without its place, which the forms have elsewhere.
func whatIsWrong(f *encrypt.Fault) string {
	text := f.Err.Error()
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	return visible(text)
}

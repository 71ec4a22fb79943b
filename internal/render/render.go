// Package render makes what is delivered of an object that has a template: the same, and with the same bounds,
// wherever it is delivered.
package render

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
	"github.com/vsecm/kubectl-vsecm/pkg/template"
)

// ErrPanic says that a template broke the code that executes it.
var ErrPanic = errors.New("executing it panicked")

// An Output is what the template of an object makes.
type Output struct {
	// Keys are those that are delivered, sorted.
	Keys []string
	// Limit is how many bytes their values have together, at most. It follows from the object alone.
	Limit int
}

// Of returns what o's template makes, of which o has one. The error is a [*template.Error].
func Of(o *v1alpha1.EncryptedSecret) (Output, error) {
	t, err := parse(o)
	if err != nil {
		return Output{}, err
	}
	return Output{Keys: t.Keys(), Limit: limit(t, o)}, nil
}

// Values executes o's template, of which o has one, over its values in plaintext. What it returns is the caller's to
// wipe. Errors are [*template.Error] and [ErrPanic]; they quote nothing secret.
func Values(o *v1alpha1.EncryptedSecret, values map[string][]byte, log *slog.Logger) (made map[string][]byte, err error) {
	// It is what anyone may have written who can push: should it break something, that is a fault of this object, and
	// not the end of Safe.
	defer func() {
		if r := recover(); r != nil {
			// What was recovered might quote a value.
			made, err = nil, fmt.Errorf("%w: %T", ErrPanic, r)
			log.Error("executing a template broke off", "object", o.Namespace+"/"+o.Name, "stack", string(debug.Stack()))
		}
	}()
	t, err := parse(o)
	if err != nil {
		return nil, err
	}
	return t.Execute(values, limit(t, o))
}

// parse parses o's template, whose keys become those of a Kubernetes Secret, and names of files: not every object was
// seen by somebody who refuses others.
func parse(o *v1alpha1.EncryptedSecret) (*template.Template, error) {
	t, err := template.Parse(o.Spec.Template)
	if err != nil {
		return nil, err
	}
	for _, key := range t.Keys() {
		if err := encrypt.ValidateKey(key); err != nil {
			return nil, &template.Error{Reason: "a key of data: " + err.Error()}
		}
	}
	return t, nil
}

// limit bounds what t makes of o by the length of what is sealed, and so before anything is opened.
func limit(t *template.Template, o *v1alpha1.EncryptedSecret) int {
	sealed := 0
	for _, value := range o.Spec.EncryptedData {
		sealed += base64.StdEncoding.DecodedLen(len(value))
	}
	return t.MaxSize(sealed)
}

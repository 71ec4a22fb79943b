package template

import texttemplate "text/template"

const (
	// maxSteps bounds the nodes that the bodies of ranges go through, in all keys together.
	maxSteps = 100_000
	// maxWork bounds the bytes that functions read and make, in all keys together.
	maxWork = 16 << 20
)

// A problem is why a function fails. It holds nothing of a value.
type problem string

func (p problem) Error() string { return string(p) }

var (
	errTooLarge error = problem("what it makes is too large")
	errSteps    error = problem("it takes too many steps")
	errWork     error = problem("it takes too much work")
)

// A run is one execution of a template.
type run struct {
	set    *texttemplate.Template
	values map[string]string
	limit  int // of what a function may return, in bytes
	steps  int // left
	work   int // left
	out    *output
	parsed map[string]any // what fromJson has made of which text
}

func newRun(t *Template, values map[string][]byte, limit int) *run {
	r := &run{values: make(map[string]string, len(values)), limit: max(limit, 0), steps: maxSteps, work: maxWork}
	for name, value := range values {
		r.values[name] = string(value)
	}
	// Cloning fails for templates of package html/template only.
	r.set = texttemplate.Must(t.set.Clone()).Funcs(r.functions())
	return r
}

// execute runs a program.
func (r *run) execute(p program, out *output) (err error) {
	r.out = out
	defer func() {
		// The library turns what functions panic with into errors. What is left is its own, and may quote values.
		if recover() != nil {
			err = &Error{Key: p.key, Path: p.path, Reason: "cannot be carried out"}
		}
	}()
	if err := r.set.ExecuteTemplate(out, p.number, r.values); err != nil {
		return p.executeError(err)
	}
	return nil
}

// spend pays for reading or making n bytes.
func (r *run) spend(n int) error {
	if n > r.work || n < 0 {
		return errWork
	}
	r.work -= n
	return nil
}

// print is the hidden function that prints what an action has come to.
func (r *run) print(v any) (string, error) {
	s, err := scalar(v)
	if err != nil {
		return "", err
	}
	if err := r.spend(len(s)); err != nil {
		return "", err
	}
	_, err = r.out.WriteString(s)
	return "", err
}

// pay is the hidden function at the start of the body of a range.
func (r *run) pay(steps int) (string, error) {
	if steps > r.steps {
		return "", errSteps
	}
	r.steps -= steps
	return "", nil
}

// over is the hidden function that a range's values pass through. The library sorts the names of a mapping, which may
// differ in their last bytes alone.
func (r *run) over(v any) (any, error) {
	const each = 256
	switch v := v.(type) {
	case map[string]any:
		return v, r.spend(each*len(v) + lengths(v))
	case map[string]string:
		return v, r.spend(each*len(v) + lengths(v))
	}
	return v, nil
}

// lengths returns how many bytes the names of a mapping have.
func lengths[V any](m map[string]V) int {
	sum := 0
	for name := range m {
		sum += len(name)
	}
	return sum
}

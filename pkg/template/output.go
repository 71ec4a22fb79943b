package template

import "slices"

// An output holds at most limit bytes. It leaves no copy behind when it grows.
type output struct {
	data  []byte
	limit int
}

// Write takes all of p, or nothing and returns errTooLarge.
func (o *output) Write(p []byte) (int, error) {
	if err := o.grow(len(p)); err != nil {
		return 0, err
	}
	o.data = append(o.data, p...)
	return len(p), nil
}

// WriteString is Write for a string.
func (o *output) WriteString(s string) (int, error) {
	if err := o.grow(len(s)); err != nil {
		return 0, err
	}
	o.data = append(o.data, s...)
	return len(s), nil
}

// grow makes room for n bytes more.
func (o *output) grow(n int) error {
	const least = 512
	if n > o.limit-len(o.data) {
		return errTooLarge
	}
	if need := len(o.data) + n; need > cap(o.data) {
		grown := make([]byte, len(o.data), max(need, min(max(2*cap(o.data), least), o.limit)))
		copy(grown, o.data)
		clear(o.data)
		o.data = grown
	}
	return nil
}

// bytes returns what was written, never nil.
func (o *output) bytes() []byte {
	if o.data == nil {
		return []byte{}
	}
	return slices.Clip(o.data)
}

func (o *output) wipe() {
	clear(o.data)
	o.data = nil
}

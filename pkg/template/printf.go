package template

import (
	"fmt"
	"strings"
)

const (
	// maxWidth bounds the widths and precisions of formats.
	maxWidth = 1000
	// widestNumber is how many characters fmt makes of a number at most, widths and precisions aside.
	widestNumber = 400
	// quotedGrowth is how many characters fmt makes of a byte at most: "0x41 ".
	quotedGrowth = 5
)

func (r *run) sprint(values ...any) (string, error) {
	return r.format(values, fmt.Sprint)
}

func (r *run) sprintln(values ...any) (string, error) {
	return r.format(values, fmt.Sprintln)
}

// format prints values without making any longer.
func (r *run) format(values []any, print func(...any) string) (string, error) {
	values, sizes, err := printables(values)
	if err != nil {
		return "", err
	}
	total := 0
	for _, size := range sizes {
		total += size + 1
	}
	if err := r.room(total); err != nil {
		return "", err
	}
	return print(values...), nil
}

// printf is fmt.Sprintf for texts, numbers and booleans: one verb for each value. What it may print at most is reckoned
// before it is printed.
func (r *run) printf(format string, values ...any) (string, error) {
	values, sizes, err := printables(values)
	if err != nil {
		return "", err
	}
	total, next := len(format), 0
	for rest := format; ; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			break
		}
		v, err := parseVerb(rest[i+1:])
		if err != nil {
			return "", err
		}
		rest = rest[i+1+v.length:]
		if v.letter == '%' {
			continue
		}
		if next == len(values) {
			return "", problem("the format has more verbs than there are values")
		}
		if !v.prints(values[next]) {
			return "", problem(fmt.Sprintf("%%%c does not print a value of this kind (%%v prints any)", v.letter))
		}
		total += v.width + widestNumber
		if v.letter == 's' || v.letter == 'v' {
			total += sizes[next]
		} else {
			total += quotedGrowth * sizes[next]
		}
		next++
	}
	if next < len(values) {
		return "", problem("the format has fewer verbs than there are values")
	}
	if err := r.spend(total); err != nil {
		return "", err
	}
	s := fmt.Sprintf(format, values...)
	if len(s) > r.limit {
		return "", errTooLarge
	}
	return s, nil
}

// A verb is what stands behind a percent sign.
type verb struct {
	letter byte
	width  int // and precision, together
	length int // of its text
}

func parseVerb(s string) (verb, error) {
	var v verb
	number := 0
	for v.length < len(s) {
		c := s[v.length]
		v.length++
		switch {
		case c == '*' || c == '[':
			return v, problem("formats with * and [ are not supported")
		case c >= '0' && c <= '9':
			if number = 10*number + int(c-'0'); number > maxWidth {
				return v, problem(fmt.Sprintf("widths and precisions are %d at most", maxWidth))
			}
		case c == '.':
			v.width += number
			number = 0
		case strings.IndexByte("+-# ", c) >= 0:
		case strings.IndexByte("vsqxXdobcUtefgEFG%", c) >= 0:
			v.width += number
			v.letter = c
			return v, nil
		default:
			return v, problem("the format has an unknown verb")
		}
	}
	return v, problem("the format ends within a verb")
}

// prints tells whether fmt prints the value with the verb.
func (v verb) prints(value any) bool {
	letters := "v"
	switch value.(type) {
	case string:
		letters = "vsqxX"
	case int, int64:
		letters = "vdobcqxXU"
	case float64:
		letters = "vbeEfFgGxX"
	case bool:
		letters = "vt"
	}
	return strings.IndexByte(letters, v.letter) >= 0
}

// printables returns values as package fmt prints them, and how many bytes their texts have.
func printables(values []any) (printable []any, sizes []int, err error) {
	printable, sizes = make([]any, len(values)), make([]int, len(values))
	for i, v := range values {
		text, err := scalar(v)
		if err != nil {
			return nil, nil, err
		}
		sizes[i] = len(text)
		if n, ok := v.(number); ok {
			v = string(n)
		}
		printable[i] = v
	}
	return printable, sizes, nil
}

package serve

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/vsecm/kubectl-vsecm/internal/problem"
)

var (
	errBodyTooLarge = errors.New("the body is too large")
	errBodySlow     = errors.New("the body did not come in time")
	errBodyBroken   = errors.New("the body broke off")
)

// readBody reads a body of at most so many bytes into one buffer, which never grows, so
// that the caller can wipe all of it. It is the caller's also beside an error:
// errBodyTooLarge, errBodySlow (the server's own timeout bounds how long a body may
// take), errBodyBroken.
func readBody(r *http.Request, most int) ([]byte, error) {
	tooLarge := fmt.Errorf("%w: at most %d bytes", errBodyTooLarge, most)
	size := most + 1
	if r.ContentLength > int64(most) {
		return nil, tooLarge
	} else if r.ContentLength >= 0 {
		size = int(r.ContentLength)
	}
	buf := make([]byte, size)
	n := 0
	for n < size {
		m, err := r.Body.Read(buf[n:])
		n += m
		switch {
		case n == size && (err == nil || errors.Is(err, io.EOF)):
		case err == nil:
		case errors.Is(err, io.EOF) && r.ContentLength < 0:
			return buf[:n], nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return buf, errBodySlow
		default:
			return buf, errBodyBroken
		}
	}
	if n > most {
		return buf, tooLarge
	}
	return buf, nil
}

// bodyProblem returns how a body that could not be read is answered.
func bodyProblem(err error) problem.Type {
	if errors.Is(err, errBodySlow) {
		return problem.Timeout
	}
	return problem.BadRequest
}

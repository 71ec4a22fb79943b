package cache

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/answer"
	"github.com/vsecm/kubectl-vsecm/internal/render"
)

// An output is what the template of a version makes of its values. The vault keeps all of it as one value, so that the
// template is executed once.
type output struct {
	keys []string // sorted
	id   valueID
}

// outputID returns the id under which the vault keeps the output of the version with that digest.
func outputID(digest [32]byte) valueID {
	h := newHash("vsecm.com/output v1")
	h.text(string(digest[:]))
	return h.sum()
}

// size returns the bytes that o takes in an answer, at most, if it has that many.
func (o *output) size(limit int) int {
	size := base64.StdEncoding.EncodedLen(limit)
	for _, key := range o.keys {
		// Each value is padded on its own.
		size += answer.ValueSize(key, 0) + 4
	}
	return size
}

// errOutput says that an output is not one. It cannot be: the vault authenticates what it keeps.
var errOutput = errors.New("what the template made was not kept as it is")

// lengthSize is the bytes of a length in front of a value.
const lengthSize = 8

// join returns the values of o's keys in one piece, and wipes them.
func (o *output) join(values map[string][]byte) []byte {
	size := 0
	for _, key := range o.keys {
		size += lengthSize + len(values[key])
	}
	joined := make([]byte, 0, size) // it never grows, which would leave copies behind
	for _, key := range o.keys {
		joined = binary.BigEndian.AppendUint64(joined, uint64(len(values[key])))
		joined = append(joined, values[key]...)
	}
	wipe(values)
	return joined
}

// split is the inverse of join. The values are parts of joined.
func (o *output) split(joined []byte) (map[string][]byte, error) {
	values := make(map[string][]byte, len(o.keys))
	for _, key := range o.keys {
		if len(joined) < lengthSize {
			return nil, errOutput
		}
		n := binary.BigEndian.Uint64(joined)
		joined = joined[lengthSize:]
		if uint64(len(joined)) < n {
			return nil, errOutput
		}
		values[key], joined = joined[:n:n], joined[n:]
	}
	return values, nil
}

// render executes the template of v, and tells when the newest of its values was sealed. The error is a [*fault], or
// [ErrSealed].
func (c *Cache) render(v *version) ([]byte, time.Time, error) {
	// Not with the context of the one who asked first: others may wait for it, too.
	s, f, err := c.readSealed(context.Background(), v)
	if err != nil {
		return nil, time.Time{}, err
	}
	if f != nil {
		return nil, time.Time{}, f
	}
	defer wipe(s.Data)
	c.metrics.rendered.Inc()
	made, err := render.Values(v.object, s.Data, c.log)
	if err != nil {
		return nil, time.Time{}, newFault(v, "", err)
	}
	return v.output.join(made), s.Updated, nil
}

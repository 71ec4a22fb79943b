package backup

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// What an archive takes in memory, while it is written and read as a stream, does not grow with its objects beyond
// some hundred bytes for each: 20 times as many values, of which all would be 8 MB, and 11 MB as they are stored. It was
// measured with 10,000, too: 270 bytes for each, of writer and reader together.
func TestTheMemoryOfAnArchiveIsThatOfOneObject(t *testing.T) {
	const size, objects = 4 << 10, 2_000
	r := newRig(t)
	value := make([]byte, size)
	sealed := r.object(t, "a", "db", map[string]string{"password": string(value)})
	c := r.contents()
	for i := range objects {
		o := sealed.DeepCopy() // shares the sealed value's bytes
		o.Name = fmt.Sprintf("db-%05d", i)
		o.Spec.Scope, o.Spec.Workloads = "namespace", []string{"api"}
		if i == 0 {
			first := r.object(t, "a", o.Name, map[string]string{"password": string(value)}, func(o2 *v1alpha1.EncryptedSecret) { o2.Spec = *o.Spec.DeepCopy() })
			sealed.Spec.EncryptedData["password"] = first.Spec.EncryptedData["password"]
		}
		o.Spec.EncryptedData["password"] = sealed.Spec.EncryptedData["password"]
		c.Objects = append(c.Objects, Item{Newest: Version{Object: o, ID: "0123456789abcdef"}})
	}
	out, in := io.Pipe()
	var written, read uint64
	ended := make(chan error, 1)
	before := live()
	go func() {
		_, err := Write(t.Context(), in, r.to, c)
		in.CloseWithError(err)
		ended <- err
	}()
	b := must(NewReader(out, r.identity))(t)
	defer b.Close()
	n := 0
	for {
		o, err := b.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Data["password"]) != size {
			t.Fatalf("%s: %d bytes", o, len(o.Data["password"]))
		}
		o.Wipe()
		if n++; n == objects/20 {
			written = live()
		}
		if n == objects {
			read = live()
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	grown := int64(read) - int64(written)
	t.Logf("%d KiB before, %d KiB after %d objects, %d KiB after %d", before>>10, written>>10, objects/20, read>>10, objects)
	if grown > objects*1500 {
		t.Errorf("%d bytes for each object", grown/objects)
	}
}

func live() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// benchObject returns an object like those of a git source, with one value of
// the size that a short hybrid one has.
func benchObject(i int) *v1alpha1.EncryptedSecret {
	o := &v1alpha1.EncryptedSecret{}
	o.Namespace, o.Name = fmt.Sprintf("ns-%d", i%100), fmt.Sprintf("app-%d", i)
	o.Annotations = map[string]string{v1alpha1.AnnotationPath: "secrets/" + o.Name + ".yaml"}
	o.Spec.EncryptedData = map[string]string{"password": strings.Repeat("YWdlLWVuY3J5cHRp", 150)}
	return OwnedBy("vsecm-system.main", o)
}

// BenchmarkOpenDir opens a directory of 10,000 objects.
func BenchmarkOpenDir(b *testing.B) {
	const objects = 10_000
	dir := b.TempDir()
	for i := range objects {
		o := benchObject(i)
		data, err := encodeObject(o)
		if err != nil {
			b.Fatal(err)
		}
		path := filepath.Join(dir, objectsFolder, objectPath(KeyOf(o)))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := OpenDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		if len(d.memory.objects) != objects {
			b.Fatalf("%d objects: %v", len(d.memory.objects), d.Faults())
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply replaces objects, durably: one after the other, and many at a
// time, whose waits for the disk overlap.
func BenchmarkApply(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			d, err := OpenDir(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			var n atomic.Int64
			b.SetParallelism(max(1, writers/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(p *testing.PB) {
				mine := int(n.Add(1))
				if mine > writers {
					return
				}
				o := benchObject(mine)
				for p.Next() {
					o.Annotations["n"] = fmt.Sprint(n.Add(1))
					if _, err := d.Apply(b.Context(), "vsecm-system.main", o); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

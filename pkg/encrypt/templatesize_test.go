package encrypt_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// The path of each member of a structure was kept, so that a file of two megabytes took more than a gigabyte.
func TestAStructureTakesNoMoreThanItsFileDoes(t *testing.T) {
	var in strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&in, `"%d":1,`, i)
	}
	deep := "{" + in.String() + `"z":1}`
	for range 30 {
		deep = `{"` + strings.Repeat("\x7f", 253) + `":` + deep + "}"
	}
	file := func(structure string) []byte {
		return []byte(`{"apiVersion":"vsecm.com/v1alpha1","kind":"EncryptedSecret","metadata":{"name":"a","namespace":"b"},"spec":{"encryptedData":{"v":"x"},` +
			`"template":{"data":{"k":{"json":` + structure + `},"l":{"yaml":` + structure + `}}}}}`)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ms := encrypt.ReadManifests("f.json", file(deep), "")
	runtime.ReadMemStats(&after)
	if len(ms.Faults) != 1 || !strings.Contains(ms.Faults[0].Error(), "65536 bytes at most") || len(ms.Faults[0].Error()) > 2000 {
		t.Errorf("%d faults: %.3000v", len(ms.Faults), ms.Faults)
	}
	if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 200 {
		t.Errorf("%d MiB", made)
	}
	// What is deep, and no larger than it may be, is taken.
	small := `{"a":["{{ .v }}",{"b":1}]}`
	for range 28 {
		small = `{"` + strings.Repeat("a", 100) + `":` + small + "}"
	}
	if ms := encrypt.ReadManifests("f.json", file(small), ""); len(ms.Faults) > 0 || len(ms.Objects) != 1 {
		t.Errorf("%.3000v", ms.Faults)
	}
	twice := strings.Replace(small, `"b":1`, `"b":1,"b":2`, 1)
	if ms := encrypt.ReadManifests("f.json", file(twice), ""); len(ms.Faults) == 0 || !strings.Contains(ms.Faults[0].Error(), "twice") {
		t.Errorf("%.3000v", ms.Faults)
	}
}

package encrypt

import (
	"fmt"
	"strings"
	"testing"
)

func TestReadSecretsTellsFaultsInOrder(t *testing.T) {
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n"
	var want []string
	for c := 'a'; c <= 'z'; c++ {
		text += fmt.Sprintf("  k%c: '?'\n", c)
		want = append(want, fmt.Sprintf("data.k%c", c))
	}
	_, _, faults := ReadSecrets("f", []byte(text))
	var have []string
	for _, f := range faults {
		have = append(have, f.Field)
	}
	if strings.Join(have, " ") != strings.Join(want, " ") {
		t.Errorf("faults of %q", have)
	}
}

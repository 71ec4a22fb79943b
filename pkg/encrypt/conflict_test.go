package encrypt

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What git leaves in a file where two people changed the same key is told as what it is, on its line.
func TestAMergeConflictIsNamedAsSuch(t *testing.T) {
	const head = "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData:\n"
	const value = "    password: QQ==\n"
	for name, tc := range map[string]struct {
		text string
		line int
		mark string
	}{
		"one key, two values":        {head + "<<<<<<< HEAD\n" + value + "=======\n" + value + ">>>>>>> theirs\n", 6, "<<<<<<<"},
		"with the common ancestor":   {head + value + "<<<<<<< ours\n" + value + "||||||| base\n=======\n>>>>>>> theirs\n", 7, "<<<<<<<"},
		"the whole file":             {"<<<<<<< HEAD\n" + head + value + "=======\n" + head + value + ">>>>>>> 1a2b3c4 (fix: a new value)\n", 1, "<<<<<<<"},
		"documents at the end":       {head + value + "<<<<<<< HEAD\n---\n" + head + value + "=======\n---\n" + head + value + ">>>>>>> x\n", 7, "<<<<<<<"},
		"a document at the top":      {"<<<<<<< HEAD\n---\n" + head + value + "=======\n>>>>>>> x\n", 1, "<<<<<<<"},
		"lines that end as Windows'": {strings.ReplaceAll(head+"<<<<<<< HEAD\n"+value+"=======\n"+value+">>>>>>> x\n", "\n", "\r\n"), 6, "<<<<<<<"},
		"only the last mark left":    {head + value + ">>>>>>> theirs\n", 7, ">>>>>>>"},
		"only the middle one left":   {head + value + "=======\n", 7, "======="},
		"only the ancestor's left":   {head + value + "||||||| 1a2b3c4\n" + value, 7, "|||||||"},
		"marks without names":        {head + value + "<<<<<<<\n" + value + "=======\n>>>>>>>", 7, "<<<<<<<"},
		"JSON":                       {"{\n\"apiVersion\": \"vsecm.com/v1alpha1\",\n<<<<<<< HEAD\n\"kind\": \"A\",\n=======\n\"kind\": \"B\",\n>>>>>>> x\n\"metadata\": {}\n}\n", 3, "<<<<<<<"},
	} {
		t.Run(name, func(t *testing.T) {
			ms := ReadManifests("db.yaml", []byte(tc.text), "")
			if len(ms.Faults) != 1 || !errors.Is(ms.Faults[0], ErrMergeConflict) {
				t.Fatalf("got %v", ms.Faults)
			}
			want := fmt.Sprintf("db.yaml:%d: unresolved merge conflict: the line begins with %s", tc.line, tc.mark)
			if got := ms.Faults[0].Error(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A project file is read by everything: it says so, too.
func TestAMergeConflictInAProjectFileIsNamedAsSuch(t *testing.T) {
	_, faults := ParseProject(ProjectFile, []byte("rules:\n<<<<<<< HEAD\n- path: a/**\n=======\n- path: b/**\n>>>>>>> x\n"))
	if len(faults) != 1 || !errors.Is(faults[0], ErrMergeConflict) || faults[0].Line != 2 {
		t.Errorf("got %v", faults)
	}
}

func TestWhatOnlyLooksLikeAMergeConflictIsNone(t *testing.T) {
	const good = "apiVersion: vsecm.com/v1alpha1\nkind: EncryptedSecret\nmetadata: {name: db, namespace: shop}\nspec:\n  encryptedData: {}\n"
	for name, text := range map[string]string{
		"in a comment":             good + "# <<<<<<< HEAD\n",
		"indented, in other text":  good + "---\nkind: ConfigMap\ndata:\n  howto: |\n    <<<<<<< HEAD\n    =======\n    >>>>>>> x\n",
		"a longer line of its own": good + "# =======\n",
	} {
		if ms := ReadManifests("db.yaml", []byte(text), ""); len(ms.Faults) != 0 || len(ms.Objects) != 1 {
			t.Errorf("%s: %v", name, ms.Faults)
		}
	}
	broken := good + "<<<<<<<< eight\n========\nmerge: [\n"
	if ms := ReadManifests("db.yaml", []byte(broken), ""); len(ms.Faults) != 1 || errors.Is(ms.Faults[0], ErrMergeConflict) {
		t.Errorf("another fault was told as a conflict: %v", ms.Faults)
	}
}

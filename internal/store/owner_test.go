package store

import (
	"errors"
	"os"
	"testing"
)

func TestAFolderOfAnotherUserIsRefused(t *testing.T) {
	folder := t.TempDir()
	if err := checkFolder(folder, os.Geteuid()); err != nil {
		t.Error(err)
	}
	if err := checkFolder(folder, os.Geteuid()+1); !errors.Is(err, ErrExposed) {
		t.Errorf("got %v", err)
	}
	if err := checkFolder(folder+"/missing", os.Geteuid()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

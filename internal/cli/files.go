package cli

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// manifestFiles returns the file that path is, or the YAML and JSON files in
// the folder that it is, however deep. Like Safe, it follows no symbolic link
// on the way; unlike Safe, it takes a named file whatever it is called.
func manifestFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return filepath.SkipDir
		case entry.Type().IsRegular() && isManifestName(entry.Name()):
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for manifests in %s: %w", path, err)
	}
	return files, nil
}

func isManifestName(name string) bool {
	return name != encrypt.ProjectFile && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

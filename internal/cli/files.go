package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A manifestFile is a file that was named, or found below a folder that was.
type manifestFile struct {
	path     string
	relative string // below the folder, or the file's own name
}

// manifestFiles returns the file that path is, or the YAML and JSON files in
// the folder that it is, however deep. Like Safe, it follows no symbolic link
// on the way; unlike Safe, it takes what is named whatever it is called, and through links.
func manifestFiles(path string) ([]manifestFile, error) { return filesIn(path, isManifestName) }

// A noFileError says that there is neither a file nor a folder of a name. It is an [fs.ErrNotExist].
type noFileError struct{ path string }

func (e noFileError) Error() string { return "there is no file or folder " + e.path }

func (e noFileError) Is(target error) bool { return target == fs.ErrNotExist }

// filesIn is manifestFiles for the files of other names.
func filesIn(path string, wanted func(name string) bool) ([]manifestFile, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noFileError{path}
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []manifestFile{{path, filepath.Base(path)}}, nil
	}
	var files []manifestFile
	err = fs.WalkDir(os.DirFS(path), ".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.Type().IsRegular() && wanted(entry.Name()):
			relative := filepath.FromSlash(file)
			files = append(files, manifestFile{filepath.Join(path, relative), relative})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for files in %s: %w", path, err)
	}
	return files, nil
}

// manifestFilesOf returns the files of all paths, sorted, each once however many of the
// paths lead to it.
func manifestFilesOf(paths []string) ([]string, error) {
	byReal := make(map[string]string)
	for _, path := range paths {
		files, err := manifestFiles(path)
		if err != nil {
			return nil, err
		}
		root, err := realPath(path)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			real := root
			if f.path != path { // found below it, where no link is followed
				real = filepath.Join(root, f.relative)
			}
			if known, twice := byReal[real]; !twice || f.path < known {
				byReal[real] = f.path
			}
		}
	}
	return slices.Sorted(maps.Values(byReal)), nil
}

// realPath returns the one absolute path that leads to a file through no link.
func realPath(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(absolute)
}

func isManifestName(name string) bool {
	return name != encrypt.ProjectFile && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

package krew

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// A File is one entry of an archive.
type File struct {
	Name string      // without a folder
	Mode fs.FileMode // permission bits
	Body []byte
}

// WriteArchive writes files, in the order given, as the format that name ends
// in, .tar.gz or .zip. The bytes depend on the arguments and the release of Go
// alone: no owner, no other time than modified.
func WriteArchive(w io.Writer, name string, files []File, modified time.Time) error {
	modified = modified.UTC().Truncate(time.Second)
	switch {
	case strings.HasSuffix(name, ".tar.gz"):
		return writeTarGz(w, files, modified)
	case strings.HasSuffix(name, ".zip"):
		return writeZip(w, files, modified)
	default:
		return fmt.Errorf("archive %s: krew unpacks .tar.gz and .zip only", name)
	}
}

func writeTarGz(w io.Writer, files []File, modified time.Time) error {
	gz, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	for _, f := range files {
		if err := tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Format:   tar.FormatUSTAR,
			Name:     f.Name,
			Mode:     int64(f.Mode.Perm()),
			Size:     int64(len(f.Body)),
			ModTime:  modified,
		}); err != nil {
			return fmt.Errorf("archive %s: %w", f.Name, err)
		}
		if _, err := tw.Write(f.Body); err != nil {
			return fmt.Errorf("archive %s: %w", f.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return gz.Close()
}

func writeZip(w io.Writer, files []File, modified time.Time) error {
	zw := zip.NewWriter(w)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.Name, Method: zip.Deflate, Modified: modified}
		h.SetMode(f.Mode)
		entry, err := zw.CreateHeader(h)
		if err != nil {
			return fmt.Errorf("archive %s: %w", f.Name, err)
		}
		if _, err := entry.Write(f.Body); err != nil {
			return fmt.Errorf("archive %s: %w", f.Name, err)
		}
	}
	return zw.Close()
}

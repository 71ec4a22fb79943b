// Image makes Safe's container image as archives in the OCI image layout:
//
//	image -name REPOSITORY -version v1.2.3 -time UNIX -license LICENSE -dir DIR linux/amd64=PROGRAM …
//
// One archive for each platform and, under an image index, one for all of them.
// It prints the digest of that index: what a registry knows the image by once
// the archive is copied there whole. Nothing but its arguments, the root
// certificates of a module that go.sum pins, and the release of Go decides on
// the bytes.
package main

import (
	"archive/tar"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A release is what all images of one have in common.
type release struct {
	repository string
	version    string
	created    time.Time
	license    []byte
}

func main() {
	name := flag.String("name", "", "repository that the image is for, with its registry")
	version := flag.String("version", "", "release, the image's tag")
	epoch := flag.Int64("time", 0, "Unix seconds that the image and its files bear")
	license := flag.String("license", "LICENSE", "file with the licence")
	dir := flag.String("dir", ".", "where the archives go")
	flag.Parse()
	digest, err := run(release{repository: *name, version: *version, created: time.Unix(*epoch, 0).UTC()}, *license, *dir, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

func run(r release, license, dir string, programs []string) (v1.Hash, error) {
	if r.repository == "" || r.version == "" || len(programs) == 0 {
		return v1.Hash{}, errors.New("image needs a name, a version and programs, as linux/amd64=PROGRAM")
	}
	var err error
	if r.license, err = os.ReadFile(license); err != nil {
		return v1.Hash{}, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, program := range programs {
		platform, path, _ := strings.Cut(program, "=")
		system, arch, ok := strings.Cut(platform, "/")
		if !ok || path == "" {
			return v1.Hash{}, fmt.Errorf("%q is not OS/ARCH=PROGRAM", program)
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return v1.Hash{}, err
		}
		p := v1.Platform{OS: system, Architecture: arch}
		image, err := r.image(p, body)
		if err != nil {
			return v1.Hash{}, fmt.Errorf("image for %s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &p}})

		one := fmt.Sprintf("safe_%s_%s_%s.oci.tar", r.version, system, arch)
		if err := r.archive(filepath.Join(dir, one), func(to layout.Path) error {
			return to.AppendImage(image, layout.WithPlatform(p), layout.WithAnnotations(r.names()))
		}); err != nil {
			return v1.Hash{}, err
		}
	}
	all := fmt.Sprintf("safe_%s.oci.tar", r.version)
	if err := r.archive(filepath.Join(dir, all), func(to layout.Path) error {
		return to.AppendIndex(index, layout.WithAnnotations(r.names()))
	}); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// names are annotations by which programs that load an archive know the name of what is in it:
// the layout's own, and the one that containerd and Docker read, since the former has room
// for a tag alone.
func (r release) names() map[string]string {
	return map[string]string{
		"org.opencontainers.image.ref.name": r.version,
		"io.containerd.image.name":          r.repository + ":" + r.version,
	}
}

// archive writes what fill puts into a layout as a tar archive.
func (r release) archive(path string, fill func(layout.Path) error) (err error) {
	dir, err := os.MkdirTemp("", "vsecm-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := fill(to); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.tar(f, dir), f.Close())
}

// tar writes the files below dir in the order of their names, readable by all and of one
// time, whatever they are on this disk.
func (r release) tar(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return writeFile(tw, filepath.ToSlash(name), 0o644, body, r.created)
	})
	return errors.Join(err, tw.Close())
}

func writeFile(tw *tar.Writer, name string, mode int64, body []byte, modified time.Time) error {
	if err := tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		Name: name, Mode: mode, Size: int64(len(body)), ModTime: modified,
	}); err != nil {
		return err
	}
	_, err := tw.Write(body)
	return err
}

// Pack makes the archive of one platform for a release:
//
//	pack -version v1.2.3 -platform linux/amd64 -time UNIX -dir DIR PROGRAM LICENSE
//
// PROGRAM becomes the executable; its name in the archive is the platform's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vsecm/kubectl-vsecm/krew"
)

func main() {
	version := flag.String("version", "", "release, a semantic version with its v")
	platform := flag.String("platform", "", "GOOS/GOARCH")
	epoch := flag.Int64("time", 0, "Unix seconds that the files bear")
	dir := flag.String("dir", ".", "where the archive goes")
	flag.Parse()
	if err := pack(*version, *platform, time.Unix(*epoch, 0), *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func pack(version, platform string, modified time.Time, dir string, paths []string) error {
	if err := krew.CheckVersion(version); err != nil {
		return err
	}
	p, err := krew.ParsePlatform(platform)
	if err != nil {
		return err
	}
	if len(paths) != 2 {
		return errors.New("pack takes two files, the program and the licence")
	}
	program, err := os.ReadFile(paths[0])
	if err != nil {
		return err
	}
	license, err := os.ReadFile(paths[1])
	if err != nil {
		return err
	}
	files := []krew.File{
		{Name: "LICENSE", Mode: 0o644, Body: license},
		{Name: p.Bin(), Mode: 0o755, Body: program},
	}

	name := p.ArchiveName(version)
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return errors.Join(krew.WriteArchive(f, name, files, modified), f.Close())
}

// Pack makes the archive of a program for one platform of a release:
//
//	pack -name kubectl-vsecm -version v1.2.3 -platform linux/amd64 -time UNIX -dir DIR PROGRAM LICENSE
//
// PROGRAM becomes the executable; its name in the archive is the platform's. The
// plugin's archive has the script, too, by which kubectl completes its arguments.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vsecm/kubectl-vsecm/internal/kubectlcomplete"
	"github.com/vsecm/kubectl-vsecm/krew"
)

func main() {
	program := flag.String("name", "", "what is packed: kubectl-vsecm, safe or vsecm-sops")
	version := flag.String("version", "", "release, a semantic version with its v")
	platform := flag.String("platform", "", "GOOS/GOARCH")
	epoch := flag.Int64("time", 0, "Unix seconds that the files bear")
	dir := flag.String("dir", ".", "where the archive goes")
	flag.Parse()
	if err := pack(*program, *version, *platform, time.Unix(*epoch, 0), *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func pack(name, version, platform string, modified time.Time, dir string, paths []string) error {
	if err := krew.CheckVersion(version); err != nil {
		return err
	}
	p, err := krew.ParsePlatform(platform)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{krew.Plugin, krew.Safe, krew.Sops}, name) {
		return fmt.Errorf("a release has no program %q", name)
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
		{Name: p.Bin(name), Mode: 0o755, Body: program},
	}
	if name == krew.Plugin {
		script, body := kubectlcomplete.Script(p.OS)
		files = append(files, krew.File{Name: script, Mode: 0o755, Body: body})
	}

	archive := p.ArchiveName(name, version)
	f, err := os.Create(filepath.Join(dir, archive))
	if err != nil {
		return err
	}
	return errors.Join(krew.WriteArchive(f, archive, files, modified), f.Close())
}

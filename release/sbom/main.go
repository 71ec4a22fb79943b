// Sbom writes the software bill of materials of one program as SPDX 2.3, JSON:
//
//	sbom -name kubectl-vsecm -version v1.2.3 -time UNIX -o FILE ARTIFACT=PROGRAM …
//
// It says of every ARTIFACT of a release which modules are in the PROGRAM that
// the artifact holds: those that Go's linker recorded there, so that no list
// made of something else can differ from it.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	name := flag.String("name", "", "program that the document is about")
	version := flag.String("version", "", "release, a semantic version with its v")
	epoch := flag.Int64("time", 0, "Unix seconds that the document bears")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*name, *version, time.Unix(*epoch, 0).UTC(), *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(name, version string, created time.Time, out string, args []string) error {
	if name == "" || version == "" || len(args) == 0 {
		return errors.New("sbom needs a name, a version and ARTIFACT=PROGRAM")
	}
	var artifacts []artifact
	for _, arg := range args {
		path, program, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not ARTIFACT=PROGRAM", arg)
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
		artifacts = append(artifacts, artifact{filepath.Base(path), hex.EncodeToString(sum[:]), info})
	}
	var b bytes.Buffer
	if err := write(&b, name, version, created, artifacts); err != nil {
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

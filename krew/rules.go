package krew

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"
)

// Manifest is what of krew's Plugin type a manifest of ours may hold
// (sigs.k8s.io/krew/pkg/index, types.go).
type Manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Version          string             `json:"version"`
		Homepage         string             `json:"homepage"`
		ShortDescription string             `json:"shortDescription"`
		Description      string             `json:"description"`
		Caveats          string             `json:"caveats,omitempty"`
		Platforms        []ManifestPlatform `json:"platforms"`
	} `json:"spec"`
}

// ManifestPlatform says what krew installs where the selector matches.
type ManifestPlatform struct {
	Selector *metav1.LabelSelector `json:"selector"`
	URI      string                `json:"uri"`
	SHA256   string                `json:"sha256"`
	Files    []FileOperation       `json:"files,omitempty"`
	Bin      string                `json:"bin"`
}

// FileOperation copies what matches From out of the archive to the folder To.
type FileOperation struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// krewPlatforms is what krew itself is released for, and so may be selected.
var krewPlatforms = []Platform{
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"linux", "amd64"}, {"linux", "arm"}, {"linux", "arm64"}, {"linux", "ppc64le"}, {"linux", "s390x"},
	{"windows", "amd64"}, {"windows", "arm64"},
}

var (
	safeName = regexp.MustCompile(`^[\w-]+$`)
	kebab    = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	sha256Re = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// reserved are the file names that Windows keeps for devices.
var reserved = []string{
	"CON", "PRN", "AUX", "NUL",
	"COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9",
	"LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
}

// Check holds the manifest that is in the file of the given name to krew's
// rules, and returns every breach. The rules are those of
//
//   - krew's reader: internal/index/validation/validate.go;
//   - the program that the index's CI runs: cmd/validate-krew-manifest/main.go,
//     whose installation of each archive CheckArchive stands in for;
//   - the reviewers: https://krew.sigs.k8s.io/docs/developer-guide, its pages on
//     manifests, naming and submitting, and the limit of 50 characters for the
//     short description that keeps `krew search` to one line;
//   - ourselves: https only, and no field that krew does not know.
func Check(filename string, manifest []byte) error {
	var m Manifest
	if err := yaml.UnmarshalStrict(manifest, &m); err != nil {
		return fmt.Errorf("krew manifest: %w", err)
	}
	return errors.Join(slices.Concat(m.checkName(filename), m.checkDescription(), m.checkPlatforms())...)
}

func (m Manifest) checkName(filename string) (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if m.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" {
		fault("apiVersion %q is not krew's", m.APIVersion)
	}
	if m.Kind != "Plugin" {
		fault("kind %q is not Plugin", m.Kind)
	}
	name := m.Metadata.Name
	if !safeName.MatchString(name) || slices.Contains(reserved, strings.ToUpper(name)) {
		fault("metadata.name %q is not safe as a file name", name)
	}
	if !kebab.MatchString(name) {
		fault("metadata.name %q is not lower case with hyphens", name)
	}
	if strings.HasPrefix(name, "kube") {
		fault("metadata.name %q repeats the kube of kubectl", name)
	}
	if filename != name+".yaml" {
		fault("the file is called %q, not %q", filename, name+".yaml")
	}
	if !strings.HasPrefix(m.Spec.Version, "v") {
		fault("spec.version %q does not start with v", m.Spec.Version)
	}
	if _, err := version.ParseSemantic(m.Spec.Version); err != nil {
		fault("spec.version: %w", err)
	}
	return faults
}

func (m Manifest) checkDescription() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	short := m.Spec.ShortDescription
	if short == "" {
		fault("spec.shortDescription is missing")
	}
	if strings.ContainsAny(short, "\r\n") {
		fault("spec.shortDescription has more than one line")
	}
	if n := utf8.RuneCountInString(short); n > 50 {
		fault("spec.shortDescription has %d characters, at most 50", n)
	}
	if m.Spec.Description == "" {
		fault("spec.description is missing")
	}
	for field, text := range map[string]string{"description": m.Spec.Description, "caveats": m.Spec.Caveats} {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); len(line) > 80 && strings.Contains(line, " ") {
				fault("spec.%s has a line of more than 80 characters: %q", field, line)
			}
		}
	}
	if err := checkHTTPS(m.Spec.Homepage); err != nil {
		fault("spec.homepage: %w", err)
	}
	return faults
}

func (m Manifest) checkPlatforms() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if len(m.Spec.Platforms) == 0 {
		fault("spec.platforms is empty")
	}
	selected := make(map[Platform]int)
	for i, p := range m.Spec.Platforms {
		for _, err := range p.check() {
			fault("spec.platforms[%d]: %w", i, err)
		}
		var matches []Platform
		for _, platform := range krewPlatforms {
			if !p.Matches(platform) {
				continue
			}
			matches = append(matches, platform)
			if before, taken := selected[platform]; taken {
				fault("spec.platforms[%d] and [%d] both select %s/%s", before, i, platform.OS, platform.Arch)
			}
			selected[platform] = i
		}
		if len(matches) == 0 {
			fault("spec.platforms[%d] selects no platform that krew runs on", i)
		}
		for _, platform := range matches {
			if platform.OS == "windows" && path.Ext(p.Bin) != ".exe" {
				fault("spec.platforms[%d].bin %q: Windows runs .exe only", i, p.Bin)
			}
		}
	}
	return faults
}

// Matches reports whether krew would take p on the platform.
func (p ManifestPlatform) Matches(platform Platform) bool {
	selector, err := metav1.LabelSelectorAsSelector(p.Selector)
	return err == nil && selector.Matches(labels.Set{"os": platform.OS, "arch": platform.Arch})
}

func (p ManifestPlatform) check() (faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if err := checkHTTPS(p.URI); err != nil {
		fault("uri: %w", err)
	}
	if !sha256Re.MatchString(p.SHA256) {
		fault("sha256 %q is not 64 lower-case hex digits", p.SHA256)
	}
	if p.Bin == "" {
		fault("bin is missing")
	}
	if p.Files != nil && len(p.Files) == 0 {
		fault("files is empty: leave it out, or name some")
	}
	for i, f := range p.Files {
		if f.From == "" || f.To == "" {
			fault("files[%d] needs from and to", i)
		}
	}

	if p.Selector == nil || p.Selector.MatchLabels == nil && len(p.Selector.MatchExpressions) == 0 {
		fault("selector is missing or empty")
		return faults
	}
	if p.Selector.MatchLabels != nil && len(p.Selector.MatchLabels) == 0 {
		fault("selector.matchLabels is empty")
	}
	if p.Selector.MatchExpressions != nil && len(p.Selector.MatchExpressions) == 0 {
		fault("selector.matchExpressions is empty")
	}
	var keys []string
	for key := range p.Selector.MatchLabels {
		keys = append(keys, key)
	}
	for _, expression := range p.Selector.MatchExpressions {
		keys = append(keys, expression.Key)
	}
	for _, key := range keys {
		if key != "os" && key != "arch" {
			fault("selector has the key %q: krew knows os and arch", key)
		}
	}
	return faults
}

func checkHTTPS(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an https address", s)
	}
	return nil
}

// CheckArchive holds the bytes of p's archive to what krew unpacks
// (internal/download/downloader.go) and then installs: a tar.gz or zip by its
// content, of plain files inside one folder, with everything that files names,
// the program, executable, and the licence among them.
func (p ManifestPlatform) CheckArchive(archive []byte) error {
	files, err := Unpack(archive)
	if err != nil {
		return err
	}
	operations := p.Files
	if operations == nil {
		operations = []FileOperation{{From: "*", To: "."}}
	}
	installed := make(map[string]File)
	for _, op := range operations {
		found := false
		for _, f := range files {
			if ok, err := path.Match(op.From, f.Name); err != nil {
				return fmt.Errorf("files: %q: %w", op.From, err)
			} else if ok {
				found = true
				installed[path.Join(op.To, path.Base(f.Name))] = f
			}
		}
		if !found {
			return fmt.Errorf("files: the archive has nothing called %q", op.From)
		}
	}
	bin, ok := installed[path.Clean(p.Bin)]
	if !ok {
		return fmt.Errorf("bin: %q is not installed", p.Bin)
	}
	if bin.Mode&0o111 == 0 {
		return fmt.Errorf("bin: %q is not executable", p.Bin)
	}
	if _, ok := installed["LICENSE"]; !ok {
		return errors.New("no LICENSE is installed")
	}
	return nil
}

// Unpack reads an archive as krew does, by its content rather than its name, and
// refuses what krew refuses: entries that climb out and those that are no plain
// files.
func Unpack(archive []byte) ([]File, error) {
	var files []File
	var err error
	switch kind := http.DetectContentType(archive); kind {
	case "application/x-gzip":
		files, err = unpackTarGz(archive)
	case "application/zip":
		files, err = unpackZip(archive)
	default:
		return nil, fmt.Errorf("archive: krew does not unpack %s", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	for _, f := range files {
		if strings.Contains(f.Name, "..") || strings.HasPrefix(f.Name, "/") || strings.HasPrefix(f.Name, `\`) {
			return nil, fmt.Errorf("archive: entry %q climbs out", f.Name)
		}
	}
	return files, nil
}

func unpackTarGz(archive []byte) (files []File, err error) {
	gz, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("entry %q is no plain file", h.Name)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		files = append(files, File{h.Name, h.FileInfo().Mode(), body})
	}
}

func unpackZip(archive []byte) (files []File, err error) {
	zr, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, err
	}
	for _, f := range zr.File {
		if !f.Mode().IsRegular() {
			return nil, fmt.Errorf("entry %q is no plain file", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		files = append(files, File{f.Name, f.Mode(), body})
	}
	return files, nil
}

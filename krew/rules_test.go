package krew

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// render returns the manifest of a release with an archive for every platform.
func render(t *testing.T, version string) []byte {
	t.Helper()
	release := Release{Version: version}
	for _, s := range Platforms {
		p, err := ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		release.Builds = append(release.Builds, Build{p, p.Bin(Plugin), p.ArchiveName(Plugin, version), strings.Repeat("0f", 32)})
	}
	tmpl, err := os.ReadFile("vsecm.yaml.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var manifest bytes.Buffer
	if err := release.Render(&manifest, string(tmpl)); err != nil {
		t.Fatal(err)
	}
	return manifest.Bytes()
}

func TestRenderedManifestKeepsKrewsRules(t *testing.T) {
	for _, version := range []string{"v1.2.3", "v0.1.0-rc.1"} {
		if err := Check("vsecm.yaml", render(t, version)); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestEveryPlatformOfAReleaseIsSelectedOnce(t *testing.T) {
	var m Manifest
	if err := yaml.UnmarshalStrict(render(t, "v1.2.3"), &m); err != nil {
		t.Fatal(err)
	}
	for _, s := range Platforms {
		platform, err := ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		var uris []string
		for _, p := range m.Spec.Platforms {
			if p.Matches(platform) {
				uris = append(uris, p.URI)
			}
		}
		want := "https://github.com/vsecm/kubectl-vsecm/releases/download/v1.2.3/" + platform.ArchiveName(Plugin, "v1.2.3")
		if len(uris) != 1 || uris[0] != want {
			t.Errorf("%s is offered %v, want %s", s, uris, want)
		}
	}
}

// Each case breaks one rule in an otherwise good manifest, so that each rule is
// seen to refuse.
func TestCheckRefuses(t *testing.T) {
	const linux = "          os: linux\n          arch: amd64\n"
	for _, tc := range []struct {
		name     string
		old, new string
		want     string
	}{
		{"another apiVersion", "v1alpha2", "v1alpha3", "apiVersion"},
		{"another kind", "kind: Plugin", "kind: Index", "kind"},
		{"a name with a path in it", "name: vsecm", "name: ../vsecm", "not safe"},
		{"a name that Windows keeps", "name: vsecm", "name: nul", "not safe"},
		{"a name in upper case", "name: vsecm", "name: Vsecm", "lower case"},
		{"a name with underscores", "name: vsecm", "name: v_secm", "lower case"},
		{"a name that repeats kube", "name: vsecm", "name: kube-vsecm", "repeats the kube"},
		{"a name unlike the file's", "name: vsecm", "name: vsecn", "the file is called"},
		{"a version without v", "version: v1.2.3", "version: 1.2.3", "start with v"},
		{"a version that is none", "version: v1.2.3", "version: v1.2", "spec.version"},
		{"no version", "version: v1.2.3", "version: ''", "spec.version"},
		{"a homepage without TLS", "homepage: https:", "homepage: http:", "spec.homepage"},
		{"no short description", "Encrypt secrets for git; deliver them to workloads", "''", "shortDescription is missing"},
		{"a short description of two lines", "Encrypt secrets for git; deliver them to workloads", `"a\nb"`, "more than one line"},
		{"a short description of 51 characters", "Encrypt secrets for git;", "Encrypt secrets for git ;", "51 characters"},
		{"a field that stands twice", "description: |", "description: ''\n  caveats: |", "already set"},
		{"a long line in the description", "open it without this software.", strings.Repeat("open it ", 12), "more than 80"},
		{"a long line in the caveats", "needs a public key and nothing", strings.Repeat("needs ", 12), "more than 80"},
		{"an unknown field", "  platforms:", "  color: red\n  platforms:", "unknown field"},
		{"a download without TLS", "uri: https:", "uri: http:", "uri"},
		{"a sum in upper case", "sha256: 0f", "sha256: 0F", "sha256"},
		{"a sum that is short", "sha256: 0f0f", "sha256: 0f", "sha256"},
		{"no program", "      bin: kubectl-vsecm\n", "", "bin is missing"},
		{"a program without .exe on Windows", "bin: kubectl-vsecm.exe", "bin: kubectl-vsecm", "Windows runs .exe only"},
		{"a file without from", "from: LICENSE", "from: ''", "needs from and to"},
		{"a file without to", "to: .", "to: ''", "needs from and to"},
		{"no selector", "selector:\n        matchLabels:\n" + linux, "selector:\n", "missing or empty"},
		{"an empty selector", "matchLabels:\n" + linux, "matchLabels: {}\n", "matchLabels is empty"},
		{"an unknown key in a selector", linux, linux + "          libc: musl\n", `"libc"`},
		{"a platform that krew has not", linux, "          os: plan9\n          arch: amd64\n", "no platform that krew runs on"},
		{"selectors that overlap", linux, "          os: linux\n", "both select linux/arm64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := string(render(t, "v1.2.3"))
			bad := strings.ReplaceAll(good, tc.old, tc.new)
			if bad == good {
				t.Fatalf("the manifest has no %q", tc.old)
			}
			err := Check("vsecm.yaml", []byte(bad))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error about %q", err, tc.want)
			}
		})
	}

	t.Run("no platforms", func(t *testing.T) {
		bad, _, _ := strings.Cut(string(render(t, "v1.2.3")), "  platforms:")
		if err := Check("vsecm.yaml", []byte(bad)); err == nil || !strings.Contains(err.Error(), "spec.platforms is empty") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no description", func(t *testing.T) {
		if faults := (Manifest{}).checkDescription(); !strings.Contains(errorsText(faults), "spec.description is missing") {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("files that are empty", func(t *testing.T) {
		p := ManifestPlatform{Files: []FileOperation{}}
		if faults := p.check(); !strings.Contains(errorsText(faults), "files is empty") {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("the file under another name", func(t *testing.T) {
		if err := Check("plugin.yml", render(t, "v1.2.3")); err == nil || !strings.Contains(err.Error(), "the file is called") {
			t.Errorf("got %v", err)
		}
	})
}

func errorsText(errs []error) string {
	var b strings.Builder
	for _, err := range errs {
		b.WriteString(err.Error() + "\n")
	}
	return b.String()
}

func TestCheckVersion(t *testing.T) {
	for _, good := range []string{"v0.0.1", "v1.2.3", "v10.20.30", "v1.2.3-rc.1", "v1.2.3-alpha-1"} {
		if err := CheckVersion(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "1.2.3", "v1", "v1.2", "v01.2.3", "v1.2.3-", "v1.2.3-01", "v1.2.3+build", "v1.2.3 ", "v1.2.3\n",
		"d74e952", "v1.2.3/../x",
	} {
		if err := CheckVersion(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestReadSumsRefusesWhatIsNoArchiveOfTheRelease(t *testing.T) {
	for _, bad := range []string{
		"0f  kubectl-vsecm_v1.2.2_linux_amd64.tar.gz\n",
		"0f  kubectl-vsecm_v1.2.3_linux_amd64.zip\n",
		"0f kubectl-vsecm_v1.2.3_linux_amd64.tar.gz\n",
		"\n",
	} {
		if _, err := ReadSums(strings.NewReader(bad), "v1.2.3"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestArchive(t *testing.T) {
	modified := time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600))
	files := []File{
		{Name: "LICENSE", Mode: 0o644, Body: []byte("take it")},
		{Name: "kubectl-vsecm", Mode: 0o755, Body: bytes.Repeat([]byte("program "), 10_000)},
	}
	for _, name := range []string{"a.tar.gz", "a.zip"} {
		t.Run(name, func(t *testing.T) {
			var first, second bytes.Buffer
			if err := WriteArchive(&first, name, files, modified); err != nil {
				t.Fatal(err)
			}
			if err := WriteArchive(&second, name, files, modified.UTC()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first.Bytes(), second.Bytes()) {
				t.Error("the same files give other bytes the second time")
			}
			got, err := Unpack(first.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(files) {
				t.Fatalf("%d files came out, want %d", len(got), len(files))
			}
			for i, f := range files {
				if got[i].Name != f.Name || got[i].Mode != f.Mode || !bytes.Equal(got[i].Body, f.Body) {
					t.Errorf("%s came out as %s, mode %v, %d bytes", f.Name, got[i].Name, got[i].Mode, len(got[i].Body))
				}
			}
		})
	}
	t.Run("another format", func(t *testing.T) {
		if err := WriteArchive(&bytes.Buffer{}, "a.tar.xz", files, modified); err == nil {
			t.Error("krew does not unpack tar.xz")
		}
	})
}

func TestCheckArchiveRefuses(t *testing.T) {
	license := File{Name: "LICENSE", Mode: 0o644, Body: []byte("take it")}
	program := File{Name: "kubectl-vsecm", Mode: 0o755, Body: []byte("program")}
	explicit := []FileOperation{{From: "kubectl-vsecm", To: "."}, {From: "LICENSE", To: "."}}

	for _, tc := range []struct {
		name       string
		files      []File
		operations []FileOperation
		want       string
	}{
		{"nothing of a good one", []File{license, program}, explicit, ""},
		{"nothing of one that installs everything", []File{license, program}, nil, ""},
		{"no licence", []File{program}, nil, "LICENSE"},
		{"a licence that is not installed", []File{license, program}, explicit[:1], "LICENSE"},
		{"no program", []File{license}, nil, "bin"},
		{"a program that cannot be executed", []File{license, {Name: "kubectl-vsecm", Mode: 0o644}}, nil, "not executable"},
		{"a file that files names and is not there", []File{license}, explicit, "nothing called"},
		{"a way out", []File{license, program, {Name: "../x", Mode: 0o644}}, nil, "climbs out"},
		{"a way to the root", []File{license, program, {Name: "/x", Mode: 0o644}}, nil, "climbs out"},
	} {
		for _, format := range []string{".tar.gz", ".zip"} {
			t.Run(tc.name+format, func(t *testing.T) {
				var archive bytes.Buffer
				if err := WriteArchive(&archive, "a"+format, tc.files, time.Unix(1e9, 0)); err != nil {
					t.Fatal(err)
				}
				err := ManifestPlatform{Files: tc.operations, Bin: "kubectl-vsecm"}.CheckArchive(archive.Bytes())
				if tc.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want an error about %q", err, tc.want)
				}
			})
		}
	}
	t.Run("what is no archive", func(t *testing.T) {
		if _, err := Unpack([]byte("#!/bin/sh\n")); err == nil {
			t.Error("a script was taken for an archive")
		}
	})
}

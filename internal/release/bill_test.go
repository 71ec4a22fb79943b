package release

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vsecm/kubectl-vsecm/krew"
)

// A bill is what of an SPDX 2.3 document ours has to have.
type bill struct {
	SPDXVersion       string `json:"spdxVersion"`
	DataLicense       string `json:"dataLicense"`
	SPDXID            string `json:"SPDXID"`
	Name              string `json:"name"`
	DocumentNamespace string `json:"documentNamespace"`
	CreationInfo      struct {
		Created  time.Time `json:"created"`
		Creators []string  `json:"creators"`
	} `json:"creationInfo"`
	Packages []struct {
		SPDXID           string `json:"SPDXID"`
		Name             string `json:"name"`
		Version          string `json:"versionInfo"`
		FileName         string `json:"packageFileName"`
		DownloadLocation string `json:"downloadLocation"`
		FilesAnalyzed    *bool  `json:"filesAnalyzed"`
		Checksums        []struct{ Algorithm, ChecksumValue string }
		ExternalRefs     []struct{ ReferenceCategory, ReferenceType, ReferenceLocator string }
	} `json:"packages"`
	Relationships []struct {
		From string `json:"spdxElementId"`
		To   string `json:"relatedSpdxElement"`
		Kind string `json:"relationshipType"`
	} `json:"relationships"`
}

func TestBillOfMaterialsNamesTheModulesOfTheProgram(t *testing.T) {
	identifier := regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`) // section 7.2 of SPDX 2.3
	for _, program := range []string{krew.Plugin, krew.Safe, krew.Sops} {
		t.Run(program, func(t *testing.T) {
			var b bill
			if err := json.Unmarshal(read(t, program+"_"+version+".spdx.json"), &b); err != nil {
				t.Fatal(err)
			}
			if b.SPDXVersion != "SPDX-2.3" || b.DataLicense != "CC0-1.0" || b.SPDXID != "SPDXRef-DOCUMENT" || b.Name == "" ||
				!strings.HasPrefix(b.DocumentNamespace, "https://") || strings.Contains(b.DocumentNamespace, "#") ||
				b.CreationInfo.Created.IsZero() || len(b.CreationInfo.Creators) == 0 {
				t.Errorf("the document lacks what every one needs: %+v", b.CreationInfo)
			}

			known := map[string]bool{b.SPDXID: true}
			modules := make(map[string]string) // id → path@version
			archive := ""
			for _, p := range b.Packages {
				if known[p.SPDXID] || !identifier.MatchString(p.SPDXID) {
					t.Errorf("%q is no identifier, or stands twice", p.SPDXID)
				}
				known[p.SPDXID] = true
				if p.Name == "" || p.DownloadLocation == "" || p.FilesAnalyzed == nil || *p.FilesAnalyzed {
					t.Errorf("%s lacks what every package needs", p.SPDXID)
				}
				if len(p.ExternalRefs) != 1 || p.ExternalRefs[0].ReferenceCategory != "PACKAGE-MANAGER" || p.ExternalRefs[0].ReferenceType != "purl" ||
					!strings.HasPrefix(p.ExternalRefs[0].ReferenceLocator, "pkg:golang/") {
					t.Errorf("%s: %+v", p.SPDXID, p.ExternalRefs)
				}
				if p.FileName == "" {
					modules[p.SPDXID] = p.Name + "@" + p.Version
					continue
				}
				if p.FileName == archiveOf(t, program) {
					archive = p.SPDXID
				}
				sum := sha256.Sum256(read(t, p.FileName))
				if len(p.Checksums) != 1 || p.Checksums[0].Algorithm != "SHA256" || p.Checksums[0].ChecksumValue != hex.EncodeToString(sum[:]) {
					t.Errorf("%s: %+v", p.FileName, p.Checksums)
				}
			}

			var got []string
			described := false
			for _, r := range b.Relationships {
				if !known[r.From] || !known[r.To] {
					t.Errorf("%s %s %s: nothing there", r.From, r.Kind, r.To)
				}
				described = described || r.From == b.SPDXID && r.Kind == "DESCRIBES" && r.To == archive
				if r.From == archive && r.Kind == "DEPENDS_ON" {
					got = append(got, modules[r.To])
				}
			}
			if archive == "" || !described {
				t.Fatal("the archive is not described")
			}

			dir, _ := unpacked(t, program)
			info, err := buildinfo.ReadFile(filepath.Join(dir, program))
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"stdlib@" + strings.TrimPrefix(info.GoVersion, "go")}
			for _, m := range info.Deps {
				if m.Replace != nil {
					m = m.Replace
				}
				want = append(want, m.Path+"@"+m.Version)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("the document names\n%q\nthe program holds\n%q", got, want)
			}
		})
	}
}

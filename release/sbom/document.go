package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

const (
	home        = "https://github.com/vsecm/kubectl-vsecm"
	unspecified = "NOASSERTION"
)

// An artifact is one file of a release, and what Go recorded of the program in it.
type artifact struct {
	name   string
	sha256 string // lower-case hex
	info   *debug.BuildInfo
}

// A module is one at one version, as it was linked.
type module struct{ path, version string }

// write writes the document; its bytes depend on the arguments alone. Licences are not
// concluded: nobody has read them.
func write(w io.Writer, name, version string, created time.Time, artifacts []artifact) error {
	doc := &v2_3.Document{
		SPDXVersion:       v2_3.Version,
		DataLicense:       v2_3.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      name + " " + version,
		DocumentNamespace: fmt.Sprintf("%s/releases/download/%s/%s_%s.spdx.json", home, version, name, version),
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Organization", Creator: "vsecm"}, {CreatorType: "Tool", Creator: "kubectl-vsecm-release-sbom"}},
			Created:  created.Format(time.RFC3339),
		},
	}
	relate := func(from common.ElementID, kind string, to common.ElementID) {
		doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
			RefA: common.DocElementID{ElementRefID: from}, RefB: common.DocElementID{ElementRefID: to}, Relationship: kind,
		})
	}
	modules := make(map[module]string) // → the sum that go.sum has
	for _, a := range artifacts {
		p := pkg(identifier("Artifact", a.name), name, version, "pkg:golang/"+a.info.Path+"@"+version)
		p.PackageFileName = a.name
		p.PackageDownloadLocation = fmt.Sprintf("%s/releases/download/%s/%s", home, version, a.name)
		p.PackageHomePage = home
		p.PackageLicenseDeclared = "Apache-2.0"
		p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: a.sha256}}
		p.PrimaryPackagePurpose = "APPLICATION"
		doc.Packages = append(doc.Packages, p)
		relate(doc.SPDXIdentifier, common.TypeRelationshipDescribe, p.PackageSPDXIdentifier)
		for m, sum := range linked(a.info) {
			modules[m] = sum
		}
	}
	sorted := slices.SortedFunc(maps.Keys(modules), func(a, b module) int {
		return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.version, b.version))
	})
	for _, m := range sorted {
		p := pkg(m.id(), m.path, m.version, "pkg:golang/"+m.path+"@"+m.version)
		p.PackageDownloadLocation = unspecified
		p.PackageLicenseDeclared = unspecified
		p.PrimaryPackagePurpose = "LIBRARY"
		if sum := modules[m]; sum != "" {
			p.PackageComment = "go.sum: " + sum
		}
		doc.Packages = append(doc.Packages, p)
	}
	for _, a := range artifacts {
		in := linked(a.info)
		for _, m := range sorted {
			if _, ok := in[m]; ok {
				relate(identifier("Artifact", a.name), common.TypeRelationshipDependsOn, m.id())
			}
		}
	}
	return json.Write(doc, w, json.Indent(" "), json.EscapeHTML(false))
}

func pkg(id common.ElementID, name, version, purl string) *v2_3.Package {
	return &v2_3.Package{
		PackageSPDXIdentifier:   id,
		PackageName:             name,
		PackageVersion:          version,
		PackageSupplier:         &common.Supplier{Supplier: unspecified},
		PackageLicenseConcluded: unspecified,
		PackageCopyrightText:    unspecified,
		PackageExternalReferences: []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl},
		},
	}
}

// linked lists the modules that are in a program beside its own, Go's standard
// library, by the name that vulnerability databases know it by, included.
func linked(info *debug.BuildInfo) map[module]string {
	all := map[module]string{{"stdlib", strings.TrimPrefix(info.GoVersion, "go")}: ""}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all[module{m.Path, m.Version}] = m.Sum
	}
	return all
}

func (m module) id() common.ElementID { return identifier("Module", m.path+"-"+m.version) }

var unfit = regexp.MustCompile(`[^A-Za-z0-9.-]`)

// identifier makes of a name what SPDX takes for one: letters, digits, . and -.
// Another character becomes its code.
func identifier(kind, name string) common.ElementID {
	return common.ElementID(kind + "-" + unfit.ReplaceAllStringFunc(name, func(c string) string {
		return fmt.Sprintf(".%x.", c)
	}))
}

// Package docs plays the pages of the documentation, so that what they tell their
// reader to type does what they say. How a page is written is said in
// [github.com/vsecm/kubectl-vsecm/internal/testenv/docpage]; here are the worlds
// that a page can be played in.
//
// # Worlds
//
// Every world is a shell of dana's: in an empty folder of an empty home, at no
// terminal but where a block asks for one, with kubectl, kubectl-vsecm, safe, age,
// age-keygen, age-plugin-batchpass, git, ssh-keygen and the usual programs of
// Debian on her PATH, and git knowing her name. Her home is shown as /home/dana.
// At https://git.example.com/team/secrets.git, for which the player puts the
// address of a real server wherever a page names it, there is an empty repository
// that everybody may read and push to. A folder of the world's own stands for
// /run/vsecm, too, and a replica's port for webhooks for https://hooks.example.com.
//
//   - "local" has no cluster, and no kubeconfig.
//   - "bare cluster" has a kubeconfig of an administrator of a real API server
//     that holds nothing yet. It has no nodes; but as soon as there is a
//     Deployment vsecm-safe, its replicas run, as processes with its arguments and
//     its environment, and follow what becomes of it. The plugin finds them, as if
//     it had forwarded ports to their pods. No pods and no other workloads run,
//     and no namespace is ever gone once it was deleted.
//   - "cluster" is that, with what safe/manual installs; two replicas that have
//     been unsealed with the key in root-key.txt, which lies in the folder;
//     namespaces shop and billing; and in shop, Safe may deliver and an
//     administrator of Safe reveal.
//
// After a comma, a world may have more:
//
//   - "checkout": a folder vsecm with this repository's folders safe and examples.
//   - "sops": sops, and vsecm-sops, on her PATH.
//   - "release": a folder release with what a user downloads: this platform's
//     archive of the plugin, and what else a release of version v1.2.3 has.
//   - "vsecm": in the cluster, the root key of VMware Secrets Manager, and in the
//     folder, data, what its Safe kept.
//   - "prometheus": a cluster that knows the kinds of the Prometheus operator.
//
// As in <!-- world: bare cluster, checkout -->. Play one page, and have what its
// commands print written into it, to be read before it is committed, with
//
//	export VSECM_TEST_CONTROLPLANE=$(hack/controlplane)
//	go test ./internal/docs -run TestPages/docs/backup.md -args -write
package docs

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Pages lists the Markdown files of a checkout, relative to it.
func Pages(root string) ([]string, error) {
	var pages []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || slices.Contains([]string{"testdata", "bin", "dist"}, name)) {
			return filepath.SkipDir
		}
		if entry.Type().IsRegular() && strings.HasSuffix(name, ".md") {
			page, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			pages = append(pages, filepath.ToSlash(page))
		}
		return nil
	})
	return pages, err
}

// Install makes the one file that `kubectl apply -f` installs Safe from:
//
//	install -safe DIR -mode base|manual|memory -image REPOSITORY:TAG@DIGEST -o FILE
//
// It is safe/crds and safe/MODE as kustomize builds them, with the image that is
// given. What outlives Safe, the namespace and the CRDs, bears a label, so that
// the same file can remove Safe and leave every secret.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/filters/imagetag"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const (
	imageInManifests = "vsecm/safe"
	outlives         = "vsecm.com/outlives-safe"
)

const head = `# Safe %[1]s, in mode %[2]s: its namespace, CRDs, roles, Service and Deployment.
#
#     kubectl apply -f %[3]s
#
# Without the label selector, this would delete every EncryptedSecret and the root key too:
#
#     kubectl delete -f %[3]s -l '!%[4]s'
---
`

func main() {
	safe := flag.String("safe", "safe", "folder of the manifests")
	mode := flag.String("mode", "", "base, manual or memory")
	image := flag.String("image", "", "image, as REPOSITORY:TAG@DIGEST")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*safe, *mode, *image, *out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(safe, mode, image, out string) error {
	reference, digest, ok := strings.Cut(image, "@")
	colon := strings.LastIndex(reference, ":")
	if !ok || colon < strings.LastIndex(reference, "/") {
		return fmt.Errorf("%q is not REPOSITORY:TAG@DIGEST", image)
	}
	repository, tag := reference[:colon], reference[colon+1:]

	all, err := build(filepath.Join(safe, "crds"))
	if err != nil {
		return err
	}
	for _, r := range all.Resources() {
		labels := r.GetLabels()
		labels[outlives] = "true"
		if err := r.SetLabels(labels); err != nil {
			return err
		}
	}
	rest, err := build(filepath.Join(safe, mode))
	if err != nil {
		return err
	}
	if err := rest.ApplyFilter(imagetag.Filter{
		ImageTag: types.Image{Name: imageInManifests, NewName: repository, NewTag: tag, Digest: digest},
		FsSlice:  types.FsSlice{{Path: "spec/template/spec/containers[]/image"}},
	}); err != nil {
		return err
	}
	if err := all.AppendAll(rest); err != nil {
		return err
	}
	text, err := all.AsYaml()
	if err != nil {
		return err
	}
	if strings.Count(string(text), image) != 1 {
		return errors.New("the image did not get its place in the manifests")
	}
	return os.WriteFile(out, append(fmt.Appendf(nil, head, tag, mode, filepath.Base(out), outlives), text...), 0o644)
}

func build(dir string) (resmap.ResMap, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", dir, err)
	}
	return built, nil
}

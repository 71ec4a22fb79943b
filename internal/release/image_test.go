package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vsecm/kubectl-vsecm/krew"
)

// The media types of the OCI image specification.
const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// A descriptor is the OCI specification's.
type descriptor struct {
	MediaType   string
	Digest      string
	Size        int
	Annotations map[string]string
	Platform    *struct{ OS, Architecture string }
}

// A blobStore is an unpacked archive in the OCI image layout.
type blobStore struct {
	t     *testing.T
	files map[string][]byte
}

func openLayout(t *testing.T, name string) blobStore {
	t.Helper()
	return blobStore{t, untar(t, read(t, name))}
}

func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// blob returns what a descriptor points to, if it is what the descriptor says.
func (s blobStore) blob(d descriptor, mediaType string) []byte {
	s.t.Helper()
	algorithm, sum, _ := strings.Cut(d.Digest, ":")
	body, ok := s.files["blobs/"+algorithm+"/"+sum]
	got := sha256.Sum256(body)
	if !ok || algorithm != "sha256" || hex.EncodeToString(got[:]) != sum || d.Size != len(body) || d.MediaType != mediaType {
		s.t.Fatalf("%+v does not describe the %d bytes that it points to (want %s)", d, len(body), mediaType)
	}
	return body
}

func (s blobStore) parse(data []byte, into any) {
	s.t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		s.t.Fatal(err)
	}
}

// root returns the one thing that a layout holds.
func (s blobStore) root() descriptor {
	s.t.Helper()
	var index struct{ Manifests []descriptor }
	s.parse(s.files["index.json"], &index)
	if len(index.Manifests) != 1 || !bytes.Contains(s.files["oci-layout"], []byte(`"1.0.0"`)) {
		s.t.Fatalf("it is no layout of one image: %s", s.files["index.json"])
	}
	d := index.Manifests[0]
	if d.Annotations["org.opencontainers.image.ref.name"] != version || d.Annotations["io.containerd.image.name"] != "ghcr.io/vsecm/safe:"+version {
		s.t.Errorf("it is called %v", d.Annotations)
	}
	return d
}

func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("Safe's image is of Linux, and a release for this platform alone has none")
	}
}

func TestImageIsTheProgramAndTheCertificates(t *testing.T) {
	onLinux(t)
	dir, _ := unpacked(t, krew.Safe)
	program, err := os.ReadFile(filepath.Join(dir, "safe"))
	if err != nil {
		t.Fatal(err)
	}

	all := openLayout(t, "safe_"+version+".oci.tar")
	var index struct{ Manifests []descriptor }
	all.parse(all.blob(all.root(), ociIndex), &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Platform == nil || index.Manifests[0].Platform.OS != "linux" || index.Manifests[0].Platform.Architecture != runtime.GOARCH {
		t.Fatalf("the index names %+v", index.Manifests)
	}
	alone := openLayout(t, "safe_"+version+"_linux_"+runtime.GOARCH+".oci.tar")
	if alone.root().Digest != index.Manifests[0].Digest {
		t.Error("the archive of one platform holds another image than the archive of all")
	}

	for name, s := range map[string]blobStore{"of all platforms": all, "of one platform": alone} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			var manifest struct {
				Config descriptor
				Layers []descriptor
			}
			s.parse(s.blob(index.Manifests[0], ociManifest), &manifest)
			var config struct {
				OS, Architecture string
				Config           struct {
					User            string
					Entrypoint, Cmd []string
					Env             []string
				}
				RootFS struct {
					DiffIDs []string `json:"diff_ids"`
				}
			}
			s.parse(s.blob(manifest.Config, ociConfig), &config)
			if config.OS != "linux" || config.Architecture != runtime.GOARCH || config.Config.User != "65532:65532" ||
				strings.Join(config.Config.Entrypoint, " ") != "/safe" || strings.Join(config.Config.Cmd, " ") != "serve" {
				t.Errorf("%+v", config)
			}

			files := make(map[string][]byte)
			for i, d := range manifest.Layers {
				gz, err := gzip.NewReader(bytes.NewReader(s.blob(d, ociLayer)))
				if err != nil {
					t.Fatal(err)
				}
				layer, err := io.ReadAll(gz)
				if err != nil {
					t.Fatal(err)
				}
				if sum := sha256.Sum256(layer); config.RootFS.DiffIDs[i] != "sha256:"+hex.EncodeToString(sum[:]) {
					t.Errorf("layer %d is not the one that the configuration names", i)
				}
				for r := tar.NewReader(bytes.NewReader(layer)); ; {
					h, err := r.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					// Nobody but root could change it, and root does not run in it.
					if h.Uid != 0 || h.Gid != 0 || h.Mode&0o222 != 0 && h.Typeflag != tar.TypeDir || h.Mode&0o022 != 0 {
						t.Errorf("%s: owner %d:%d, mode %o", h.Name, h.Uid, h.Gid, h.Mode)
					}
					if h.Typeflag == tar.TypeReg {
						if files[h.Name], err = io.ReadAll(r); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if len(files) != 3 || !bytes.Equal(files["safe"], program) {
				t.Errorf("%d files, of which safe has %d bytes, not the %d of the archive's", len(files), len(files["safe"]), len(program))
			}
			if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"]) {
				t.Error("there are no certificates")
			}
			if license, err := os.ReadFile("../../LICENSE"); err != nil || !bytes.Equal(license, files["licenses/LICENSE"]) {
				t.Errorf("the licence is another: %v", err)
			}
		})
	}
}

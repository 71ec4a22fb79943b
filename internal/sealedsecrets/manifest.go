package sealedsecrets

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// Group is the API group of SealedSecrets, Kind their kind.
const (
	Group = "bitnami.com"
	Kind  = "SealedSecret"
)

// Annotations of sealed-secrets that say what the controller does.
const (
	annotations              = "sealedsecrets." + Group + "/"
	annotationClusterWide    = annotations + "cluster-wide"
	annotationNamespaceWide  = annotations + "namespace-wide"
	annotationManaged        = annotations + "managed"
	annotationPatch          = annotations + "patch"
	annotationNoOwner        = annotations + "skip-set-owner-references"
	annotationsOfKubectl     = "kubectl.kubernetes.io/"
	annotationLastOfKubecfg  = "kubecfg.ksonnet.io/last-applied-configuration"
	annotationLastOfPipeline = "banzaicloud.com/last-applied"
)

// A SealedSecret is one document, or one item of a list. It holds ciphertext only, but for the texts of its template, which stand
// there in the clear.
type SealedSecret struct {
	File            string
	Line            int    // where its document begins; 0 where it is not known
	Namespace, Name string // Namespace may be empty

	labels, annotations map[string]string
	encrypted           map[string]string
	old                 bool // sealed as one, as before version 0.8 of sealed-secrets
	template            secretTemplate
}

// secretTemplate is spec.template: what the Secret is to be like.
type secretTemplate struct {
	Metadata struct {
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
		Finalizers      []string          `json:"finalizers"`
		OwnerReferences []any             `json:"ownerReferences"`
	} `json:"metadata"`
	Type      string             `json:"type"`
	Immutable bool               `json:"immutable"`
	Data      map[string]*string `json:"data"`
}

// document is what is read of a SealedSecret, or of a list.
type document struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Data          any               `json:"data"`
		EncryptedData map[string]string `json:"encryptedData"`
		Template      secretTemplate    `json:"template"`
	} `json:"spec"`
	Items []json.RawMessage `json:"items"`
}

// Where tells where the document stands.
func (s *SealedSecret) Where() string {
	if s.Line <= 1 {
		return s.File
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

// Scope is how far the values may travel, as sealed-secrets has it from the document's own annotations.
func (s *SealedSecret) Scope() encrypt.Scope {
	switch {
	case s.annotations[annotationClusterWide] == "true":
		return encrypt.Cluster
	case s.annotations[annotationNamespaceWide] == "true":
		return encrypt.Namespace
	}
	return encrypt.Strict
}

// Read reads the SealedSecrets of a YAML or JSON file, also those in a List. Documents that do not speak of
// them are counted in skipped, whether or not they are YAML: charts' templates are none. Faults name file and line.
func Read(file string, data []byte) (found []*SealedSecret, skipped int, faults []*encrypt.Fault) {
	if len(data) > encrypt.MaxFileSize {
		return nil, 0, []*encrypt.Fault{{File: file, Err: fmt.Errorf("the file is larger than %d bytes", encrypt.MaxFileSize)}}
	}
	if !bytes.Contains(data, []byte(Kind)) {
		return nil, 1, nil
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReaderSize(bytes.NewReader(data), len(data)+1))
	from := 0
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return found, skipped, faults
		}
		if err != nil {
			return found, skipped, append(faults, &encrypt.Fault{File: file, Err: err})
		}
		line := 0 // not known where the reader has changed the ends of lines
		if at := bytes.Index(data[from:], text); at >= 0 {
			line = 1 + bytes.Count(data[:from+at], []byte("\n")) + leading(text)
			from += at + len(text)
		}
		if !bytes.Contains(text, []byte(Kind)) {
			if leading(text) < bytes.Count(text, []byte("\n")) {
				skipped++
			}
			continue
		}
		all, err := readDocument(text)
		if err != nil {
			faults = append(faults, &encrypt.Fault{File: file, Line: line, Err: err})
			continue
		}
		if len(all) == 0 {
			skipped++
		}
		for _, s := range all {
			s.File, s.Line = file, line
			if s.Name == "" {
				faults = append(faults, &encrypt.Fault{File: file, Line: line, Field: "metadata.name", Err: errors.New("missing")})
				continue
			}
			found = append(found, s)
		}
	}
}

// leading counts the lines at the beginning that say nothing.
func leading(text []byte) int {
	n := 0
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.HasPrefix(line, []byte("---")) {
			return n
		}
		n++
	}
	return n
}

// readDocument returns the SealedSecrets of a document: of other kinds, none.
func readDocument(text []byte) ([]*SealedSecret, error) {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("not valid YAML: %s", oneLine(err))
	}
	var kind struct {
		APIVersion any `json:"apiVersion"`
		Kind       any `json:"kind"`
	}
	if err := json.Unmarshal(asJSON, &kind); err != nil {
		return nil, nil // a list or a text
	}
	switch {
	case kind.Kind == Kind && ofGroup(kind.APIVersion):
	case kind.Kind == Kind+"List" && ofGroup(kind.APIVersion), kind.Kind == "List" && kind.APIVersion == "v1":
	default:
		return nil, nil
	}
	var d document
	if err := json.Unmarshal(asJSON, &d); err != nil {
		return nil, mistyped(err)
	}
	if kind.Kind == Kind {
		return []*SealedSecret{d.sealedSecret()}, nil
	}
	var all []*SealedSecret
	for n, item := range d.Items {
		var i document
		if err := json.Unmarshal(item, &i); err != nil {
			return nil, fmt.Errorf("items[%d]: %w", n, mistyped(err))
		}
		if d.Kind == Kind+"List" || i.Kind == Kind && ofGroup(i.APIVersion) {
			all = append(all, i.sealedSecret())
		}
	}
	return all, nil
}

func ofGroup(version any) bool {
	text, _ := version.(string)
	return strings.HasPrefix(text, Group+"/")
}

func (d *document) sealedSecret() *SealedSecret {
	return &SealedSecret{
		Namespace: d.Metadata.Namespace, Name: d.Metadata.Name,
		labels: d.Metadata.Labels, annotations: d.Metadata.Annotations,
		encrypted: d.Spec.EncryptedData, old: d.Spec.Data != nil,
		template: d.Spec.Template,
	}
}

// mistyped words an error of encoding/json, which speaks of Go.
func mistyped(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %s, where %s belongs", wrong.Field, wordOf(wrong.Value), wordOf(wrong.Type.Kind().String()))
	}
	return errors.New("not valid JSON")
}

// wordOf names what JSON or Go calls otherwise.
func wordOf(kind string) string {
	switch kind {
	case "map", "struct", "object":
		return "a mapping"
	case "slice", "array":
		return "a list"
	case "string":
		return "a text"
	}
	kind, _, _ = strings.Cut(kind, " ") // of a number, which one
	return "a " + kind
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

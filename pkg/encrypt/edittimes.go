package encrypt

import (
	"bytes"
	"errors"
	"reflect"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// SetValidity returns data, a file of manifests, with notBefore and expiresAt of one manifest set; a time that is nil stays as it
// is. Every other byte stays. It fails as [SetValues] does.
func SetValidity(file string, data []byte, namespace, name string, notBefore, expiresAt *metav1.Time, defaultNamespace string) ([]byte, error) {
	doc, err := findManifest(file, data, namespace, name, defaultNamespace)
	if err != nil {
		return nil, err
	}
	spec := get(doc, "spec")
	var splices []splice
	for _, set := range []struct {
		field string
		to    *metav1.Time
	}{{"notBefore", notBefore}, {"expiresAt", expiresAt}} {
		if set.to == nil {
			continue
		}
		s, err := spliceTime(data, spec, set.field, set.to.UTC().Format(time.RFC3339))
		if err != nil {
			return nil, &Fault{File: file, Line: spec.Line, Field: child("spec", set.field), Namespace: namespace, Name: name, Err: err}
		}
		splices = append(splices, s)
	}
	edited := applySplices(data, splices)
	ok := sameBut(file, data, edited, defaultNamespace, func(o *v1alpha1.EncryptedSecret) {
		if o.Namespace != namespace || o.Name != name {
			return
		}
		if notBefore != nil {
			o.Spec.NotBefore = &metav1.Time{Time: notBefore.UTC()}
		}
		if expiresAt != nil {
			o.Spec.ExpiresAt = &metav1.Time{Time: expiresAt.UTC()}
		}
	})
	if !ok {
		return nil, &Fault{File: file, Line: spec.Line, Field: "spec", Namespace: namespace, Name: name,
			Err: errors.New("the times cannot be set in place: write the fields of spec with one plain FIELD: VALUE a line, and expiresAt after notBefore")}
	}
	return edited, nil
}

// sameBut tells whether two texts say the same, but for what change does to each object.
func sameBut(file string, before, after []byte, defaultNamespace string, change func(*v1alpha1.EncryptedSecret)) bool {
	was, is := ReadManifests(file, before, defaultNamespace), ReadManifests(file, after, defaultNamespace)
	if len(is.Faults) != len(was.Faults) || is.Skipped != was.Skipped || len(is.Objects) != len(was.Objects) {
		return false
	}
	for i := range is.Objects {
		change(was.Objects[i].Object)
		if !reflect.DeepEqual(was.Objects[i].Object, is.Objects[i].Object) {
			return false
		}
	}
	return true
}

// spliceTime replaces a field of spec, or adds it before the values, which are many.
func spliceTime(data []byte, spec *yaml.Node, field, text string) (splice, error) {
	if n := get(spec, field); n != nil {
		start, end, err := scalarRange(data, n)
		if err != nil {
			return splice{}, err
		}
		return overwrite(data, start, end, text), nil
	}
	if spec.Style&yaml.FlowStyle != 0 {
		first := spec.Content[0]
		separator := ", "
		if first.Line != spec.Line {
			separator = "," + lineBreak(data) + string(bytes.Repeat([]byte(" "), first.Column-1))
		}
		at, err := offset(data, first.Line, first.Column)
		return splice{at, at, strconv.Quote(field) + ": " + strconv.Quote(text) + separator}, err
	}
	for i := 0; i+1 < len(spec.Content); i += 2 {
		if key := spec.Content[i]; key.Value == "encryptedData" {
			indent := string(bytes.Repeat([]byte(" "), key.Column-1))
			at := aboveComments(data, lineStart(data, key.Line))
			return splice{at, at, indent + field + `: "` + text + `"` + lineBreak(data)}, nil
		}
	}
	return splice{}, errors.New("there are no values")
}

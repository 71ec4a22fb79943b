package rootkey

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vsecm/kubectl-vsecm/internal/kube"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/pkg/unseal"
)

const (
	// DataKey and DataRetired are the keys of the Secret's data, as VSecM has
	// them.
	DataKey     = "KEY_TXT"
	DataRetired = "RETIRED_TXT"
	// AnnotationSealed on the Secret is the mark of a seal: when that was, as
	// in RFC 3339.
	AnnotationSealed = "vsecm.com/sealed"

	// AnnotationRekey on the Secret is the record of a re-key that is under way, as JSON, and
	// AnnotationRekeyed what the last one left behind: which keys were destroyed.
	AnnotationRekey   = "vsecm.com/rekey"
	AnnotationRekeyed = "vsecm.com/rekeyed"

	// watchTime is how long one watch lasts, and rewatch how long is waited
	// before the next when one could not begin.
	watchTime = 10 * time.Minute
	rewatch   = 2 * time.Second
)

// namespaceTerminating is the cause of a refusal to create in a namespace that is being deleted.
const namespaceTerminating metav1.CauseType = "NamespaceTerminating"

// metadataOnly is what the API is asked for where the key is not needed, so that it does not
// even travel.
const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

type secretPlace struct {
	client          *kube.Client
	namespace, name string
	mountedFile     string
}

// NewSecretPlace returns the place in a cluster: the Secret of this name, for the key and the
// mark, and ConfigMap vsecm-safe for the record. mountedFile is where the Secret may be
// mounted, too; it may be missing.
func NewSecretPlace(client *kube.Client, namespace, name, mountedFile string) Place {
	return &secretPlace{client, namespace, name, mountedFile}
}

func (p *secretPlace) Kind() string { return "secret" }

func (p *secretPlace) Read(ctx context.Context, keysOfSealed bool) (*Kept, error) {
	kept := &Kept{}
	if err := p.readRecord(ctx, kept); err != nil {
		return nil, err
	}
	if !keysOfSealed {
		meta, err := p.metadata(ctx)
		if err != nil || meta != nil && !sealedAt(meta.Annotations).IsZero() {
			if meta != nil {
				kept.is(&meta.ObjectMeta)
			}
			return kept, err
		}
	}
	var secret kube.Secret
	err := p.client.Core.Get().Namespace(p.namespace).Resource("secrets").Name(p.name).Do(ctx).Into(&secret)
	switch {
	case err == nil:
		kept.Key, kept.Retired = secret.Data[DataKey], secret.Data[DataRetired]
		if kept.Key == nil && secret.Data != nil {
			if _, there := secret.Data[DataKey]; there {
				kept.Key = []byte{} // emptied: damaged, not missing
			}
		}
		kept.is(&secret.ObjectMeta)
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("reading Secret %s: %w", p.name, err)
	}
	kept.Fallback = p.readMounted()
	return kept, nil
}

// is takes what the Secret says of itself.
func (k *Kept) is(secret *metav1.ObjectMeta) {
	k.SealedAt = sealedAt(secret.Annotations)
	k.keyVersion, k.object = secret.ResourceVersion, string(secret.UID)
	if text, there := secret.Annotations[AnnotationRekey]; there {
		k.Rekey, k.RekeyFault = parseRekey(text)
	}
	k.ended = parseEnded(secret.Annotations[AnnotationRekeyed])
}

func (p *secretPlace) readRecord(ctx context.Context, kept *Kept) error {
	var cm kube.ConfigMap
	err := p.client.Core.Get().Namespace(p.namespace).Resource("configmaps").Name(publication.Name).Do(ctx).Into(&cm)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("reading ConfigMap %s: %w", publication.Name, err)
	}
	kept.Record = Record{Recipient: cm.Data[publication.KeyRecipient], KeyID: cm.Data[publication.KeyID]}
	kept.recordVersion = cm.ResourceVersion
	return nil
}

// metadata returns the Secret's; nil if there is no Secret.
func (p *secretPlace) metadata(ctx context.Context) (*metav1.PartialObjectMetadata, error) {
	body, err := p.client.Core.Get().Namespace(p.namespace).Resource("secrets").Name(p.name).
		SetHeader("Accept", metadataOnly).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", p.name, err)
	}
	var meta metav1.PartialObjectMetadata
	if err := json.Unmarshal(body, &meta); err != nil {
		return nil, fmt.Errorf("reading Secret %s: its metadata is malformed", p.name)
	}
	return &meta, nil
}

// sealedAt reads the mark. One that says no time is a mark all the same.
func sealedAt(annotations map[string]string) time.Time {
	text, marked := annotations[AnnotationSealed]
	if !marked {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return at.UTC()
}

// readMounted returns what the mounted file holds. The file is a second way to the
// key: one that cannot be read is one that is not there.
func (p *secretPlace) readMounted() []byte {
	if p.mountedFile == "" {
		return nil
	}
	f, err := os.Open(p.mountedFile)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(f, unseal.MaxTextSize+1))
	if err != nil {
		return nil
	}
	return text
}

func (p *secretPlace) WriteKey(ctx context.Context, was *Kept, key, retired []byte) error {
	data := map[string][]byte{DataKey: key}
	if retired != nil {
		data[DataRetired] = retired
	}
	if was.keyVersion == "" {
		return p.createSecret(ctx, data, nil)
	}
	return p.patch(ctx, "secrets", p.name, was.keyVersion, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{AnnotationSealed: nil}},
		"data":     data,
	})
}

func (p *secretPlace) WriteMark(ctx context.Context, was *Kept, at time.Time) error {
	var mark any
	if !at.IsZero() {
		mark = at.UTC().Format(time.RFC3339Nano)
	}
	switch {
	case was.keyVersion != "":
		return p.patch(ctx, "secrets", p.name, was.keyVersion, map[string]any{
			"metadata": map[string]any{"annotations": map[string]any{AnnotationSealed: mark}},
		})
	case mark != nil:
		return p.createSecret(ctx, nil, map[string]string{AnnotationSealed: mark.(string)})
	}
	return nil
}

func (p *secretPlace) WriteRekey(ctx context.Context, was *Kept, c Change) error {
	annotations := map[string]any{AnnotationRekey: nil, AnnotationRekeyed: nil}
	if c.Rekey != nil {
		annotations[AnnotationRekey] = encodeRecord(c.Rekey)
	}
	if c.ended != nil {
		annotations[AnnotationRekeyed] = encodeRecord(c.ended)
	}
	if was.keyVersion == "" {
		there := make(map[string]string)
		for name, text := range annotations {
			if text != nil {
				there[name] = text.(string)
			}
		}
		data := make(map[string][]byte)
		if c.Key != nil {
			data[DataKey] = c.Key
		}
		if c.Retired != nil {
			data[DataRetired] = c.Retired
		}
		return p.createSecret(ctx, data, there)
	}
	change := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	data := make(map[string]any)
	if c.Key != nil {
		data[DataKey] = c.Key
	}
	if c.DropRetired {
		data[DataRetired] = nil
	} else if c.Retired != nil {
		data[DataRetired] = c.Retired
	}
	if len(data) > 0 {
		change["data"] = data
	}
	return p.patch(ctx, "secrets", p.name, was.keyVersion, change)
}

func (p *secretPlace) createSecret(ctx context.Context, data map[string][]byte, annotations map[string]string) error {
	secret := &kube.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: p.name, Annotations: annotations},
		Type:       "Opaque",
		Data:       data,
	}
	return written("Secret "+p.name, p.client.Core.Post().Namespace(p.namespace).Resource("secrets").Body(secret).Do(ctx).Error())
}

// recordTries bounds how often a record is written anew, since the ConfigMap changed and the record did not.
const recordTries = 10

// WriteRecord implements [Place]. The record shares its ConfigMap with the replicas' entries, which they write
// whenever they start.
func (p *secretPlace) WriteRecord(ctx context.Context, was *Kept, r Record) error {
	version := was.recordVersion
	for try := 1; ; try++ {
		err := p.writeRecord(ctx, version, r)
		if !errors.Is(err, ErrChanged) || try == recordTries {
			return err
		}
		var now Kept
		if failed := p.readRecord(ctx, &now); failed != nil {
			return failed
		}
		if now.Record != was.Record {
			return err
		}
		version = now.recordVersion
	}
}

// writeRecord writes the record if the ConfigMap is of this version; an empty one is that of none.
func (p *secretPlace) writeRecord(ctx context.Context, version string, r Record) error {
	data := map[string]string{publication.KeyRecipient: r.Recipient, publication.KeyID: r.KeyID}
	if version == "" {
		cm := &kube.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: publication.Name},
			Data:       data,
		}
		return written("ConfigMap "+publication.Name, p.client.Core.Post().Namespace(p.namespace).Resource("configmaps").Body(cm).Do(ctx).Error())
	}
	return p.patch(ctx, "configmaps", publication.Name, version, map[string]any{"data": data})
}

// patch changes an object if it is of this version. What it does not name is left as
// it is.
func (p *secretPlace) patch(ctx context.Context, resource, name, version string, change map[string]any) error {
	meta, _ := change["metadata"].(map[string]any)
	if meta == nil {
		meta = make(map[string]any)
		change["metadata"] = meta
	}
	meta["resourceVersion"] = version
	body, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("encoding a change of %s: %w", name, err)
	}
	defer clear(body)
	return written(resource+"/"+name, p.client.Core.Patch(types.MergePatchType).Namespace(p.namespace).Resource(resource).Name(name).
		Body(body).Do(ctx).Error())
}

// written returns the error of a write. What the API says of it beyond the reason is dropped:
// an admission webhook may quote what it was shown.
func written(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, namespaceTerminating) && !isNamespaceGone(err):
		return fmt.Errorf("writing %s: %w", what, ErrChanged)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s := status.Status()
		return fmt.Errorf("writing %s: the API server answered %d %s", what, s.Code, s.Reason)
	}
	return fmt.Errorf("writing %s: %w", what, err)
}

// isNamespaceGone tells whether what was not found is the namespace.
func isNamespaceGone(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	return d != nil && d.Kind == "namespaces"
}

// Watch follows both objects by their names: Safe may not read others.
func (p *secretPlace) Watch(ctx context.Context, changed func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.follow(ctx, "secrets", p.name, changed)
	}()
	p.follow(ctx, "configmaps", publication.Name, changed)
	<-done
}

func (p *secretPlace) follow(ctx context.Context, resource, name string, changed func()) {
	for ctx.Err() == nil {
		if p.stream(ctx, resource, name, changed) {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

// stream tells of the changes of one object, and reports whether it could. Events are
// counted, not read: who is told looks for themselves, and nothing of a Secret
// stays here.
func (p *secretPlace) stream(ctx context.Context, resource, name string, changed func()) bool {
	events, err := p.client.Core.Get().Namespace(p.namespace).Resource(resource).
		VersionedParams(&metav1.ListOptions{
			FieldSelector: "metadata.name=" + name, Watch: true, TimeoutSeconds: new(int64(watchTime.Seconds())),
		}, kube.ParameterCodec).
		SetHeader("Accept", metadataOnly).Stream(ctx)
	if err != nil {
		return false
	}
	defer events.Close()
	changed() // whatever happened before
	r := bufio.NewReader(events)
	for began := time.Now(); ; {
		switch _, err := r.ReadSlice('\n'); {
		case err == nil:
			changed()
		case !errors.Is(err, bufio.ErrBufferFull):
			// One that ends at once is no way to watch.
			return time.Since(began) > rewatch
		}
	}
}

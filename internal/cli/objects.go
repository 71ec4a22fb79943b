package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
)

// pageSize is how many objects are asked for at once.
const pageSize = 250

// objects returns the path of the objects of a resource of ours, or of the one of a name. An empty
// namespace is all of them.
func (c *cluster) objects(resource, namespace string, name ...string) *url.URL {
	segments := []string{"apis", v1alpha1.Group, v1alpha1.GroupVersion.Version}
	if namespace != "" {
		segments = append(segments, "namespaces", url.PathEscape(namespace))
	}
	segments = append(segments, resource)
	for _, n := range name {
		segments = append(segments, url.PathEscape(n))
	}
	return c.base.JoinPath(segments...)
}

// each calls do with every object of a list that is read page by page, and of which one object at
// a time is in memory. A list whose first pages have become too old goes on with the newest state.
func each[T any](ctx context.Context, c *cluster, path *url.URL, selector string, do func(*T) error) error {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if selector != "" {
		query.Set("labelSelector", selector)
	}
	for {
		page := *path
		page.RawQuery = query.Encode()
		next, err := eachOfPage(ctx, c, &page, do)
		var refused *clusterError
		if errors.As(err, &refused) && refused.code == http.StatusGone && refused.next != "" {
			next, err = refused.next, nil
		}
		if err != nil || next == "" {
			return err
		}
		query.Set("continue", next)
	}
}

func eachOfPage[T any](ctx context.Context, c *cluster, page *url.URL, do func(*T) error) (next string, err error) {
	answer, err := c.open(ctx, clusterCall{method: http.MethodGet, path: page})
	if err != nil {
		return "", err
	}
	defer answer.Close()
	var stopped error
	next, err = readItems(answer, func(item *T) error {
		stopped = do(item)
		return stopped
	})
	switch {
	case stopped != nil:
		return "", stopped
	case err != nil:
		return "", fmt.Errorf("asking %s: %w", c, err)
	}
	return next, nil
}

// readItems reads a list of the Kubernetes API, and returns where it goes on.
func readItems[T any](answer io.Reader, do func(*T) error) (next string, err error) {
	from := &bounded{from: answer}
	decoder := json.NewDecoder(from)
	malformed := func(err error) error {
		var syntax *json.SyntaxError
		var mistyped *json.UnmarshalTypeError
		if err == nil || errors.As(err, &syntax) || errors.As(err, &mistyped) {
			return errNotKubernetes
		}
		return bare(err)
	}
	from.left = maxAnswerSize
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return "", malformed(err)
	}
	for decoder.More() {
		from.left = maxAnswerSize
		key, err := decoder.Token()
		if err != nil {
			return "", malformed(err)
		}
		switch key {
		case "metadata":
			var list metav1.ListMeta
			if err := decoder.Decode(&list); err != nil {
				return "", malformed(err)
			}
			next = list.Continue
		case "items":
			if token, err := decoder.Token(); err != nil || token != json.Delim('[') {
				if err == nil && token == nil { // null: there are none
					continue
				}
				return "", malformed(err)
			}
			for decoder.More() {
				from.left = maxAnswerSize
				var item T
				if err := decoder.Decode(&item); err != nil {
					return "", malformed(err)
				}
				if err := do(&item); err != nil {
					return "", err
				}
			}
			if _, err := decoder.Token(); err != nil {
				return "", malformed(err)
			}
		default:
			var other json.RawMessage
			if err := decoder.Decode(&other); err != nil {
				return "", malformed(err)
			}
		}
	}
	if _, err := decoder.Token(); err != nil { // half a list is none
		return "", malformed(err)
	}
	return next, nil
}

// bounded bounds what is read for one object of a list.
type bounded struct {
	from io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("an object of it is %w than %d bytes", errLarger, maxAnswerSize)
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// names returns the names, or of all namespaces NAMESPACE/NAME, of at most a page of a list.
func (c *cluster) names(ctx context.Context, path *url.URL) ([]string, error) {
	page := *path
	page.RawQuery = url.Values{"limit": {strconv.Itoa(pageSize)}}.Encode()
	var list struct {
		Items []metav1.PartialObjectMetadata
	}
	if err := c.make(ctx, clusterCall{method: http.MethodGet, path: &page, accept: mediaNames}, &list); err != nil {
		return nil, err
	}
	var names []string
	for _, o := range list.Items {
		names = append(names, strings.TrimPrefix(o.Namespace+"/"+o.Name, "/"))
	}
	return names, nil
}

// secret returns the EncryptedSecret of a name.
func (c *cluster) secret(ctx context.Context, namespace, name string) (*v1alpha1.EncryptedSecret, error) {
	o := &v1alpha1.EncryptedSecret{}
	err := c.call(ctx, http.MethodGet, c.objects(v1alpha1.ResourceEncryptedSecrets, namespace, name), nil, o)
	if err != nil {
		return nil, err
	}
	return o, nil
}

// wordObjects says what was being done when a call to the API server failed, such as "listing
// EncryptedSecrets", and what there is to do about it.
func wordObjects(err error, doing, namespace string) error {
	if err == nil {
		return nil
	}
	said := fmt.Errorf("%s: %w", doing, err)
	where := "the cluster"
	if namespace != "" {
		where = "namespace " + namespace
	}
	var hinted hintError
	switch {
	case errors.As(err, &hinted):
		return said
	case codeOf(err) == http.StatusForbidden:
		return withHint(said, "ask for the right to: of Kubernetes' own roles, view may look and edit may change, when bound in %s", where)
	case codeOf(err) == http.StatusUnauthorized:
		return withHint(said, "log in to the cluster anew, or name another with --context")
	}
	return said
}

// missingKind words a 404 of a whole list: the cluster does not know the kind.
func missingKind(err error, plural string) error {
	if codeOf(err) != http.StatusNotFound {
		return err
	}
	return withHint(fmt.Errorf("%w: the cluster does not know %s", errNoSafe, plural), "is this the right cluster? See --context. How to install Safe: %s", installPage)
}

// sourceName returns the name of a source, NAMESPACE/NAME, as 'sync' takes it, from the label that its objects bear;
// empty if there is none.
func sourceName(labels map[string]string) string {
	return strings.Replace(labels[v1alpha1.LabelSource], ".", "/", 1)
}

// A readiness is an object's condition Ready, of the object as it is now.
type readiness struct {
	status, reason, message string
}

// Of an object that nobody has judged as it is now: what stood in its status is about another.
const (
	statusUnknown = "Unknown"
	reasonPending = "Pending"
)

func readinessOf(conditions []metav1.Condition, generation int64) readiness {
	switch c := conditionOf(conditions, "Ready"); {
	case c == nil:
		return readiness{statusUnknown, reasonPending, "Safe has not looked at it yet"}
	case c.ObservedGeneration != generation:
		return readiness{statusUnknown, reasonPending, "Safe has not looked at its last change yet"}
	default:
		return readiness{string(c.Status), c.Reason, c.Message}
	}
}

func conditionOf(conditions []metav1.Condition, kind string) *metav1.Condition {
	for i := range conditions {
		if conditions[i].Type == kind {
			return &conditions[i]
		}
	}
	return nil
}

// stalled tells whether Safe waits for somebody to change something.
func stalled(conditions []metav1.Condition, generation int64) bool {
	c := conditionOf(conditions, "Stalled")
	return c != nil && c.ObservedGeneration == generation && c.Status == metav1.ConditionTrue
}

// shortIDs returns what people need of key ids to tell them apart.
func shortIDs(ids []string) string {
	shown := make([]string, len(ids))
	for i, id := range ids {
		shown[i] = short(id)
	}
	return orNone(strings.Join(shown, ","))
}

// ageOf is how kubectl writes it.
func ageOf(at metav1.Time) string {
	if at.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(at.Time))
}

func agoOf(at *metav1.Time) string {
	if at == nil {
		return ago(time.Time{})
	}
	return ago(at.Time)
}

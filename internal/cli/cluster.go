package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that log in by OIDC, as with kubectl
	"k8s.io/client-go/rest"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/internal/publication"
	"github.com/vsecm/kubectl-vsecm/internal/version"
)

// clusterTimeout bounds a call to the API server where --request-timeout does not.
const clusterTimeout = 30 * time.Second

// errNoCluster says that neither kubeconfig nor flags name a cluster.
var errNoCluster = errors.New("no cluster is configured")

// A cluster is the one that the kubeconfig and kubectl's flags lead to. A generated client
// would make the plugin half again as large, for a few calls.
type cluster struct {
	config *rest.Config
	client *http.Client
	base   *url.URL
}

// cluster reads the kubeconfig. It does not connect. The error is [errNoCluster] where there
// is none.
func (c *connection) cluster() (*cluster, error) {
	config, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kubectl-vsecm/" + version.Get().Version
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, withHint(fmt.Errorf("preparing to ask %s: %w", config.Host, err), "%s", otherKubeconfig)
	}
	// kubectl follows none either; what answers has no say in who gets the credentials.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if client.Timeout == 0 {
		client.Timeout = clusterTimeout
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, withHint(fmt.Errorf("the kubeconfig's address of the cluster, %q, is none: %w", config.Host, bare(err)), "%s", otherKubeconfig)
	}
	return &cluster{config: config, client: client, base: base}, nil
}

// String names the cluster in messages.
func (c *cluster) String() string { return c.base.String() }

func (c *cluster) close() { c.client.CloseIdleConnections() }

// A clusterError is what the API server refused.
type clusterError struct {
	code int
	said string
	// managers says that field managers who own what was applied are why.
	managers bool
	// next is where to go on with a list whose beginning is too old.
	next string
	// unsaid says that there was no word of why: of a path that there is not, where an object that there is not is
	// named.
	unsaid bool
}

// unknownField tells whether it was refused since it has a field that the cluster's schema has not.
func (e *clusterError) unknownField() bool {
	return strings.Contains(e.said, "unknown field") || strings.Contains(e.said, "field not declared in schema")
}

func (e *clusterError) Error() string { return visible(e.said) } // one line

// codeOf returns the HTTP status of a [clusterError], or 0.
func codeOf(err error) int {
	var refused *clusterError
	if errors.As(err, &refused) {
		return refused.code
	}
	return 0
}

// The media types of calls to the API server.
const (
	mediaJSON  = "application/json"
	mediaApply = "application/apply-patch+yaml" // JSON is YAML
	// mediaNames leaves away all but the metadata.
	mediaNames = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	// mediaTable is what kubectl get shows, and no more.
	mediaTable = "application/json;as=Table;g=meta.k8s.io;v=v1"
)

// A clusterCall is one call to the API server. path has its segments escaped; body and media,
// if empty mediaJSON, may be missing.
type clusterCall struct {
	method string
	path   *url.URL
	body   any
	media  string // of the body
	accept string // of the answer
}

// call makes one call to the API server, and decodes its answer.
func (c *cluster) call(ctx context.Context, method string, path *url.URL, body, answer any) error {
	return c.make(ctx, clusterCall{method: method, path: path, body: body}, answer)
}

// make makes a call, and decodes its answer.
func (c *cluster) make(ctx context.Context, call clusterCall, answer any) error {
	from, err := c.open(ctx, call)
	if err != nil {
		return err
	}
	defer from.Close()
	text, err := readAll(from, "the answer of "+c.String(), maxAnswerSize)
	if err != nil {
		return err
	}
	defer clear(text) // it may be a token
	if err := json.Unmarshal(text, answer); err != nil {
		return withHint(fmt.Errorf("asking %s: %w", c, errNotKubernetes), "does the kubeconfig lead to an API server, or to something before it that wants a login? See --context")
	}
	return nil
}

var errNotKubernetes = errors.New("its answer is not the Kubernetes API's")

// open makes a call, and returns its answer, to be read and closed. What the API server refuses
// is a [clusterError].
func (c *cluster) open(ctx context.Context, call clusterCall) (io.ReadCloser, error) {
	var send io.Reader
	if call.body != nil {
		text, err := json.Marshal(call.body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, call.method, call.path.String(), send)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", cmp.Or(call.accept, mediaJSON))
	if call.body != nil {
		request.Header.Set("Content-Type", cmp.Or(call.media, mediaJSON))
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if response.StatusCode < http.StatusMultipleChoices {
		return response.Body, nil
	}
	defer response.Body.Close()
	text, err := readAll(response.Body, "the answer of "+c.String(), maxAnswerSize)
	if err != nil {
		return nil, err
	}
	refused := refusalOf(response, text)
	err = fmt.Errorf("asking %s: %w", c, refused)
	switch ours := strings.HasPrefix(call.path.Path, c.base.JoinPath("apis", v1alpha1.Group).Path+"/"); {
	case ours && refused.code == http.StatusNotFound && refused.unsaid:
		return nil, c.noKinds()
	case ours && refused.unknownField():
		return nil, withHint(err, "the cluster's CRDs are older than this plugin: upgrade Safe, which begins with them (%s)", installPage)
	}
	return nil, err
}

// unreachable says why a call was not answered.
func (c *cluster) unreachable(err error) error {
	err = bare(err)
	// What logs in may go on for lines.
	if first, _, more := strings.Cut(err.Error(), "\n"); more && !errors.Is(err, context.Canceled) {
		err = errors.New(first)
	}
	said := fmt.Errorf("asking %s: %w", c, err)
	if strings.HasPrefix(err.Error(), "getting credentials") {
		return withHint(said, "that is how the kubeconfig says to log in. Does 'kubectl get --raw /readyz' work?")
	}
	var network net.Error
	if errors.As(err, &network) {
		return withHint(said, "is this the right cluster (see --context), and can it be reached from here? 'kubectl get --raw /readyz' tells")
	}
	return said
}

// noKinds says that the cluster knows no kind of ours.
func (c *cluster) noKinds() error {
	return withHint(fmt.Errorf("%w: %s does not know %ss", errNoSafe, c, v1alpha1.KindEncryptedSecret), "is this the right cluster? See --context. How to install Safe: %s", installPage)
}

// refusalOf reads a Status of the Kubernetes API. The code says enough where it is none.
func refusalOf(response *http.Response, text []byte) *clusterError {
	var status struct {
		Message  string
		Metadata struct{ Continue string }
		Details  struct{ Causes []struct{ Reason string } }
	}
	_ = json.Unmarshal(text, &status)
	refused := &clusterError{code: response.StatusCode, said: cmp.Or(status.Message, response.Status), next: status.Metadata.Continue, unsaid: status.Message == ""}
	for _, cause := range status.Details.Causes {
		refused.managers = refused.managers || cause.Reason == "FieldManagerConflict"
	}
	return refused
}

// bare leaves method and address away from what net/http says.
func bare(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

func (c *cluster) path(segments ...string) *url.URL {
	escaped := make([]string, len(segments))
	for i, s := range segments {
		escaped[i] = url.PathEscape(s)
	}
	return c.base.JoinPath(append([]string{"api", "v1", "namespaces"}, escaped...)...)
}

// publication returns what Safe publishes in the cluster.
func (c *cluster) publication(ctx context.Context, namespace string) (*publication.Publication, error) {
	var found struct {
		Data map[string]string `json:"data"`
	}
	err := c.call(ctx, http.MethodGet, c.path(namespace, "configmaps", publication.Name), nil, &found)
	switch code := codeOf(err); {
	case code == http.StatusNotFound:
		return nil, noSafe("there is no ConfigMap %s/%s in %s", namespace, publication.Name, c)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return nil, withHint(fmt.Errorf("reading what Safe publishes: %w", err), "whoever is logged in to the cluster may read ConfigMap %s/%s where Safe is installed: are the kubeconfig's user and --safe-namespace right?", namespace, publication.Name)
	case err != nil:
		return nil, fmt.Errorf("reading what Safe publishes: %w", err)
	}
	// An entry that somebody spoilt recognises nobody. The other replicas' are as good as before.
	p, err := publication.Parse(found.Data)
	if err != nil && !errors.Is(err, publication.ErrMalformed) {
		return nil, fmt.Errorf("reading ConfigMap %s/%s: %w", namespace, publication.Name, err)
	}
	return p, nil
}

// An idlePod is one of Safe's that cannot be asked, or is about to go.
type idlePod struct{ name, why string }

// safePods returns the names of the pods that run Safe, ready or not: a sealed one is not. The
// others are those that may run soon, or do for a moment longer.
func (c *cluster) safePods(ctx context.Context, namespace string) (names []string, others []idlePod, err error) {
	path := c.path(namespace, "pods")
	path.RawQuery = url.Values{"labelSelector": {"app.kubernetes.io/name=vsecm-safe"}}.Encode()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string `json:"name"`
				DeletionTimestamp string `json:"deletionTimestamp"`
			} `json:"metadata"`
			Status struct {
				Phase string `json:"phase"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := c.call(ctx, http.MethodGet, path, nil, &list); err != nil {
		err = fmt.Errorf("looking for Safe's pods: %w", err)
		if codeOf(err) == http.StatusForbidden {
			return nil, nil, withHint(err, "is Safe installed in namespace %[1]s? See --safe-namespace. If so, ask for a binding to ClusterRole vsecm-viewers, vsecm-operators or vsecm-admins in namespace %[1]s", namespace)
		}
		return nil, nil, err
	}
	for _, pod := range list.Items {
		switch phase := pod.Status.Phase; {
		case phase == "Succeeded" || phase == "Failed": // is over
		case pod.Metadata.DeletionTimestamp != "":
			others = append(others, idlePod{pod.Metadata.Name, "it is being deleted"})
		case phase != "Running":
			others = append(others, idlePod{pod.Metadata.Name, "it does not run yet (" + orNone(phase) + ")"})
		default:
			names = append(names, pod.Metadata.Name)
		}
	}
	switch {
	case len(names) == 0 && len(others) > 0:
		return nil, nil, withHint(fmt.Errorf("no pod of Safe runs in namespace %s of %s; %s: %s", namespace, c, others[0].name, others[0].why),
			"kubectl describe pod -n %s %s", namespace, others[0].name)
	case len(names) == 0:
		return nil, nil, withHint(fmt.Errorf("no pod of Safe runs in namespace %s of %s", namespace, c),
			"is this the right cluster, and Safe installed in that namespace? See --context and --safe-namespace")
	}
	return names, others, nil
}

// token has the cluster issue a token for a service account, which is good for one
// audience and ten minutes.
func (c *cluster) token(ctx context.Context, namespace, account, audience string) (string, error) {
	type spec struct {
		Audiences         []string `json:"audiences"`
		ExpirationSeconds int      `json:"expirationSeconds"`
	}
	asked := struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       spec   `json:"spec"`
	}{"authentication.k8s.io/v1", "TokenRequest", spec{[]string{audience}, 600}} // the least that Kubernetes issues
	var answer struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	err := c.call(ctx, http.MethodPost, c.path(namespace, "serviceaccounts", account, "token"), asked, &answer)
	if err == nil && answer.Status.Token == "" {
		err = fmt.Errorf("asking %s: it issued no token", c)
	}
	if err == nil {
		return answer.Status.Token, nil
	}
	err = fmt.Errorf("requesting a token of service account %s/%s: %w", namespace, account, err)
	switch codeOf(err) {
	case http.StatusForbidden:
		return "", withHint(err, "%s", tokenHint(namespace, account))
	case http.StatusNotFound:
		return "", withHint(err, "is Safe installed in that namespace? See --safe-namespace and --service-account")
	}
	return "", err
}

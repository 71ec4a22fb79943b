package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// otherKubeconfig is what to do about one that is of no use.
const otherKubeconfig = "repair it, or name another with --kubeconfig or in $KUBECONFIG, or another context in it with --context"

// loadKubeconfig reads the kubeconfig, of one file or several, as kubectl does. That there is none is no error.
func (c *connection) loadKubeconfig() (*api.Config, error) {
	rules := c.rules()
	config, err := rules.Load()
	if err != nil {
		return nil, badKubeconfig(rules, err)
	}
	return config, nil
}

func (c *connection) rules() *clientcmd.ClientConfigLoadingRules {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	return rules
}

// badKubeconfig says which file cannot be read, and why.
func badKubeconfig(rules *clientcmd.ClientConfigLoadingRules, err error) error {
	files := rules.GetLoadingPrecedence()
	for _, file := range files {
		_, failed := clientcmd.LoadFromFile(file)
		var path *fs.PathError
		switch {
		case failed == nil || errors.Is(failed, fs.ErrNotExist) && rules.ExplicitPath == "":
			continue
		case errors.As(failed, &path):
			err = fmt.Errorf("the kubeconfig %s cannot be read: %w", file, path.Err)
		case runtime.IsNotRegisteredError(failed):
			err = fmt.Errorf("%s is no kubeconfig", file)
		default:
			reason, _, _ := strings.Cut(failed.Error(), "\n")
			err = fmt.Errorf("the kubeconfig %s is damaged: %s", file, strings.TrimPrefix(reason, "yaml: "))
		}
		break
	}
	return withHint(err, "repair it, or name another with --kubeconfig or in $KUBECONFIG")
}

// restConfig returns how the cluster is reached that the kubeconfig, and the flags, name; [errNoCluster] where they name
// none.
func (c *connection) restConfig() (*rest.Config, error) {
	file, err := c.loadKubeconfig()
	if err != nil {
		return nil, err
	}
	if err := c.checkContext(file); err != nil {
		return nil, err
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(c.rules(), &c.overrides).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, errNoCluster
	case err != nil:
		reason := strings.TrimPrefix(err.Error(), "invalid configuration: ")
		return nil, withHint(fmt.Errorf("the kubeconfig leads to no cluster: %s", reason), "%s", otherKubeconfig)
	}
	return config, nil
}

// checkContext says in plain words why the context that counts is of no use.
func (c *connection) checkContext(file *api.Config) error {
	name, chosen := c.contextIn(file)
	choose := "name another kubeconfig with --kubeconfig or in $KUBECONFIG"
	if others := slices.Sorted(maps.Keys(file.Contexts)); len(others) > 0 {
		choose = "choose another context with --context: " + someOf(others)
	}
	context := file.Contexts[name]
	elsewhere := c.overrides.ClusterInfo.Server != "" || c.overrides.Context.Cluster != ""
	switch {
	case chosen && context == nil:
		return withHint(fmt.Errorf("the kubeconfig has no context %q", name), "%s", choose)
	case elsewhere:
		return nil
	case name != "" && context == nil:
		return withHint(fmt.Errorf("the kubeconfig has no context %q, which it says is the current one", name), "%s", choose)
	case name == "" && len(file.Contexts) > 0:
		return withHint(errors.New("the kubeconfig has no current context"), "%s", choose)
	case context != nil && file.Clusters[context.Cluster] == nil:
		return withHint(fmt.Errorf("the kubeconfig has no cluster %q, to which its context %q leads", context.Cluster, name), "%s", otherKubeconfig)
	}
	return nil
}

// contextIn returns the name of the context that counts, and whether it was chosen with --context.
func (c *connection) contextIn(file *api.Config) (name string, chosen bool) {
	if c.overrides.CurrentContext != "" {
		return c.overrides.CurrentContext, true
	}
	return file.CurrentContext, false
}

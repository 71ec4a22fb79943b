package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// A connection holds kubectl's flags that say which cluster is meant. It reads
// nothing before it is asked.
type connection struct {
	kubeconfig string
	overrides  clientcmd.ConfigOverrides
	skew       *skewTeller // may be nil
}

func newConnection() *connection { return &connection{} }

func (c *connection) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.kubeconfig, clientcmd.RecommendedConfigPathFlag, "", "Path to the kubeconfig file to use")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	// Verbs that take a namespace define the flag themselves: some take several.
	names.ContextOverrideFlags.Namespace.LongName = ""
	clientcmd.BindOverrideFlags(&c.overrides, fs, names)
}

var errNoNamespace = errors.New("no namespace given")

// namespace returns the namespace of the kubeconfig's current context. Where the
// context names none it is an error, not "default": a value sealed for
// the wrong namespace is of no use.
func (c *connection) namespace() (string, error) {
	config, err := c.loadKubeconfig()
	if err != nil {
		return "", fmt.Errorf("looking for the current namespace: %w", err)
	}
	name, chosen := c.contextIn(config)
	context := config.Contexts[name]
	switch {
	case context == nil && chosen:
		return "", c.checkContext(config)
	case context != nil && context.Namespace != "":
		return context.Namespace, nil
	}
	return "", withHint(errNoNamespace, "name it with -n, in .vsecm.yaml, or in the kubeconfig's current context")
}

func newOptions(streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:               "options",
		Short:             "List the flags that say how to reach the cluster",
		Long:              "List the flags that say how to reach the cluster.\n\nExit codes: 0 done, 1 error.",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(streams.Out, "These flags go with any verb:\n\n%s\n", flagUsages(cmd.InheritedFlags(), helpColumnsOf(streams.Out)))
			return err
		},
	}
}

// namespaceOrDefault is where kubectl looks for objects: the namespace that was given, that of
// the kubeconfig's current context, or default.
func (c *connection) namespaceOrDefault(given string) (string, error) {
	namespace := given
	if namespace == "" {
		var err error
		if namespace, err = c.namespace(); errors.Is(err, errNoNamespace) {
			namespace, err = metav1.NamespaceDefault, nil
		}
		if err != nil {
			return "", err
		}
	}
	if err := encrypt.ValidateNamespace(namespace); err != nil {
		return "", fmt.Errorf("--namespace: %w", err)
	}
	return namespace, nil
}

// toCluster is [connection.cluster] for verbs that are about objects in it.
func (c *connection) toCluster() (*cluster, error) {
	cluster, err := c.cluster()
	switch {
	case errors.Is(err, errNoCluster):
		return nil, withHint(err, "name a kubeconfig with --kubeconfig or in $KUBECONFIG")
	case err != nil:
		return nil, err
	}
	return cluster, nil
}

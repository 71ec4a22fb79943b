package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/api/v1alpha1"
	"github.com/vsecm/kubectl-vsecm/pkg/encrypt"
)

// newCompletion replaces cobra's, which knows nothing of kubectl.
func newCompletion(streams genericiooptions.IOStreams) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes verbs, flags and names",
		Long: `Print a script for a shell, which completes kubectl-vsecm: verbs, flags, files,
and the names and keys in them and in the cluster.

For 'kubectl vsecm', kubectl does it, once 'kubectl vsecm completion install'
was run.

Exit codes: 0 done, 1 error.`,
		Example: `  # For 'kubectl vsecm'
  kubectl vsecm completion install

  # For 'kubectl-vsecm', in ~/.bashrc; needs the package bash-completion
  source <(kubectl-vsecm completion bash)

  # In ~/.zshrc, after compinit
  source <(kubectl-vsecm completion zsh)

  # For fish
  kubectl-vsecm completion fish > ~/.config/fish/completions/kubectl-vsecm.fish`,
		Args:      exactArgs(1, "the name of one shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(streams.Out, true)
			case "zsh":
				return root.GenZshCompletion(streams.Out)
			case "fish":
				return root.GenFishCompletion(streams.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(streams.Out)
			}
			return withHint(fmt.Errorf("no completion for %q", args[0]), "want bash, zsh, fish, powershell or install")
		},
	}
	cmd.AddCommand(newCompletionInstall(streams))
	return cmd
}

// plainUsages takes the backquotes that mark a flag's value from what is said of flags: completion
// shows the text as it is.
func plainUsages(cmd *cobra.Command) {
	plain := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	cmd.Flags().VisitAll(plain)
	cmd.PersistentFlags().VisitAll(plain)
	for _, verb := range cmd.Commands() {
		plainUsages(verb)
	}
}

// completeNames completes the NAME of a manifest in file.
func completeNames(file string, args []string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		for _, m := range manifestsIn(file) {
			names = append(names, m.Object.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeKeys completes a key of the manifests in file of the name, or of any name if
// it is empty.
func completeKeys(file, name string) ([]string, cobra.ShellCompDirective) {
	var keys []string
	for _, m := range manifestsIn(file) {
		if name == "" || m.Object.Name == name {
			keys = append(keys, sortedKeys(m.Object.Spec.EncryptedData)...)
		}
	}
	return keys, cobra.ShellCompDirectiveNoFileComp
}

// manifestsIn returns what can be read of a regular file: a person who presses Tab waits.
func manifestsIn(file string) []encrypt.Manifest {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := readFile(file, encrypt.MaxFileSize)
	if err != nil {
		return nil
	}
	p, err := findProject()
	if err != nil {
		return nil
	}
	return encrypt.ReadManifests(file, data, p.rule(file).Namespace).Objects
}

// completionTimeout bounds what completion asks a cluster: a person who presses Tab waits.
const completionTimeout = 3 * time.Second

// completeFromCluster completes with the names that a cluster has under a path. Where it has no
// answer there is nothing to complete.
func completeFromCluster(ctx context.Context, conn *connection, path func(*cluster) *url.URL) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	cluster, err := conn.cluster()
	if err != nil {
		return nil
	}
	defer cluster.close()
	names, err := cluster.names(ctx, path(cluster))
	if err != nil {
		return nil
	}
	return names
}

// completeNamespaces completes -n.
func completeNamespaces(conn *connection) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeFromCluster(cmd.Context(), conn, func(c *cluster) *url.URL { return c.path() }), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeObjects completes the names of objects of ours in a namespace, without those that
// are there already.
func completeObjects(ctx context.Context, conn *connection, resource, namespace string, args []string) ([]string, cobra.ShellCompDirective) {
	namespace, err := conn.namespaceOrDefault(namespace)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := completeFromCluster(ctx, conn, func(c *cluster) *url.URL { return c.objects(resource, namespace) })
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, namespace+"/")
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeSources completes the NAME of a source: in the namespace, if one is given, and else
// NAMESPACE/NAME, if the person may see them all.
func completeSources(ctx context.Context, conn *connection, namespace string) ([]string, cobra.ShellCompDirective) {
	if namespace == "" {
		names := completeFromCluster(ctx, conn, func(c *cluster) *url.URL { return c.objects(v1alpha1.ResourceGitSources, "") })
		if len(names) > 0 {
			return names, cobra.ShellCompDirectiveNoFileComp
		}
	}
	return completeObjects(ctx, conn, v1alpha1.ResourceGitSources, namespace, nil)
}

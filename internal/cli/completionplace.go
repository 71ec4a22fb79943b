package cli

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd/api"
)

// completeConnection completes kubectl's own flags, as kubectl does: with the names that the
// kubeconfig has, with files where one is wanted, and else with nothing.
func completeConnection(root *cobra.Command, conn *connection) {
	from := func(names func(*api.Config) []string) cobra.CompletionFunc {
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			config, err := conn.loadKubeconfig()
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return names(config), cobra.ShellCompDirectiveNoFileComp
		}
	}
	for flag, names := range map[string]cobra.CompletionFunc{
		"context": from(func(c *api.Config) []string { return slices.Sorted(maps.Keys(c.Contexts)) }),
		"cluster": from(func(c *api.Config) []string { return slices.Sorted(maps.Keys(c.Clusters)) }),
		"user":    from(func(c *api.Config) []string { return slices.Sorted(maps.Keys(c.AuthInfos)) }),

		"as": cobra.NoFileCompletions, "as-group": cobra.NoFileCompletions, "as-uid": cobra.NoFileCompletions,
		"password": cobra.NoFileCompletions, "token": cobra.NoFileCompletions, "username": cobra.NoFileCompletions,
		"proxy-url": cobra.NoFileCompletions, "request-timeout": cobra.NoFileCompletions,
		"server": cobra.NoFileCompletions, "tls-server-name": cobra.NoFileCompletions,
	} {
		_ = root.RegisterFlagCompletionFunc(flag, names)
	}
}

// completeSafeNamespaces completes --safe-namespace of all verbs below cmd.
func completeSafeNamespaces(cmd *cobra.Command, conn *connection) {
	for _, verb := range cmd.Commands() {
		if verb.Flags().Lookup("safe-namespace") != nil {
			_ = verb.RegisterFlagCompletionFunc("safe-namespace", completeNamespaces(conn))
		}
		completeSafeNamespaces(verb, conn)
	}
}

// completeKeysOf completes a key of an object in the cluster.
func completeKeysOf(ctx context.Context, conn *connection, namespace, name string) ([]string, cobra.ShellCompDirective) {
	namespace, err := conn.namespaceOrDefault(namespace)
	if err != nil || name == "" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	cluster, err := conn.cluster()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cluster.close()
	object, err := cluster.secret(ctx, namespace, name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return sortedKeys(object.Spec.EncryptedData), cobra.ShellCompDirectiveNoFileComp
}

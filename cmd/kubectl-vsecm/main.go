// Kubectl-vsecm is the kubectl plugin: kubectl vsecm.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/vsecm/kubectl-vsecm/internal/cli"
)

func main() {
	// The process is gone before its garbage matters: of a thousand manifests,
	// collecting it often was a tenth of the time.
	debug.SetGCPercent(400)
	os.Exit(cli.Main(context.Background(), os.Args[1:], genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}))
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// safeVariable is where operators reach Safe.
const safeVariable = "VSECM_SAFE"

const maxAnswerSize = 16 << 20

// A safeFlag says where Safe is reached by its operators.
type safeFlag struct{ address string }

func (f *safeFlag) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.address, "safe", "", "Where Safe is reached: `unix://SOCKET` (default $VSECM_SAFE)")
}

// call makes one call and returns the answer's body.
func (f safeFlag) call(ctx context.Context, timeout time.Duration, method, target string) ([]byte, error) {
	address := f.address
	if address == "" {
		address = os.Getenv(safeVariable)
	}
	if address == "" {
		return nil, withHint(errors.New("no Safe given"), "name its operator's socket with --safe or $%s", safeVariable)
	}
	socket, ok := strings.CutPrefix(address, "unix://")
	if !ok {
		return nil, withHint(fmt.Errorf("%s: not the address of an operator's socket", address), "write unix:///PATH")
	}
	client := &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://safe"+target, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		var failed *net.OpError
		if errors.As(err, &failed) {
			return nil, withHint(fmt.Errorf("reaching Safe at %s: %w", address, failed.Err), "is it running, and are you its user?")
		}
		return nil, fmt.Errorf("reaching Safe at %s: %w", address, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerSize))
	if err != nil {
		return nil, fmt.Errorf("reading Safe's answer: %w", err)
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		var problem struct {
			Title, Detail string
		}
		_ = json.Unmarshal(text, &problem) // the code says enough where it is none
		said := problem.Detail
		if said == "" {
			said = strings.TrimSpace(response.Status + " " + problem.Title)
		}
		return nil, fmt.Errorf("asking Safe: %s", said)
	}
	return text, nil
}

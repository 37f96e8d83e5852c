package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/backoff"
)

// watchPause is how often a watched status is shown anew.
const watchPause = time.Second

func newStatus(a *app) *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the pools and runners of this host, and what they wait for",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			for {
				text, err := a.statusText(ctx, asJSON)
				if ended(ctx, err) {
					return nil
				}
				if err != nil {
					return err
				}
				if watch && terminal(a.stdout) && !asJSON {
					text = "\x1b[H\x1b[2J" + text // to the top, and nothing below
				}
				if _, err := fmt.Fprint(a.stdout, text); err != nil {
					return err
				}
				if !watch || backoff.Sleep(ctx, watchPause) != nil {
					return nil
				}
			}
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the API's answer")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it anew each second")
	return cmd
}

func (a *app) statusText(ctx context.Context, asJSON bool) (string, error) {
	s, err := a.client().Status(ctx)
	if err != nil {
		return "", err
	}
	if asJSON {
		b, err := json.MarshalIndent(s, "", "  ")
		return string(b) + "\n", err
	}
	return renderStatus(s, statusStyle{width: width(a.stdout), colour: colours(a.stdout)}), nil
}

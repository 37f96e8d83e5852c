package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
)

func newEvents(a *app) *cobra.Command {
	var follow, asJSON bool
	var back time.Duration
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened on this host, and what happens",
		Long: "Print what happened on this host, oldest first; with --follow go on with what happens.\n" +
			"Times are of your zone; --json prints UTC.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			since := time.Time{}
			if back > 0 {
				since = time.Now().Add(-back)
			}
			enc := json.NewEncoder(a.stdout)
			for e, err := range a.client().Events(ctx, since, follow) {
				if ended(ctx, err) {
					return nil
				}
				if err == nil && asJSON {
					err = enc.Encode(e)
				} else if err == nil {
					_, err = fmt.Fprintln(a.stdout, eventLine(e, time.Local))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object per line")
	cmd.Flags().DurationVar(&back, "since", 0, "only what happened in this last `time`; with --follow also print it first")
	return cmd
}

// eventLine writes an event for a person.
func eventLine(e event.Event, zone *time.Location) string {
	parts := []string{e.Time.In(zone).Format("2006-01-02 15:04:05"), fmt.Sprintf("%-14s", e.Kind)}
	if what := cmp.Or(e.Runner, e.Pool); what != "" {
		parts = append(parts, what)
	}
	switch e.Kind {
	case event.RunnerMoved:
		move := string(e.To)
		if e.From != "" {
			move = fmt.Sprintf("%s → %s after %s", e.From, e.To, seconds(e.Took))
		}
		parts = append(parts, move)
	case event.RunnerJob:
		parts = append(parts, jobText(e.Job))
	case event.ImagePulling:
		if e.Total > 0 {
			parts = append(parts, fmt.Sprintf("%d %% of %d MB", 100*e.Done/e.Total, e.Total/1e6))
		}
	case event.ImagePruned:
		parts = append(parts, human.Bytes(e.Done))
	}
	if e.Image != "" && e.Runner == "" { // each runner's image is its pool's
		parts = append(parts, shortImage(e.Image))
	}
	if e.Failed {
		parts = append(parts, "FAILED")
	}
	if e.Reason != "" {
		parts = append(parts, "("+oneLine(e.Reason)+")")
	}
	return strings.TrimRight(strings.Join(parts, "  "), " ")
}

// shortImage cuts a digest to what people compare.
func shortImage(ref string) string {
	if hex := image.DigestHex(ref); hex != "" {
		return "sha256:" + hex[:12]
	}
	return ref
}

func seconds(s float64) string {
	if s < 10 {
		return fmt.Sprintf("%.1fs", s)
	}
	return human.Duration(time.Duration(s * float64(time.Second)))
}

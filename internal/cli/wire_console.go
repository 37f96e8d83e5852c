package cli

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/console"
	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// console wires the web console of a host. The feed has seen every event.
func (h *host) console(cfg *config.Config, feed *console.Feed, log *slog.Logger) (*console.Console, error) {
	opt := console.Options{
		Listen: cfg.Console.Listen, Hosts: cfg.Console.Hosts, Installation: h.wiring.installation,
		Host: h.agent, Status: h.watch.status(h.agent.Status), Feed: feed, Log: log,
		Problem:  func(text string) { h.watch.problem("console", text) },
		Findings: func(ctx context.Context) []console.Finding { return machineFindings(ctx, cfg) },
		Images:   func(context.Context) ([]image.Stored, error) { return storedImages(cfg.Host.Home) },
		Diff: func(_ context.Context, from, to string) (console.Difference, error) {
			return storedDifference(cfg.Host.Home, from, to)
		},
	}
	if h.watch.history != nil {
		opt.Runs = h.watch.history
	}
	return console.New(opt)
}

// machineFindings is what doctor says of this machine, without the checks that
// boot a guest or ask others.
func machineFindings(ctx context.Context, cfg *config.Config) []console.Finding {
	host, err := new(app).doctorHost(cfg, false)
	if err != nil {
		return []console.Finding{{Check: "doctor", Level: string(doctor.Unknown), Seen: err.Error()}}
	}
	var out []console.Finding
	for _, f := range doctor.Examine(ctx, doctor.Here{}, host) {
		out = append(out, console.Finding{Check: f.Check, Level: string(f.Level), Seen: f.Seen, Why: f.Why, Mend: f.Mend})
	}
	return out
}

// storedImages lists what is there, and makes no store where there is none.
func storedImages(home string) ([]image.Stored, error) {
	s, err := storeOf(home)
	if s == nil || err != nil {
		return nil, err
	}
	return s.Usage()
}

// storeOf opens a home's images; nil: it has none.
func storeOf(home string) (*store.Store, error) {
	if _, err := os.Stat(imagesDir(home)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return store.Open(imagesDir(home))
}

// storedDifference compares two images of a home.
func storedDifference(home, from, to string) (console.Difference, error) {
	s, err := storeOf(home)
	if s == nil && err == nil {
		err = image.ErrNotFound
	}
	if err != nil {
		return console.Difference{}, err
	}
	var both [2]transfer.Inspection
	for i, digest := range []string{from, to} {
		img, err := s.Get(digest)
		if err != nil {
			return console.Difference{}, err
		}
		if both[i], err = transfer.InspectLocal(img); err != nil {
			return console.Difference{}, err
		}
	}
	d := transfer.Diff(both[0], both[1])
	out := console.Difference{Fetch: d.FetchBytes, Raw: d.FetchRaw, Have: d.HaveRaw}
	for _, name := range d.Labels {
		out.Labels = append(out.Labels, console.Relabel{Name: name, Was: both[0].Labels[name], Is: both[1].Labels[name]})
	}
	return out, nil
}

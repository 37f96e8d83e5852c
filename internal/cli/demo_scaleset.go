package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/github/scaleset"
)

// throughSet lets a scale set ask for the runners. What an earlier demo knew of
// its own is of a GitHub that is no more.
func (d *demo) throughSet(p *agent.Pool, gh *github.Client) error {
	book := filepath.Join(scaleSetsDir(d.home), "demo.json")
	if err := os.Remove(book); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove what an earlier demo knew of its scale set: %w", err)
	}
	set, err := scaleset.New(scaleset.Options{
		Service: scaleset.NewService(gh), Pool: "demo", Installation: d.installation, Host: "demo", File: book, Log: d.log,
	}, scaleset.Settings{Name: "tasuki-demo", Labels: d.labels, Capacity: d.flags.slots})
	if err != nil {
		return err
	}
	p.Spec.ScaleSet, p.Spec.Standby = "tasuki-demo", 0
	p.GitHub, p.Demand = set, listener{set}
	return nil
}

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/config"
	bundle "github.com/mirego/tasuki/internal/monitoring"
)

func newMonitoringGroup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "monitoring",
		Short: "Watch hosts with Prometheus, Grafana and Loki",
	}
	cmd.AddCommand(newMonitoringExport(a))
	return cmd
}

// exportOptions are the flags of monitoring export.
type exportOptions struct {
	hosts     []string
	tokenFile string
	lokiURL   string
	local     bool
	queueAge  time.Duration
	interval  time.Duration
}

func newMonitoringExport(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Write the files that watch your hosts",
		Long: "Write the configuration of a Prometheus, an Alertmanager, a Grafana and a Loki for your hosts into DIR:\n" +
			"dashboards, alerts, a compose file that starts all four, and what sends a host's logs to Loki. Files that are\n" +
			"there are written anew, but for alertmanager.yml and those in DIR/secrets, which you fill in. A host is [NAME=][https://]ADDRESS[:PORT]; NAME is host.name\n" +
			"of its configuration, the port is that of metrics.listen (9464 where none is given).",
		Example: "  tasuki monitoring export monitoring --host rack-1=10.0.0.5 --host rack-2=10.0.0.6 --token-file /etc/tasuki/metrics-token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.exportMonitoring(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.hosts, "host", nil, "a `host` to watch; once for each")
	f.StringVar(&o.tokenFile, "token-file", "", "the `file` that metrics.token of the hosts names; it is copied into DIR/secrets")
	f.StringVar(&o.lokiURL, "loki", "", "the `address` where hosts reach Loki (default http://monitoring.example.com:3100, to be filled in)")
	f.BoolVar(&o.local, "no-containers", false, "for programs that run on this machine as they are, and not through compose.yaml")
	f.DurationVar(&o.queueAge, "queue-age", 15*time.Minute, "from how long on a job that waits is an alert")
	f.DurationVar(&o.interval, "interval", 15*time.Second, "between two scrapes of a host")
	_ = cmd.MarkFlagRequired("host")
	return cmd
}

func (a *app) exportMonitoring(cmd *cobra.Command, dir string, o exportOptions) error {
	if o.interval < time.Second || o.queueAge < time.Second {
		return withHint(fmt.Errorf("cannot use --interval %v with --queue-age %v", o.interval, o.queueAge), "choose 1s or more")
	}
	opt := bundle.Options{LokiURL: o.lokiURL, QueueAge: o.queueAge, Interval: o.interval}
	for _, text := range o.hosts {
		h, err := bundle.ParseHost(text)
		if err != nil {
			return err
		}
		opt.Hosts = append(opt.Hosts, h)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("cannot write into %q: %w", dir, err)
	}
	if o.local {
		opt.Folder = filepath.ToSlash(dir)
	}
	token := ""
	if o.tokenFile != "" { // before anything is written
		read, err := config.Source{File: o.tokenFile}.Read(cmd.Context())
		if err != nil {
			return err
		}
		token = read.Reveal() + "\n"
	}
	files, err := bundle.Bundle(opt)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Path == bundle.TokenFile && token != "" {
			f.Data = []byte(token)
		} else if kept, err := isThere(dir, f); kept || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := writeBundled(dir, f); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stderr, "wrote %d files for %d hosts to %s\n", len(files), len(opt.Hosts), dir)
	if token == "" {
		fmt.Fprintf(a.stderr, "put the token of metrics.token into %s\n", filepath.Join(dir, filepath.FromSlash(bundle.TokenFile)))
	}
	if !o.local {
		fmt.Fprintf(a.stderr, "start them: docker compose --project-directory %s up -d, then http://127.0.0.1:3000\n", dir)
	}
	return nil
}

const secretsFolder = "secrets/"

// filledIn is a file in which a person writes whom alerts go to.
const filledIn = "alertmanager/alertmanager.yml"

// isThere says whether a file is one that somebody fills in, and is there.
func isThere(dir string, f bundle.File) (bool, error) {
	if !strings.HasPrefix(f.Path, secretsFolder) && f.Path != filledIn {
		return false, nil
	}
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f.Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeBundled writes one file. The programs of the containers are users of
// their own, and must read the secrets: these are for everybody in a folder that
// is for its owner alone, and only the container sees the folder's inside.
func writeBundled(dir string, f bundle.File) error {
	path := filepath.Join(dir, filepath.FromSlash(f.Path))
	mode := fs.FileMode(0o755)
	if strings.HasPrefix(f.Path, secretsFolder) {
		mode = 0o700
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write the files: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), mode); err != nil {
		return fmt.Errorf("cannot write the files: %w", err)
	}
	if mode == 0o700 { // also one that was there
		if err := os.Chmod(filepath.Dir(path), mode); err != nil {
			return fmt.Errorf("cannot write the files: %w", err)
		}
	}
	return atomicfile.Write(path, f.Data, 0o644)
}

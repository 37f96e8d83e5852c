package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/monitoring"
)

// watched is the story: two agents with the fake driver under load, what
// tasuki monitoring export makes, and a real Prometheus and Alertmanager that
// run with it.
type watched struct {
	*world // of the first host
	second *world
	old    *emulator.Emulator // a GitHub that takes only newer runners
	dir    string             // of the bundle
	prom   string             // address of Prometheus
	small  string             // a disk of a few MB, the second host's home; empty: none could be mounted
	began  time.Time

	mu     sync.Mutex
	alerts map[string]bool // that reached the receiver
}

// notPulled are the queries that have no data here, since the images of the
// fake driver are folders that nobody pulls.
var notPulled = []string{"tasuki_image_pulled_timestamp_seconds", "tasuki_image_pull_progress_ratio"}

// TestEveryAlertAndQueryOnRealSeries lets each fault happen to real agents that a
// real Prometheus scrapes with their token: each alert reaches a receiver of
// Alertmanager, and each query of the dashboards returns data.
func TestEveryAlertAndQueryOnRealSeries(t *testing.T) {
	for _, name := range []string{"prometheus", "prometheus-alertmanager"} {
		if _, err := proc.Look(name); err != nil {
			if os.Getenv("TASUKI_TEST_CLIENTS") != "" {
				t.Fatalf("%v; make prepare installs it", err)
			}
			t.Skipf("needs %s, which make prepare installs", name)
		}
	}
	w := newWatched(t)
	w.load()
	w.faults()
	expected := map[string]bool{}
	for _, a := range monitoring.Alerts(monitoring.Options{}) {
		expected[a.Name] = true
	}
	if w.small == "" {
		t.Log("nobody but root mounts a small disk: TasukiDiskLow is left to promtool")
		delete(expected, "TasukiDiskLow")
	} else {
		writeFile(t, filepath.Join(w.small, "filler"), strings.Repeat("x", smallSize*15/16))
	}
	delete(expected, "TasukiHostSilent")
	w.fired(expected)
	w.ask()
	w.second.kill()
	w.fired(map[string]bool{"TasukiHostSilent": true})
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	bin := t.TempDir()
	s := &site{tasuki: build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))}
	program := build(t, "../..", "./internal/emulator/protorunner/cmd/protorunner", filepath.Join(bin, "protorunner"))
	token := rand.Text()
	em := emulator.New(emulator.Options{Token: secret.New(token), Repository: "octo/demo"})
	w := &watched{alerts: map[string]bool{}, dir: filepath.Join(t.TempDir(), "monitoring"), began: time.Now()}
	w.old = emulator.New(emulator.Options{
		Token: secret.New(token), Repository: "acme/old", MinRunnerVersion: "2.400.0",
		RunnerRelease: emulator.RunnerRelease{Version: "2.400.1", Archive: []byte("an archive")},
	})
	w.small = smallDisk(t)
	address := "http://" + serve(t, em.Run)
	oldAddress := "http://" + serveAged(t, w.old)
	for _, name := range []string{"rack-1", "rack-2"} {
		h := &world{t: t, site: s, home: t.TempDir(), em: em, url: address}
		if name == "rack-2" && w.small != "" {
			h.home = w.small
		}
		for file, text := range map[string]string{
			"token": token, "metrics-token": strings.Repeat("m", 20) + token,
			"work/run": "#!/bin/sh\nexec '" + program + "' -hold 300ms\n", "mute/run": "#!/bin/sh\nexec sleep 600\n", "nowhere/README": "no program\n",
		} {
			writeFile(t, filepath.Join(h.home, file), text)
		}
		t.Cleanup(h.endAll)
		if name == "rack-1" {
			w.world = h
		} else {
			w.second = h
		}
	}
	ports := freePorts(t, 4)
	w.configure(0, ports[0], oldAddress)
	w.configure(1, ports[1], oldAddress)
	w.tasuki("monitoring", "export", w.dir, "--no-containers", "--interval", "1s", "--queue-age", "2s",
		"--host", "rack-1=127.0.0.1:"+ports[0], "--host", "rack-2=127.0.0.1:"+ports[1], "--token-file", filepath.Join(w.home, "metrics-token"))
	w.startWatchers(ports[2], ports[3])
	w.world.start()
	w.second.start()
	return w
}

// serveAged serves a GitHub whose downloads came out 25 days ago.
func serveAged(t *testing.T, e *emulator.Emulator) string {
	return serve(t, func(ctx context.Context, l net.Listener) error {
		inner := e.Handler()
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Last-Modified", time.Now().Add(-25*24*time.Hour).UTC().Format(http.TimeFormat))
			inner.ServeHTTP(w, r)
		})}
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, 0o700))
	if filepath.Base(path) != "run" {
		err = errors.Join(err, os.Chmod(path, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// freePorts are ports of loopback that nobody listened on a moment ago.
func freePorts(t *testing.T, n int) (out []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return out
}

// configure writes a host's configuration. Both have a pool that works; the
// first has one whose image is nowhere, the second one whose runners never
// register and one whose runners GitHub finds too old.
func (w *watched) configure(i int, port, oldAddress string) {
	w.t.Helper()
	h := []*world{w.world, w.second}[i]
	text := fmt.Sprintf("host: {name: rack-%d, home: %q, slots: 4, drain_timeout: 1s, tick: 200ms}\n", i+1, h.home) +
		fmt.Sprintf("github: {url: %q, token: {file: token}, accounts: [{name: old, url: %q, token: {file: token}}]}\n", h.url, oldAddress) +
		fmt.Sprintf("metrics: {listen: \"127.0.0.1:%s\", token: {file: metrics-token}}\n", port) +
		"defaults: {driver: fake, scope: octo/demo}\npools:\n" +
		fmt.Sprintf("  - {name: work, image: %q, labels: [work]}\n", filepath.Join(h.home, "work"))
	if i == 0 {
		text += fmt.Sprintf("  - {name: stuck, image: %q, labels: [stuck], scope: octo, scaleset: {name: stuck}}\n", filepath.Join(h.home, "nowhere"))
	} else {
		text += fmt.Sprintf("  - {name: mute, image: %q, labels: [mute], deadlines: {registering: 1s}}\n", filepath.Join(h.home, "mute")) +
			fmt.Sprintf("  - {name: old, image: %q, labels: [old], github: old, scope: acme/old}\n", filepath.Join(h.home, "work"))
	}
	writeFile(w.t, h.config(), text)
	h.tasuki("config", "check", h.config())
}

var holds = regexp.MustCompile(`for: \d+[ms]`)

// startWatchers starts Alertmanager with a receiver of ours, and Prometheus with
// the exported files, whose alerts need hold for a second only.
func (w *watched) startWatchers(promPort, alertPort string) {
	w.t.Helper()
	receiver := serve(w.t, w.receive)
	config := filepath.Join(w.t.TempDir(), "alertmanager.yml")
	writeFile(w.t, config, fmt.Sprintf("route: {receiver: test, group_by: [alertname], group_wait: 1s, group_interval: 1s}\n"+
		"receivers: [{name: test, webhook_configs: [{url: \"http://%s/\"}]}]\n", receiver))
	for path, change := range map[string]func(string) string{
		"prometheus/rules/tasuki.yml": func(s string) string { return holds.ReplaceAllString(s, "for: 1s") },
		"prometheus/prometheus.yml":   func(s string) string { return strings.ReplaceAll(s, "127.0.0.1:9093", "127.0.0.1:"+alertPort) },
	} {
		path = filepath.Join(w.dir, path)
		text, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		writeFile(w.t, path, change(string(text)))
	}
	w.prom = "http://127.0.0.1:" + promPort
	logs := w.t.TempDir()
	for _, c := range []proc.Cmd{
		{Path: "prometheus-alertmanager", Args: []string{"--config.file=" + config, "--storage.path=" + w.t.TempDir(), "--cluster.listen-address=", "--web.listen-address=127.0.0.1:" + alertPort}},
		{Path: "prometheus", Args: []string{"--config.file=" + filepath.Join(w.dir, "prometheus", "prometheus.yml"), "--storage.tsdb.path=" + w.t.TempDir(), "--web.listen-address=127.0.0.1:" + promPort}},
	} {
		log := filepath.Join(logs, filepath.Base(c.Path))
		id, err := proc.Detach(c, log)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			_ = id.Kill(context.Background())
			if text, _ := os.ReadFile(log); w.t.Failed() {
				w.t.Logf("%s:\n%s", log, text[max(0, len(text)-3000):])
			}
		})
	}
}

// receive is a receiver of Alertmanager.
func (w *watched) receive(ctx context.Context, l net.Listener) error {
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var got struct {
			Alerts []struct{ Labels map[string]string }
		}
		if json.NewDecoder(r.Body).Decode(&got) == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, a := range got.Alerts {
				w.alerts[a.Labels["alertname"]] = true
			}
		}
	})}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// load gives both hosts jobs until some are over, and one to the pool that can
// take none.
func (w *watched) load() {
	w.t.Helper()
	w.until("both hosts were scraped before they had a job", func() bool {
		n, err := w.query(`tasuki_job_queue_seconds_count{pool="work"}`)
		return err == nil && n == 2
	})
	w.submit("  s:\n    runs-on: [self-hosted, stuck]\n    steps: [{run: echo}]\n")
	text := ""
	for i := range 12 {
		text += fmt.Sprintf("  j%d:\n    runs-on: [self-hosted, work]\n    steps: [{run: echo}]\n", i)
	}
	run := w.submit(text)
	w.until("the jobs are over", func() bool {
		r, _ := w.em.RunState(run)
		return !slices.ContainsFunc(r.Jobs, func(j emulator.JobState) bool { return j.Status != "completed" })
	})
}

// faults lets the rest go wrong: a slot leaks, an image does not work, GitHub
// refuses, and the newest runner program cannot be asked for since a restart.
func (w *watched) faults() {
	w.t.Helper()
	writeFile(w.t, filepath.Join(w.home, "fake", "leaked"), "1\n")
	w.until("the second host keeps a release of the runner program", func() bool {
		s, err := client.New(w.second.home).Status(w.t.Context())
		return err == nil && slices.ContainsFunc(s.Pools, hasIdle) && len(s.Releases) > 0 && s.Releases[0].Version != ""
	})
	w.until("the first host has a runner that waits", func() bool {
		s, err := client.New(w.home).Status(w.t.Context())
		return err == nil && slices.ContainsFunc(s.Pools, hasIdle)
	})
	// The new image is the old one's folder: every second guest fails, and the
	// agent tries the new one and the one before in turn.
	work := filepath.Join(w.home, "work")
	text, err := os.ReadFile(filepath.Join(work, "run"))
	if err != nil {
		w.t.Fatal(err)
	}
	fails := "echo >>'" + work + "/tries'; [ $(( $(wc -l <'" + work + "/tries') % 2 )) = 0 ] || exit 1\nexec"
	writeFile(w.t, filepath.Join(work, "run"), strings.Replace(string(text), "exec", fails, 1))
	w.tasuki("image", "refresh", "work")
	w.until("the new image is rejected", func() bool {
		s, err := client.New(w.home).Status(w.t.Context())
		return err == nil && slices.ContainsFunc(s.Pools, func(p api.Pool) bool { return p.Rejected != "" })
	})
	w.old.SetFaults([]emulator.Fault{{Route: "GET actions/runners/downloads", Status: 500}})
	w.em.SetFaults([]emulator.Fault{{Route: "GET actions/runners/downloads", Status: 500}, {Route: "POST generate-jitconfig", Status: 403, Times: 2, Skip: 1}})
	w.second.kill()
	w.second.start()
}

func hasIdle(p api.Pool) bool { return p.Name == "work" && p.Idle > 0 }

// smallSize is the size of the small disk, in bytes.
const smallSize = 128 << 20

// smallDisk mounts a disk that can be filled; empty where that is not allowed.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallSize)); err != nil {
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fired waits until alerts have reached the receiver.
func (w *watched) fired(names map[string]bool) {
	w.t.Helper()
	left := slices.Sorted(maps.Keys(names))
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		w.mu.Lock()
		left = slices.DeleteFunc(left, func(name string) bool { return w.alerts[name] })
		w.mu.Unlock()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("no alert %s\n%s\n%s", strings.Join(left, ", "), w.story(), w.second.story())
		}
	}
}

// ask executes every query of the dashboards over the time of the story.
func (w *watched) ask() {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "grafana", "dashboards", "*.json"))
	if err != nil || len(files) < 3 {
		w.t.Fatalf("dashboards: %q, %v", files, err)
	}
	n := 0
	for _, file := range files {
		var d struct {
			Panels []struct {
				Title, Type string
				Targets     []struct{ Expr string }
			}
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &d)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				if p.Type == "logs" || slices.ContainsFunc(notPulled, func(name string) bool { return strings.Contains(q.Expr, name) }) {
					continue
				}
				n++
				expr := strings.NewReplacer("$host", "rack-1|rack-2", "$pool", ".*").Replace(q.Expr)
				if series, err := w.query(expr); err != nil || series == 0 {
					w.t.Errorf("%s, %s: %d series, %v\n%s", filepath.Base(file), p.Title, series, err, expr)
				}
			}
		}
	}
	w.t.Logf("%d queries returned data", n)
}

// query returns how many series an expression had since the story began.
func (w *watched) query(expr string) (int, error) {
	now := time.Now()
	form := url.Values{"query": {expr}, "start": {w.began.Format(time.RFC3339)}, "end": {now.Format(time.RFC3339)}, "step": {"2s"}}
	res, err := http.Get(w.prom + "/api/v1/query_range?" + form.Encode())
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d: %s: %w", res.StatusCode, body, err)
	}
	var answer struct {
		Data struct {
			Result []struct{ Values [][]any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, err
	}
	series := 0
	for _, r := range answer.Data.Result {
		// A quantile of nothing is no answer.
		if slices.ContainsFunc(r.Values, func(v []any) bool { return v[1] != "NaN" }) {
			series++
		}
	}
	return series, nil
}

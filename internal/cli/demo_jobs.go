package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/mirego/tasuki/internal/cli/demoview"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/vm"
)

// demoLabels are all that the demo's runners publish.
func demoLabels(more []string) []string {
	spec := pool.Spec{Labels: append([]string{"demo"}, more...)}
	return spec.PublishedLabels(vm.Capabilities{GuestOS: image.OSLinux, GuestArch: runtime.GOARCH})
}

// checkServable refuses workflows whose jobs no runner of the demo could ever
// take, as far as that is known before they run.
func checkServable(workflows []*workflow.Workflow, labels []string) error {
	e := emulator.New(emulator.Options{})
	for _, w := range workflows {
		if _, err := e.Submit(w, ""); err != nil {
			return err
		}
	}
	return unservable(e.State(), labels)
}

// unservable returns an error about the first job that waits for labels or a
// group which the demo does not have.
func unservable(state emulator.State, labels []string) error {
	has := map[string]bool{}
	for _, l := range labels {
		has[strings.ToLower(l)] = true
	}
	for _, run := range state.Runs {
		for _, j := range run.Jobs {
			if j.Status == "completed" {
				continue
			}
			if j.Group != "" && !strings.EqualFold(j.Group, "Default") {
				return withHint(fmt.Errorf("%s: job %q asks for the runner group %q, and the demo has only the default one", run.File, j.Name, j.Group),
					"leave the group out of runs-on")
			}
			for _, l := range j.Labels {
				if !has[strings.ToLower(l)] {
					return withHint(fmt.Errorf("%s: job %q runs on [%s], and the demo's runners are [%s]",
						run.File, j.Name, strings.Join(j.Labels, ", "), strings.Join(labels, ", ")),
						fmt.Sprintf("tasuki demo --label %s gives them that label; they stay Debian all the same", l))
				}
			}
		}
	}
	return nil
}

// jobDemand is the agent's Demand of a demo: as many runners on their way as
// there are jobs left that none has taken, so that no guest boots for nothing.
// The host's slots bound them, and its status says so.
type jobDemand struct {
	mu   sync.Mutex
	left int
}

// Want implements agent.Demand.
func (d *jobDemand) Want() pool.Demand {
	d.mu.Lock()
	defer d.mu.Unlock()
	return pool.Demand{Warm: d.left, Why: fmt.Sprintf("jobs that wait for a runner: %d", d.left)}
}

func (d *jobDemand) set(left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = left
}

// untaken counts the jobs that no runner has taken yet.
func untaken(state emulator.State) int {
	n := 0
	for _, run := range state.Runs {
		for _, j := range run.Jobs {
			if j.Status == "pending" || j.Status == "queued" {
				n++
			}
		}
	}
	return n
}

// allDone says whether every run has ended.
func allDone(state emulator.State) bool {
	return !slices.ContainsFunc(state.Runs, func(r emulator.RunState) bool { return r.Status != "completed" })
}

// failed counts the runs that did not succeed.
func failed(state emulator.State) int {
	n := 0
	for _, run := range state.Runs {
		if run.Conclusion != workflow.Success && run.Conclusion != workflow.Skipped {
			n++
		}
	}
	return n
}

// signatures are the part of a link that lets whoever has it fetch what it names.
// github-act-runner writes the links that it downloads actions from into the log.
var signatures = regexp.MustCompile(`([?&]sig=)[^&\s"']+`)

// viewJobs tells the emulator's state in the view's words.
func viewJobs(state emulator.State) []demoview.Job {
	var out []demoview.Job
	for _, run := range state.Runs {
		for _, j := range run.Jobs {
			job := demoview.Job{
				ID: j.ID, Name: j.Name, Run: run.Name, Status: j.Status, Conclusion: j.Conclusion, Reason: j.Reason,
				Runner: j.RunnerName, Queued: j.Queued, Started: j.Started, Completed: j.Completed,
			}
			if j.Status != "completed" {
				job.Conclusion, job.Reason = "", strings.TrimSpace(strings.ReplaceAll(j.Status, "_", " ")+" "+j.Waiting)
			}
			for _, s := range j.Steps {
				step := demoview.Step{Name: s.Name, Conclusion: s.Conclusion, Log: signatures.ReplaceAllString(s.Log, "${1}***")}
				if !s.Started.IsZero() && !s.Completed.IsZero() {
					step.Took = s.Completed.Sub(s.Started)
				}
				job.Steps = append(job.Steps, step)
			}
			out = append(out, job)
		}
	}
	return out
}

// keepLogs writes each job's whole log below dir, in place of those of the
// demo before, and notes where.
func keepLogs(dir string, jobs []demoview.Job) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove the logs of an earlier demo: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep the jobs' logs: %w", err)
	}
	for i, j := range jobs {
		if len(j.Steps) == 0 {
			continue
		}
		var b strings.Builder
		for _, s := range j.Steps {
			fmt.Fprintf(&b, "== %s: %s\n%s\n", s.Name, s.Conclusion, strings.TrimRight(s.Log, "\n"))
		}
		path := filepath.Join(dir, fmt.Sprintf("%02d-%s.log", i+1, fileWord(j.Name)))
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			return fmt.Errorf("cannot keep the jobs' logs: %w", err)
		}
		jobs[i].LogFile = path
	}
	return nil
}

// fileWord makes a job's name fit for a file's.
func fileWord(name string) string {
	word := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r >= 'A' && r <= 'Z':
			return r
		}
		return '-'
	}, name)
	return word[:min(len(word), 60)]
}

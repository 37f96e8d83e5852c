package protorunner

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mirego/tasuki/internal/base/backoff"
)

// job is the one job of a runner's life.
type job struct {
	agent   *agent
	conn    *conn // under the job's token
	service string
	results string
	steps   []stepState
	order   int
	message struct {
		Name string `json:"jobDisplayName"`
		ID   string `json:"jobId"`
		Plan struct {
			ID string `json:"planId"`
		} `json:"plan"`
		Steps []struct {
			ID    string          `json:"id"`
			Title json.RawMessage `json:"displayNameToken"`
		} `json:"steps"`
		Variables map[string]struct {
			Value string `json:"value"`
		} `json:"variables"`
		Resources struct {
			Endpoints []struct {
				Name          string `json:"name"`
				URL           string `json:"url"`
				Authorization struct {
					Scheme     string            `json:"scheme"`
					Parameters map[string]string `json:"parameters"`
				} `json:"authorization"`
			} `json:"endpoints"`
		} `json:"resources"`
	}
}

// stepState is a step in the words of the results service.
type stepState struct {
	ID         string `json:"external_id"`
	Number     int    `json:"number"`
	Name       string `json:"name"`
	Status     int    `json:"status"`
	Conclusion int    `json:"conclusion"`
	Started    string `json:"started_at,omitempty"`
	Completed  string `json:"completed_at,omitempty"`
}

// The official runner's numbers.
const (
	inProgress = 3
	completed  = 6
)

var conclusionNumbers = map[string]int{"succeeded": 2, "failed": 3, "canceled": 4, "skipped": 7}

// prepare reads from the message what the job needs, as strictly as the official runner does.
func (j *job) prepare() error {
	for _, e := range j.message.Resources.Endpoints {
		if e.Name != "SystemVssConnection" {
			continue
		}
		token := e.Authorization.Parameters["AccessToken"]
		if _, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{}); err != nil {
			return fmt.Errorf("cannot use the job's token: %w", err)
		}
		j.conn, j.service = &conn{client: j.agent.opts.Client, token: token}, e.URL
	}
	j.results = j.message.Variables["system.github.results_endpoint"].Value
	if j.conn == nil || j.results == "" {
		return fmt.Errorf("cannot start job %q: its message names no service", j.message.Name)
	}
	for i, s := range j.message.Steps {
		var title string
		if json.Unmarshal(s.Title, &title) != nil || title == "" {
			title = "step"
		}
		j.steps = append(j.steps, stepState{ID: s.ID, Number: i + 1, Name: title})
	}
	return nil
}

// run executes and reports the job.
func (j *job) run(ctx context.Context) error {
	reporting := context.WithoutCancel(ctx)
	if err := j.renew(ctx); err != nil { // the official runner starts no worker before
		return fmt.Errorf("cannot start job %q: %w", j.message.Name, err)
	}
	j.agent.say("Running job: %s", j.message.Name)
	started := time.Now()
	j.mark(reporting, inProgress, 0, started, time.Time{})
	conclusion := j.agent.opts.Conclusion
	err := j.wait(ctx)
	if ctx.Err() != nil && j.agent.opts.Abrupt {
		return fmt.Errorf("cannot finish job %q: %w", j.message.Name, context.Cause(ctx))
	}
	if err != nil {
		conclusion = "canceled"
	}
	j.mark(reporting, completed, conclusionNumbers[conclusion], started, time.Now())
	logErr := j.upload(reporting)
	if err := j.complete(reporting, conclusion); err != nil {
		return err
	}
	j.agent.say("Job %s completed with result: %s", j.message.Name, strings.ToUpper(conclusion[:1])+conclusion[1:])
	return logErr
}

// wait lets the job's time pass, renewing its lock and listening Busy. It returns an error when the job
// was cancelled, its lock was lost, or ctx ended.
func (j *job) wait(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	beside.Go(func() {
		for backoff.Sleep(ctx, j.agent.opts.Renew) == nil {
			if err := j.renew(ctx); statusOf(err) == http.StatusNotFound {
				stop(err)
			}
		}
	})
	beside.Go(func() {
		for {
			m, err := j.agent.poll(ctx, "Busy")
			if err != nil {
				return // the job goes on without: only a cancellation would come this way
			}
			if m.Type == "JobCancellation" {
				stop(errCancelled)
			}
		}
	})
	var err error
	if j.agent.opts.Until != nil {
		err = j.agent.opts.Until(ctx)
	} else {
		err = backoff.Sleep(ctx, j.agent.opts.Hold)
	}
	stop(nil)
	beside.Wait()
	return err
}

// post sends to a service under the job's token and insists for up to half a minute.
func (j *job) post(ctx context.Context, base, ref string, in, out any) error {
	address, err := resolve(base, ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return insist(ctx, func(ctx context.Context) error {
		_, err := j.conn.send(ctx, http.MethodPost, address, in, out)
		return err
	})
}

func (j *job) ids() map[string]any {
	return map[string]any{"planId": j.message.Plan.ID, "jobId": j.message.ID}
}

func (j *job) backendIDs() map[string]any {
	return map[string]any{"workflow_run_backend_id": j.message.Plan.ID, "workflow_job_run_backend_id": j.message.ID}
}

func (j *job) renew(ctx context.Context) error {
	var out struct {
		Until time.Time `json:"lockedUntil"`
	}
	if err := j.post(ctx, j.service, "renewjob", j.ids(), &out); err != nil {
		return fmt.Errorf("cannot renew job %q: %w", j.message.Name, err)
	}
	if out.Until.IsZero() {
		return fmt.Errorf("cannot renew job %q: the answer has no lockedUntil", j.message.Name)
	}
	return nil
}

// mark reports the state of all steps; failing to is no reason to fail the job.
func (j *job) mark(ctx context.Context, status, conclusion int, started, ended time.Time) {
	for i := range j.steps {
		s := &j.steps[i]
		s.Status, s.Conclusion, s.Started = status, conclusion, started.UTC().Format(time.RFC3339Nano)
		if !ended.IsZero() {
			s.Completed = ended.UTC().Format(time.RFC3339Nano)
		}
	}
	j.order++
	in := j.backendIDs()
	in["steps"], in["change_order"] = j.steps, j.order
	j.report(ctx, "twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate", in)
}

// report makes a call of the results service that answers ok.
func (j *job) report(ctx context.Context, call string, in any) error {
	var out struct {
		OK bool `json:"ok"`
	}
	if err := j.post(ctx, j.results, call, in, &out); err != nil {
		return err
	}
	if !out.OK {
		return fmt.Errorf("cannot report: %s did not answer ok", call)
	}
	return nil
}

// upload stores a log for the first step.
func (j *job) upload(ctx context.Context) error {
	if len(j.steps) == 0 {
		return nil
	}
	const receiver = "twirp/results.services.receiver.Receiver/"
	in := j.backendIDs()
	in["step_backend_id"] = j.steps[0].ID
	var out struct {
		URL     string `json:"logs_url"`
		Storage string `json:"blob_storage_type"`
	}
	if err := j.post(ctx, j.results, receiver+"GetStepLogsSignedBlobURL", in, &out); err != nil {
		return fmt.Errorf("cannot get an address for the step's log: %w", err)
	}
	text := fmt.Sprintf("%s job %s on %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z"), j.message.Name, j.agent.cfg.RunnerName)
	err := insist(ctx, func(ctx context.Context) error {
		_, err := (&conn{client: j.conn.client}).raw(ctx, http.MethodPut, out.URL, strings.NewReader(text), http.Header{
			"x-ms-blob-type": {"BlockBlob"}, "Content-Type": {"application/octet-stream"},
		}, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot upload the step's log: %w", err)
	}
	in["line_count"], in["uploaded_at"] = 1, time.Now().UTC().Format(time.RFC3339Nano)
	return j.report(ctx, receiver+"CreateStepLogsMetadata", in)
}

// complete reports the conclusion. A job that is not there any more was concluded by the server.
func (j *job) complete(ctx context.Context, conclusion string) error {
	in := j.ids()
	in["conclusion"] = conclusion
	outputs := map[string]any{}
	for k, v := range j.agent.opts.Outputs {
		outputs[k] = map[string]any{"value": v, "isSecret": false}
	}
	in["outputs"] = outputs
	var steps []map[string]any
	for _, s := range j.steps {
		steps = append(steps, map[string]any{
			"external_id": s.ID, "number": s.Number, "name": s.Name, "status": "completed", "conclusion": conclusion,
			"started_at": s.Started, "completed_at": s.Completed,
		})
	}
	in["stepResults"] = steps
	err := j.post(ctx, j.service, "completejob", in, nil)
	if statusOf(err) == http.StatusNotFound {
		j.agent.say("Job %s was over before: %v", j.message.Name, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot complete job %q: %w", j.message.Name, err)
	}
	return nil
}

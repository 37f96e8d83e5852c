package protorunner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"time"
)

// Version is what it says about itself to GitHub.
const Version = "2.336.0"

// Options say what becomes of the job. The zero value lets it succeed at once.
type Options struct {
	// Hold is how long the job runs.
	Hold time.Duration
	// Until, if there is one, is called instead: the job runs until it returns.
	Until func(ctx context.Context) error
	// Conclusion is how it ends: succeeded when empty, or failed, canceled, skipped.
	Conclusion string
	// Outputs are what the job hands on.
	Outputs map[string]string
	// Abrupt makes it die with ctx as a killed process does: the job is not reported, the session not deleted.
	Abrupt bool
	// Version is what it says about itself; the constant when empty.
	Version string
	// Renew is the distance of renewals: 60 s when zero.
	Renew time.Duration
	// Output takes the official runner's lines; discarded when nil.
	Output io.Writer
	// Client sends the requests; http.DefaultClient when nil.
	Client *http.Client
}

// brokerMessage is one thing that the broker says.
type brokerMessage struct {
	ID   int64  `json:"messageId"`
	Type string `json:"messageType"`
	Body string `json:"body"`
}

type jobRef struct {
	Request     string `json:"runner_request_id"`
	Acknowledge bool   `json:"should_acknowledge"`
	RunService  string `json:"run_service_url"`
	Billing     string `json:"billing_owner_id"`
}

type agent struct {
	cfg     *Config
	opts    Options
	listen  *conn
	session string
}

// Run is the whole life of a runner: it connects, listens, executes one job, reports it, leaves and returns
// nil. Before a job it returns when ctx ends, the registration is gone (ErrGone) or its version is too old
// (ErrDeprecated); what may pass is tried again. A ctx that ends during the job cancels the job, which is still reported.
func Run(ctx context.Context, jitConfig string, opts Options) error {
	cfg, err := ParseJIT(jitConfig)
	if err != nil {
		return err
	}
	opts.Client = cmp.Or(opts.Client, http.DefaultClient)
	opts.Conclusion = cmp.Or(opts.Conclusion, "succeeded")
	opts.Version = cmp.Or(opts.Version, Version)
	opts.Renew = cmp.Or(opts.Renew, time.Minute)
	if opts.Output == nil {
		opts.Output = io.Discard
	}
	a := &agent{cfg: cfg, opts: opts, listen: &conn{client: opts.Client}}
	if err := a.connect(ctx); err != nil {
		return a.deplore(err)
	}
	defer a.leave(ctx)
	return a.deplore(a.serve(ctx))
}

// deplore prints the official runner's line about a version that is too old.
func (a *agent) deplore(err error) error {
	if errors.Is(err, ErrDeprecated) {
		fmt.Fprintf(a.opts.Output, "An error occured: Runner version v%s is deprecated and cannot receive messages.\n", a.opts.Version)
	}
	return err
}

// serve waits for a job and executes it.
func (a *agent) serve(ctx context.Context) error {
	for {
		m, err := a.poll(ctx, "Online")
		if err != nil {
			return err
		}
		if m.Type != "RunnerJobRequest" {
			continue
		}
		j, err := a.take(ctx, m)
		switch {
		case err == nil:
			return j.run(ctx)
		case statusOf(err) == http.StatusNotFound, statusOf(err) == http.StatusConflict, statusOf(err) == http.StatusUnprocessableEntity:
			a.say("Skipping message Job. Job message not found '%s'.", err)
		default:
			return err
		}
	}
}

func (a *agent) say(format string, args ...any) {
	fmt.Fprintf(a.opts.Output, "%s: %s\n", time.Now().UTC().Format("2006-01-02 15:04:05Z"), fmt.Sprintf(format, args...))
}

// call sends with the listener's token and gets a new one when it is refused.
func (a *agent) call(ctx context.Context, method, ref string, in, out any) (int, error) {
	address, err := resolve(a.cfg.Broker, ref)
	if err != nil {
		return 0, err
	}
	status, err := a.listen.send(ctx, method, address, in, out)
	if status == http.StatusUnauthorized {
		if err := a.listen.authorize(ctx, a.cfg); err != nil {
			return 0, err
		}
		return a.listen.send(ctx, method, address, in, out)
	}
	return status, err
}

// connect gets a token and a session.
func (a *agent) connect(ctx context.Context) error {
	var out struct {
		ID string `json:"sessionId"`
	}
	err := insist(ctx, func(ctx context.Context) error {
		if err := a.listen.authorize(ctx, a.cfg); err != nil {
			return err
		}
		if !a.opts.Abrupt { // whoever is told to go now still learns which session it must delete
			ctx = context.WithoutCancel(ctx)
		}
		_, err := a.call(ctx, http.MethodPost, "session", map[string]any{
			"ownerName": a.cfg.RunnerName, "useFipsEncryption": false,
			"agent": map[string]any{
				"id": json.Number(a.cfg.RunnerID), "name": a.cfg.RunnerName, "version": a.opts.Version,
				"osDescription": runtime.GOOS, "ephemeral": true,
			},
		}, &out)
		switch statusOf(err) {
		case http.StatusNotFound:
			return fmt.Errorf("cannot open a session: %w", ErrGone)
		case http.StatusForbidden:
			return refused(err)
		case http.StatusConflict: // the session of a runner that was killed lasts a while
			return fmt.Errorf("cannot open a session: another is active: %s", err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot connect runner %s: %w", a.cfg.RunnerName, err)
	}
	a.session = out.ID
	fmt.Fprintf(a.opts.Output, "\n√ Connected to GitHub\n\nCurrent runner version: '%s'\n", a.opts.Version)
	a.say("Listening for Jobs")
	return nil
}

// leave deletes the session, whatever became of ctx. GitHub has often done so already.
func (a *agent) leave(ctx context.Context) {
	if a.opts.Abrupt && ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	a.call(ctx, http.MethodDelete, "session", nil, nil)
}

// poll asks until the broker says something.
func (a *agent) poll(ctx context.Context, status string) (*brokerMessage, error) {
	q := url.Values{
		"sessionId": {a.session}, "status": {status}, "runnerVersion": {a.opts.Version},
		"os": {runtime.GOOS}, "architecture": {runtime.GOARCH}, "disableUpdate": {"true"},
	}
	for {
		var m brokerMessage
		err := insist(ctx, func(ctx context.Context) error {
			_, err := a.call(ctx, http.MethodGet, "message?"+q.Encode(), nil, &m)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("cannot listen longer: %w", context.Cause(ctx))
		case statusOf(err) == http.StatusNotFound:
			return nil, fmt.Errorf("cannot listen: %w: %w", ErrGone, err)
		case err != nil:
			return nil, fmt.Errorf("cannot listen: %w", refused(err))
		case m.Type != "":
			return &m, nil
		}
	}
}

// take acknowledges and acquires the job that a message offers.
func (a *agent) take(ctx context.Context, m *brokerMessage) (*job, error) {
	var ref jobRef
	if err := json.Unmarshal([]byte(m.Body), &ref); err != nil {
		return nil, fmt.Errorf("cannot read the job offer: %w", err)
	}
	if ref.Acknowledge {
		q := url.Values{"sessionId": {a.session}, "status": {"Online"}, "runnerVersion": {a.opts.Version}}
		// The official runner ignores what comes back.
		a.call(ctx, http.MethodPost, "acknowledge?"+q.Encode(), map[string]string{"runnerRequestId": ref.Request}, nil)
	}
	acquire, err := resolve(ref.RunService, "acquirejob")
	if err != nil {
		return nil, err
	}
	j := &job{agent: a}
	err = insist(ctx, func(ctx context.Context) error {
		_, err := a.listen.send(ctx, http.MethodPost, acquire, map[string]string{
			"jobMessageId": ref.Request, "runnerOS": osName(),
			"billingOwnerId": ref.Billing,
		}, &j.message)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot acquire the job: %w", err)
	}
	return j, j.prepare()
}

var errCancelled = errors.New("the job was cancelled")

// osName writes the operating system as GitHub does.
func osName() string {
	switch runtime.GOOS {
	case "darwin":
		return "macOS"
	case "windows":
		return "Windows"
	}
	return "Linux"
}

package emulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
)

const owner, repo = "octo", "demo"

// patience bounds the waits of tests; nothing is measured with it.
const patience = 2 * time.Minute

// world is an emulator that serves on loopback, and a REST client for it.
type world struct {
	*emulator.Emulator
	base  string
	token string
	rest  *github.Client
}

func start(t *testing.T, opts emulator.Options) *world {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() && opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	e := emulator.New(opts)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	base := "http://" + ln.Addr().String()
	token := opts.Token.Reveal()
	return &world{e, base, token, client(t, base, nil, token)}
}

// client is go-github for an emulator, as for a GitHub Enterprise Server.
func client(t *testing.T, base string, c *http.Client, token string) *github.Client {
	t.Helper()
	if c == nil {
		c = &http.Client{Transport: &http.Transport{}}
		t.Cleanup(c.CloseIdleConnections)
	}
	rest := github.NewClient(c)
	if token != "" {
		rest = rest.WithAuthToken(token)
	}
	u, err := url.Parse(base + "/api/v3/")
	if err != nil {
		t.Fatal(err)
	}
	rest.BaseURL = u
	return rest
}

// jit makes a runner and returns its configuration.
func jit(t *testing.T, rest *github.Client, name string, labels ...string) (int64, string) {
	t.Helper()
	out, _, err := rest.Actions.GenerateRepoJITConfig(t.Context(), owner, repo,
		&github.GenerateJITConfigRequest{Name: name, RunnerGroupID: 1, Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetRunner().GetID(), out.GetEncodedJITConfig()
}

func submit(t *testing.T, e *emulator.Emulator, contents string) int64 {
	t.Helper()
	w, err := workflow.Parse("test.yml", []byte(contents))
	if err != nil {
		t.Fatal(err)
	}
	id, err := e.Submit(w, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// submitFile queues a run of a workflow file with the tree that it lies in, over HTTP.
func submitFile(t *testing.T, w *world, path string) int64 {
	t.Helper()
	body, err := json.Marshal(map[string]string{"path": path})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.base+"/_emulator/workflows", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		RunID   int64 `json:"run_id"`
		Message string
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("submitting %s is answered %d %q, %v", path, resp.StatusCode, out.Message, err)
	}
	return out.RunID
}

// finish waits for a run.
func finish(t *testing.T, e *emulator.Emulator, id int64) emulator.RunState {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	state, err := e.WaitRun(ctx, id)
	if err != nil {
		t.Fatalf("%v; the state is %+v", err, state)
	}
	return state
}

// until waits until the state is as wanted.
func until(t *testing.T, e *emulator.Emulator, what string, ok func(emulator.State) bool) emulator.State {
	t.Helper()
	changed, stop := e.Watch()
	defer stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		s := e.State()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-limit.C:
			t.Fatalf("never: %s; the state is %+v", what, s)
		}
	}
}

// online waits until the runner of that name listens.
func online(t *testing.T, e *emulator.Emulator, name string) {
	t.Helper()
	until(t, e, name+" is online", func(s emulator.State) bool {
		for _, r := range s.Runners {
			if r.Name == name {
				return r.Online
			}
		}
		return false
	})
}

func conclusions(r emulator.RunState) map[string]string {
	out := map[string]string{}
	for _, j := range r.Jobs {
		out[j.Name] = j.Conclusion
	}
	return out
}

const oneJob = `
name: one
on: push
jobs:
  build:
    runs-on: [self-hosted, linux]
    steps:
      - run: echo hello
`

const chain = `
name: chain
on: push
jobs:
  one:
    runs-on: self-hosted
    outputs:
      greeting: ${{ steps.say.outputs.greeting }}
    steps:
      - run: echo first
      - id: say
        run: echo "greeting=hi there" >> "$GITHUB_OUTPUT"
  two:
    needs: [one]
    runs-on: self-hosted
    steps:
      - run: echo "got ${{ needs.one.outputs.greeting }}"
`

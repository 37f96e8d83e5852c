package scaleset_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	official "github.com/actions/scaleset"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// official returns GitHub's own client of the same emulator.
func (w *world) official() *official.Client {
	w.t.Helper()
	pipe := emulator.NewPipe()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, pipe) }()
	transport := &http.Transport{DialContext: pipe.DialContext}
	w.t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	over := retryablehttp.NewClient()
	over.RetryMax, over.Logger = 0, nil
	over.HTTPClient.Transport = transport
	c, err := official.NewClientWithPersonalAccessToken(official.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL: "http://127.0.0.1:1/octo", PersonalAccessToken: token,
	}, official.WithRetryableHTTPClint(over))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// GitHub's own client and ours see the same sets, sessions and runners.
func TestTheOfficialClientAndOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		theirs, h := w.official(), w.host()
		in := &official.RunnerScaleSet{Name: "pool", RunnerGroupID: 1}
		for _, l := range append(slices.Clone(h.settings.Labels), "pool") {
			in.Labels = append(in.Labels, official.Label{Name: l})
		}
		made, err := theirs.CreateRunnerScaleSet(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		session, err := theirs.MessageSessionClient(t.Context(), made.ID, "arc-listener")
		if err != nil {
			t.Fatal(err)
		}
		p := w.listen(h)
		w.until("ours says who listens", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return strings.Contains(p.problem, "held by arc-listener")
		})
		if err := session.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.until("ours listens", func() bool { return strings.HasPrefix(w.theSet().Owner, "tasuki-aaaaaa-") })
		if _, err := theirs.MessageSessionClient(t.Context(), made.ID, "arc-listener"); err == nil || !strings.Contains(err.Error(), "active session for owner tasuki-aaaaaa-host-aaaaaa") {
			t.Errorf("the official client is told %v", err)
		}
		w.finish(w.submit(2))

		// A runner that the official client registers is one of the set, like ours.
		p.mu.Lock()
		p.lame = true
		p.mu.Unlock()
		run := w.submit(1)
		config, err := theirs.GenerateJitRunnerConfig(t.Context(), &official.RunnerScaleSetJitRunnerSetting{Name: "theirs"}, made.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := protorunner.Run(t.Context(), config.EncodedJITConfig, protorunner.Options{Client: w.Client()}); err != nil {
			t.Fatal(err)
		}
		w.finish(run)
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 3)
		if n := p.set.Want().Runners(); n != 0 {
			t.Errorf("%d runners are wanted for a job that the other one did", n)
		}
	})
}

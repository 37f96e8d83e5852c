package github_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
)

func TestCallsAreTold(t *testing.T) {
	for scope, want := range map[string][]string{
		"octo/demo": {
			"GET repos/{owner}/{repo}/actions/runners/downloads 200",
			"GET repos/{owner}/{repo}/actions/runners/{id} 404", "GET repos/{owner}/{repo}/actions/runners 200",
		},
		"octo": {
			"GET orgs/{org}/actions/runners/downloads 200", "GET orgs/{org}/actions/runners/{id} 404",
			"GET orgs/{org}/actions/runners 200",
		},
	} {
		e := emulator.New(emulator.Options{Token: secret.New(token)})
		var calls []string
		c, err := github.New(github.Options{
			URL: "http://127.0.0.1:1", Scope: scope, HTTP: emulator.Transport{Handler: e.Handler()},
			Token:   func(context.Context) (secret.String, error) { return secret.New(token), nil },
			Observe: func(c github.Call) { calls = append(calls, c.Method+" "+c.Route+" "+strconv.Itoa(c.Status)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Downloads(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, there, err := c.Runner(t.Context(), 4711); err != nil || there {
			t.Fatal(there, err)
		}
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("%s (-want +got):\n%s", scope, diff)
		}
	}
}

type down struct{}

func (down) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

func TestACallWithoutAReplyIsToldToo(t *testing.T) {
	var got []github.Call
	c, err := github.New(github.Options{Scope: "octo", HTTP: down{}, Observe: func(c github.Call) { got = append(got, c) }})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Runners(t.Context())
	if len(got) != 1 || got[0].Status != 0 || got[0].Route != "orgs/{org}/actions/runners" {
		t.Errorf("got %+v", got)
	}
}

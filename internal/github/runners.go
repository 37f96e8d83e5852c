package github

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/runner"
)

// JITConfigKey is the environment variable by which the runner program takes a
// just-in-time configuration. Source: actions/runner, CommandSettings.cs.
const JITConfigKey = "ACTIONS_RUNNER_INPUT_JITCONFIG"

const (
	perPage = 100
	// maxPages bounds a list: GitHub allows 10,000 runners in a group.
	maxPages = 200
	// defaultGroup is the id of the group "Default" everywhere.
	defaultGroup = 1
)

// remote is a runner in GitHub's words. go-github's own lacks the version and
// cannot tell a field that is not there.
type remote struct {
	ID      *int64  `json:"id"`
	Name    string  `json:"name"`
	Status  string  `json:"status"`
	Busy    bool    `json:"busy"`
	Version *string `json:"version"`
	Labels  []struct {
		Name string `json:"name"`
	} `json:"labels"`
}

func (r remote) ours() runner.Remote {
	out := runner.Remote{ID: *r.ID, Name: r.Name, Online: r.Status == "online", Busy: r.Busy}
	if r.Version != nil {
		out.Version = *r.Version
	}
	for _, l := range r.Labels {
		out.Labels = append(out.Labels, l.Name)
	}
	return out
}

// errTooOld: JIT configurations came with GitHub Enterprise Server 3.10.
// Source: docs.github.com, the REST API of that version.
var errTooOld = errors.New("this GitHub Enterprise Server has no just-in-time configurations: it must be 3.10 or newer")

// tooOld says whether a reply is of a server without JIT configurations.
func (c *Client) tooOld(err error) bool {
	version := reply(err).Header.Get("X-Github-Enterprise-Version")
	var major, minor int
	n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return n == 2 && (major < 3 || major == 3 && minor < 10)
}

var errNoAnswer = errors.New("the reply is not one of GitHub's API")

// Credential asks for a just-in-time configuration: the runner is registered
// then, offline, and the credential lets one program take one job. Where the
// registration says so, or leaves it open and this GitHub has no such
// configurations, it asks for a registration token, with which the program
// registers by itself. Errors beside those of every call: runner.ErrExists,
// after which the name's earlier registration is to be removed, or another name
// taken.
func (c *Client) Credential(ctx context.Context, r runner.Registration) (runner.Credential, error) {
	if r.Way == runner.ByToken {
		return c.registrationToken(ctx, r)
	}
	got, err := c.jit(ctx, r)
	if errors.Is(err, errTooOld) && r.Way != runner.ByJIT {
		return c.registrationToken(ctx, r)
	}
	return got, err
}

// registrationToken asks for a token that lasts an hour and registers any number
// of runners: it is for one guest all the same.
func (c *Client) registrationToken(ctx context.Context, r runner.Registration) (runner.Credential, error) {
	const doing = "get a registration token"
	if r.Group != "" { // config.sh would only say "not found", in the guest
		if _, err := c.group(ctx, r.Group); err != nil {
			return runner.Credential{}, err
		}
	}
	var got struct {
		Token string `json:"token"`
	}
	if _, err := c.call(ctx, http.MethodPost, "/actions/runners/registration-token", nil, &got); err != nil {
		return runner.Credential{}, c.explain(doing, err)
	}
	if got.Token == "" {
		return runner.Credential{}, c.explain(doing, errNoAnswer)
	}
	page := cmp.Or(strings.TrimSuffix(c.account.opt.URL, "/"), "https://github.com") + "/" + c.scope.name
	return runner.Credential{Setup: &runner.Setup{
		URL: page, Token: secret.New(got.Token), Name: r.Name, Labels: r.Labels, Group: r.Group, WorkFolder: r.WorkFolder,
	}}, nil
}

func (c *Client) jit(ctx context.Context, r runner.Registration) (runner.Credential, error) {
	const doing = "register a runner"
	group, err := c.group(ctx, r.Group)
	if err != nil {
		return runner.Credential{}, err
	}
	if r.WorkFolder == "" {
		r.WorkFolder = "_work"
	}
	var got struct {
		Runner remote `json:"runner"`
		Config string `json:"encoded_jit_config"`
	}
	_, err = c.call(ctx, http.MethodPost, "/actions/runners/generate-jitconfig", map[string]any{
		"name": r.Name, "runner_group_id": group, "labels": r.Labels, "work_folder": r.WorkFolder,
	}, &got)
	switch {
	case status(err) == http.StatusConflict:
		return runner.Credential{}, fmt.Errorf("cannot register runner %q with %s: %w", r.Name, c.scope.name, runner.ErrExists)
	case err != nil:
		if s := status(err); s == http.StatusNotFound || s == http.StatusForbidden {
			c.forgetGroup(r.Group) // it may be the group that is gone
			if s == http.StatusNotFound && c.tooOld(err) {
				err = errTooOld
			}
		}
		return runner.Credential{}, c.explain(doing, err)
	}
	if _, err := base64.StdEncoding.DecodeString(got.Config); err != nil || got.Config == "" || got.Runner.ID == nil {
		return runner.Credential{}, c.explain(doing, errNoAnswer)
	}
	return runner.Credential{
		ID:  *got.Runner.ID,
		Env: map[string]secret.String{JITConfigKey: secret.New(got.Config)},
	}, nil
}

// Runners returns every runner of the scope, those of others too.
func (c *Client) Runners(ctx context.Context) ([]runner.Remote, error) {
	// A runner that goes while we turn pages moves another from the next page
	// to the one before; a list that came out too short is taken once more.
	all, whole, err := c.list(ctx)
	if err == nil && !whole {
		all, _, err = c.list(ctx)
	}
	if err == nil {
		c.sees()
	}
	return all, c.explain("list the runners", err)
}

// list also says whether it has as many as GitHub counts.
func (c *Client) list(ctx context.Context) (all []runner.Remote, whole bool, err error) {
	seen := map[int64]bool{}
	for page := 1; page <= maxPages; page++ {
		var got struct {
			Total   *int      `json:"total_count"`
			Runners *[]remote `json:"runners"`
		}
		path := fmt.Sprintf("/actions/runners?per_page=%d&page=%d", perPage, page)
		if _, err := c.call(ctx, http.MethodGet, path, nil, &got); err != nil {
			return nil, false, err
		}
		if got.Total == nil || got.Runners == nil {
			return nil, false, errNoAnswer
		}
		for _, r := range *got.Runners {
			if r.ID == nil {
				return nil, false, errNoAnswer
			}
			if !seen[*r.ID] {
				seen[*r.ID] = true
				all = append(all, r.ours())
			}
		}
		if len(*got.Runners) < perPage {
			return all, len(all) >= *got.Total, nil
		}
	}
	return nil, false, fmt.Errorf("the scope has more than %d runners", maxPages*perPage)
}

// Runner returns one runner; false: GitHub does not know it.
func (c *Client) Runner(ctx context.Context, id int64) (runner.Remote, bool, error) {
	doing := fmt.Sprintf("look at runner %d", id)
	var got remote
	_, err := c.call(ctx, http.MethodGet, fmt.Sprintf("/actions/runners/%d", id), nil, &got)
	if status(err) == http.StatusNotFound {
		return runner.Remote{}, false, c.explain(doing, c.visible(ctx))
	}
	if err == nil && got.ID == nil {
		err = errNoAnswer
	}
	if err != nil {
		return runner.Remote{}, false, c.explain(doing, err)
	}
	c.sees()
	return got.ours(), true, nil
}

// Remove deletes a registration; one that is gone is no error. A runner that
// executes a job stays: runner.ErrBusy.
func (c *Client) Remove(ctx context.Context, id int64) error {
	doing := fmt.Sprintf("remove runner %d", id)
	res, err := c.call(ctx, http.MethodDelete, fmt.Sprintf("/actions/runners/%d", id), nil, nil)
	switch {
	case status(err) == http.StatusNotFound:
		return c.explain(doing, c.visible(ctx))
	case status(err) == http.StatusUnprocessableEntity:
		return fmt.Errorf("cannot %s of %s: %w", doing, c.scope.name, runner.ErrBusy)
	case err == nil && res.StatusCode != http.StatusNoContent:
		err = errNoAnswer
	}
	return c.explain(doing, err)
}

// sightLasts is how long we believe that we may still see the scope's runners:
// every runner that ends asks, and a large fleet shares one rate limit.
const sightLasts = time.Minute

// sees notes that GitHub lets us see the scope's runners.
func (c *Client) sees() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saw = c.now()
}

// visible returns an error unless GitHub lets us see the scope's runners, or did
// within the last minute: a runner that is not found there is gone.
func (c *Client) visible(ctx context.Context) error {
	c.mu.Lock()
	age := c.now().Sub(c.saw)
	c.mu.Unlock()
	if age >= 0 && age < sightLasts {
		return nil
	}
	var got struct {
		Total *int `json:"total_count"`
	}
	_, err := c.call(ctx, http.MethodGet, "/actions/runners?per_page=1", nil, &got)
	switch {
	case err == nil && got.Total == nil:
		err = errNoAnswer
	case err == nil:
		c.sees()
	}
	return err
}
